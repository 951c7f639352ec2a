"""Signals that a real run gets in this process, at each of its safe points."""

import csv
import os
import signal

import pytest

from cxr_tfrecords.errors import TemporaryError
from tests import helpers
from trainer.distribution import lost_workers, preemption
from trainer.settings.config import TrainConfig
from trainer.training.run import run

COUNTS = {"train": (16, 16, 24, 8), "validation": (6, 8, 10, 4), "test": (6, 7, 10, 4)}
STEPS = 4
pytestmark = pytest.mark.usefixtures("listening")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return helpers.write_dataset(tmp_path_factory.mktemp("data"), COUNTS)


def _config(data, run_dir) -> TrainConfig:
    return TrainConfig(
        data.path, str(run_dir), batch_size=16, epochs=2, steps_per_loop=1, bn_examples=16
    )


def _signal_at(monkeypatch, moment: str, number: signal.Signals, times: int = 1) -> None:
    """Sends this process a signal when a run reports `moment` as done."""
    beat = lost_workers.beat

    def beat_and_signal(done: str) -> None:
        beat(done)
        if done == moment:
            for _ in range(times):
                os.kill(os.getpid(), number)

    monkeypatch.setattr(lost_workers, "beat", beat_and_signal)


def _results(run_dir) -> list:
    timed = ("seconds", "images_per_second")
    with open(run_dir / "history.csv", newline="") as file:
        rows = [{k: v for k, v in row.items() if k not in timed} for row in csv.DictReader(file)]
    names = ("predictions_test.csv", "metrics.json", "sampler_audit.json")
    return [rows, *((run_dir / name).read_bytes() for name in names)]


@pytest.fixture(scope="module")
def whole(data, strategy, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("runs") / "whole"
    run(_config(data, run_dir), data, strategy)
    return _results(run_dir)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("moment", "saved", "checkpoint"),
    [
        # The bits of a training that goes on from within an epoch: test_checkpoints.py.
        ("step 1", r"step 1 \(1 of epoch 1\)", "epoch-0-step-1"),
        (f"step {STEPS}", r"step 4 \(4 of epoch 1\)", "epoch-0-step-4"),
        ("a batch of validation", r"step 4 \(4 of epoch 1\)", "epoch-0-step-4"),
    ],
)
def test_a_preemption_notice_saves_at_the_next_safe_point_and_nothing_changes(
    data, strategy, tmp_path, monkeypatch, whole, moment, saved, checkpoint
):
    with monkeypatch.context() as signalled:
        _signal_at(signalled, moment, signal.SIGTERM)
        with pytest.raises(TemporaryError, match=f"^SIGTERM, saved after {saved}$"):
            run(_config(data, tmp_path), data, strategy)
    assert os.listdir(tmp_path / "checkpoints" / "resume") == [checkpoint]
    monkeypatch.setattr(preemption, "_noted", None)
    run(_config(data, tmp_path), data, strategy)
    assert _results(tmp_path) == whole


def test_ctrl_c_saves_too_and_a_second_one_does_not_wait(data, strategy, tmp_path, monkeypatch):
    with monkeypatch.context() as signalled:
        _signal_at(signalled, "step 2", signal.SIGINT)
        with pytest.raises(KeyboardInterrupt, match=r"^interrupted, saved after step 2"):
            run(_config(data, tmp_path), data, strategy)
    monkeypatch.setattr(preemption, "_noted", None)
    _signal_at(monkeypatch, "step 3", signal.SIGINT, times=2)
    with pytest.raises(KeyboardInterrupt, match=r"^interrupted, nothing saved$"):
        run(_config(data, tmp_path), data, strategy)
    assert os.listdir(tmp_path / "checkpoints" / "resume") == ["epoch-0-step-2"]


def test_outside_of_training_a_notice_ends_the_run_at_once():
    def read_weights():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except Exception as error:
            raise AssertionError("taken for a damaged file") from error

    with pytest.raises(TemporaryError, match=r"^SIGTERM, nothing new to save$"):
        read_weights()
