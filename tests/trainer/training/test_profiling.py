"""Traces of real trainings: what bounds them by construction is what the trace says."""

import dataclasses
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from tensorflow.tsl.profiler.protobuf import xplane_pb2

from cxr_tfrecords.errors import TemporaryError
from tests import helpers
from tests.trainer import toy
from trainer.distribution import lost_workers, preemption, strategies
from trainer.models import classifier
from trainer.settings.config import TrainConfig
from trainer.training import loop, steps, trace_file
from trainer.training.learner import create_trainer

COUNTS = {"train": (16, 16, 24, 8), "validation": (3, 4, 6, 2), "test": (3, 5, 7, 2)}
STEPS = 8
_LINE = re.compile(
    r"^profile: steps (\d+)-(\d+) of epoch (\d+)( \(fewer were left than --profile=\d+\))?, "
    r"([\d.e+]+) ms each: compute ([\d.]+)%, input \(waiting for images\) ([\d.]+)%, "
    r"reduction \(sums over replicas\) ([\d.]+)%, rest ([\d.]+)%: bound by ([\w ]+); "
    r"trace in (\S+): tensorboard --logdir=\S+ \(needs tensorboard-plugin-profile\)$",
    re.MULTILINE,
)
_INTERVALS = st.lists(
    st.tuples(st.integers(0, 30), st.integers(0, 30)).map(lambda pair: tuple(sorted(pair))),
    max_size=6,
)


@given(window=_INTERVALS, compute=_INTERVALS, reduction=_INTERVALS, waiting=_INTERVALS)
def test_every_moment_counts_once_as_the_first_that_holds(window, compute, reduction, waiting):
    given_sets = (window, compute, reduction, waiting)
    arrays = [np.array(each, np.int64).reshape(-1, 2) for each in given_sets]
    expected = dict.fromkeys(("compute", "reduction", "input", "rest"), 0)
    for moment in range(30):  # from `moment` to `moment + 1`
        here, computes, sums, waits = (any(a <= moment < b for a, b in s) for s in given_sets)
        if here:
            name = "compute" if computes else "reduction" if sums else "input" if waits else "rest"
            expected[name] += 1
    assert trace_file.split_time(*arrays) == expected


def _measure(size, change, logdir):
    """Shares of two host loops of `tiny` on images of this size, with a pause between them."""
    strategy = strategies.create_strategy("cpu")
    network = classifier.create_model(
        "tiny", image_size=size, channels=1, num_classes=toy.NUM_CLASSES
    )
    optimizer, meters = steps.create_optimizer("sgd", 0.02, network), steps.Meters(toy.NUM_CLASSES)
    train_steps = steps.make_train_steps(strategy, network, optimizer, meters, toy.BATCH)
    dataset = tf.data.Dataset.from_tensor_slices(toy.images_and_labels(8 * toy.BATCH, size))
    batches = iter(change(dataset.batch(toy.BATCH, drop_remainder=True)))
    train_steps(batches, tf.constant(2))
    with trace_file.session(str(logdir)):
        for step in (2, 5):
            with trace_file.host_loop(step):
                train_steps(batches, tf.constant(3))
            time.sleep(1)  # nobody's time
    return trace_file.measure_shares(str(logdir))


@pytest.mark.slow
def test_slow_reading_is_named_and_its_own_operations_are_not_computing(tmp_path):
    def slow(image):
        time.sleep(0.1)
        return image

    def slowly(images, labels):
        pixels = tf.numpy_function(slow, [images], tf.uint8)
        return tf.ensure_shape(pixels, images.shape), labels

    shares = _measure(32, lambda batches: batches.map(slowly), tmp_path)
    assert shares.bound == "input"
    assert shares.input > 0.5


@pytest.mark.slow
def test_images_at_hand_leave_computing(tmp_path):
    shares = _measure(96, lambda batches: batches.prefetch(8), tmp_path)
    assert shares.bound == "compute"
    assert shares.reduction == 0
    assert sum((shares.compute, shares.input, shares.rest)) == pytest.approx(1)


def test_without_a_trace_nothing_is_measured(tmp_path):
    with pytest.raises(ValueError, match="no trace in"):
        trace_file.measure_shares(str(tmp_path))
    with trace_file.session(str(tmp_path)):
        tf.constant(1) + 1
    with pytest.raises(ValueError, match="no host loop"):
        trace_file.measure_shares(str(tmp_path))


def _add(plane, line_name, *events):
    """Events of (name, start, end) in microseconds, all of one call of a function."""
    line = plane.lines.add(name=line_name, timestamp_ns=10**18)
    plane.stat_metadata[1].name = "id"
    for name, start, end in events:
        key = len(plane.event_metadata) + 1
        plane.event_metadata[key].name = name
        event = line.events.add(
            metadata_id=key, offset_ps=start * 10**6, duration_ps=(end - start) * 10**6
        )
        event.stats.add(metadata_id=1, int64_value=7)


def test_a_device_is_measured_by_its_own_timeline(tmp_path):
    """Written by hand in the form that TensorFlow's profiler gives a GPU: none is here."""
    space = xplane_pb2.XSpace()
    host = space.planes.add(name="/host:CPU")
    _add(host, "python", ("host_loop", 0, 100))
    launch = ("while/body/Conv2D:Conv2D", 0, 90)
    _add(host, "tf_Compute/1", ("ExecutorState::Process", 0, 95), launch)
    _add(host, "tf_data_iterator_get_next/1", ("IteratorGetNextOp::DoCompute", 0, 20))
    device = space.planes.add(name="/device:GPU:0")
    _add(
        device,
        "Stream #13(Compute)",
        ("sm90_xmma_fprop", 15, 50),
        ("ncclDevKernel_AllReduce_Sum_f32_RING_LL(ncclDevKernelArgs)", 45, 75),
    )
    _add(device, "Stream #14(MemcpyH2D)", ("MemcpyH2D", 70, 80))
    _add(device, "TensorFlow Ops", ("summary", 0, 100))
    folder = tmp_path / "plugins" / "profile" / "now"
    folder.mkdir(parents=True)
    (folder / "host.xplane.pb").write_bytes(space.SerializeToString())
    shares = trace_file.measure_shares(str(tmp_path))
    parts = (shares.compute, shares.reduction, shares.input, shares.rest)
    assert parts == pytest.approx((0.35, 0.25, 0.20, 0.20))
    assert shares.seconds == pytest.approx(100e-6)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return helpers.write_dataset(tmp_path_factory.mktemp("data"), COUNTS)


def _config(data, run_dir, **settings):
    return TrainConfig(
        data.path,
        str(run_dir),
        **{"batch_size": 8, "epochs": 2, "steps_per_loop": 3, "bn_examples": 16} | settings,
    )


def _train(config, data):
    """Trains into the run directory; returns all weights, and the history without its times."""
    os.makedirs(config.run_dir, exist_ok=True)
    trainer = create_trainer(config, data, strategies.create_strategy("cpu"))
    progress = loop.train(trainer)
    timed = ("seconds", "images_per_second")
    rows = [{k: v for k, v in row.items() if k not in timed} for row in progress.history]
    variables = (*trainer.learner.model.variables, *trainer.learner.optimizer.variables)
    return [variable.numpy().tobytes() for variable in variables], rows


@pytest.fixture(scope="module")
def plain(data, tmp_path_factory):
    """The results of a run without --profile."""
    run_dir = tmp_path_factory.mktemp("plain")
    results = _train(_config(data, run_dir), data)
    assert not (run_dir / "profile").exists()
    return results


def _lines(text):
    return [line for line in text.splitlines() if line.startswith("profile")]


@pytest.mark.parametrize(
    ("wanted", "traced", "fewer"),
    # One host loop and a part of the next; more than the epoch has after its first.
    [
        (4, ("4", "7"), None),
        pytest.param(99, ("4", "8"), "99", marks=pytest.mark.slow),
    ],
)
def test_traced_run_says_one_line_and_has_the_same_results(
    data, tmp_path, capsys, plain, wanted, traced, fewer
):
    assert _train(_config(data, tmp_path, profile=wanted), data) == plain
    (line,) = _lines(capsys.readouterr().out)
    found = _LINE.match(line)
    assert found, line
    assert found.group(1, 2, 3) == (*traced, "1")
    assert (found[4] or "").endswith(f"{fewer})" if fewer else "")
    assert sum(map(float, found.group(6, 7, 8, 9))) == pytest.approx(100, abs=0.21)
    shares = trace_file.measure_shares(found[11])
    assert found[10] == (shares.bound if shares.bound != "rest" else "none of the three")
    count = int(traced[1]) - int(traced[0]) + 1
    assert float(found[5]) == pytest.approx(shares.seconds / count * 1e3, rel=0.01)


@pytest.mark.slow
def test_epoch_of_one_host_loop_has_nothing_to_trace_and_says_so(data, tmp_path, capsys, plain):
    assert _train(_config(data, tmp_path, profile=5, steps_per_loop=STEPS), data) == plain
    (line,) = _lines(capsys.readouterr().out)
    assert "nothing traced: epoch 1 has no step after the first host loop of 8" in line
    assert "--steps_per_loop" in line


@pytest.mark.slow
@pytest.mark.usefixtures("listening")
def test_run_that_is_stopped_while_it_is_traced_goes_on_and_is_traced_anew(
    data, tmp_path, monkeypatch, capsys, plain
):
    beat = lost_workers.beat

    def beat_and_signal(done):
        beat(done)
        if done == "step 5":
            os.kill(os.getpid(), signal.SIGTERM)

    config = _config(data, tmp_path, profile=9, steps_per_loop=1)
    with monkeypatch.context() as signalled:
        signalled.setattr(lost_workers, "beat", beat_and_signal)
        with pytest.raises(TemporaryError, match="saved after step 5"):
            _train(config, data)
    assert _lines(capsys.readouterr().out) == []
    assert list(tmp_path.glob("profile/**/*.pb")) == []
    monkeypatch.setattr(preemption, "_noted", None)
    assert _train(dataclasses.replace(config, profile=2), data) == plain
    (line,) = _lines(capsys.readouterr().out)
    assert _LINE.match(line).group(1, 2, 3) == ("7", "8", "1")


@pytest.mark.slow
def test_sums_over_two_devices_are_seen(data, tmp_path):
    toy.run_replicated(_config(data, tmp_path, epochs=1, profile=3), 2)
    shares = trace_file.measure_shares(str(tmp_path / "profile"))
    assert shares.reduction > 0
    assert shares.compute > 0


def test_negative_number_of_steps_is_one_line():
    command = [sys.executable, "-m", "trainer.main", "--profile=-1"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "--profile=-1" in result.stderr
    assert result.stderr.count("\n") == 1
