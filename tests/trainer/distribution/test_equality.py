"""One training, whatever it runs on: real processes for every strategy, sizes that divide by
nothing, mirrored images, no dropout (each replica draws masks of its own, so that never agrees)."""

import csv
import json
import os
import re
import signal

import numpy as np
import pytest

from tests import helpers
from tests.trainer import equality
from trainer.evaluation.predictions import read_predictions

# A step's loss is a mean of 12 float32 numbers near 1, added in another order on each strategy:
# a few times 2^-24 = 6e-8, which 18 updates carry on. At most 1.4e-6 was measured.
_SMOOTH = 1e-5
# With ReLU, a jump of one gradient may part two trajectories: 2e-3 was measured.
_RELU = 2e-2


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return helpers.write_dataset(tmp_path_factory.mktemp("data"), equality.COUNTS, num_shards=3)


def _assert_equal(outcome, expected, tolerance):
    assert outcome.keys() == expected.keys()
    for sampler, values in outcome.items():
        others = expected[sampler]
        for name in ("step_losses", "losses", "validation_losses"):
            np.testing.assert_allclose(
                values[name], others[name], rtol=tolerance, err_msg=f"{sampler} {name}"
            )
        assert values["test_confusion"] == others["test_confusion"], sampler
        assert np.sum(values["test_confusion"], axis=1).tolist() == list(equality.COUNTS["test"])


def _trained(data, scratch, strategy, replicas, **settings):
    return equality.train_samplers(data.path, str(scratch), strategy, replicas, **settings)


# Three processes that load TensorFlow; the slow cases of the other strategies are of the same kind.
@pytest.mark.slow
def test_two_workers_train_as_one_cpu(data, tmp_path):
    settings = {"samplers": ["weighted"], "smooth": True}
    alone = _trained(data, tmp_path, "cpu", 1, **settings)
    both = _trained(data, tmp_path, "multi_worker", 2, **settings)
    _assert_equal(both, alone, _SMOOTH)


# A plan does not know the strategy, so that all samplers are needed once; the strategies differ in
# how they sum, which few samplers show.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("strategy", "replicas", "settings", "tolerance"),
    [
        ("mirrored", 4, {"smooth": True}, _SMOOTH),
        ("multi_worker", 3, {"smooth": True, "samplers": ["oversample", "rejection"]}, _SMOOTH),
        ("mirrored", 2, {"smooth": False, "samplers": ["undersample", "weighted"]}, _RELU),
    ],
)
def test_every_sampler_trains_alike_under_every_strategy(
    data, tmp_path, strategy, replicas, settings, tolerance
):
    alone = _trained(data, tmp_path, "cpu", 1, **settings)
    _assert_equal(_trained(data, tmp_path, strategy, replicas, **settings), alone, tolerance)


@pytest.mark.slow
def test_streamed_from_shards_workers_train_alike_too(data, tmp_path):
    settings = {"samplers": ["oversample", "rejection"], "smooth": True, "cache": "none"}
    alone = _trained(data, tmp_path, "cpu", 1, **settings)
    both = _trained(data, tmp_path, "multi_worker", 2, **settings)
    _assert_equal(both, alone, _SMOOTH)


def _history(run_dir):
    with open(os.path.join(run_dir, "history.csv"), newline="") as file:
        return list(csv.DictReader(file))


def _run_cluster(data, run_dir, workers, *flags, strategy="auto", killed_at=None):
    """Runs the command on so many workers, the last of them killed at a step."""
    command = [
        f"--data_dir={data.path}",
        f"--run_dir={run_dir}",
        f"--strategy={strategy}",
        "--batch_size=12",
        "--sampler=oversample",
        "--dropout=0",
        *flags,
    ]
    modules = [["trainer.main"]] * workers
    if killed_at:
        modules[-1] = ["tests.trainer.killed_run", str(killed_at)]
    environments = equality.cluster_environments(workers) if workers > 1 else [dict(os.environ)]
    commands = [[*module, *command] for module in modules]
    return equality.run_processes(commands, environments)


@pytest.mark.slow
def test_the_command_on_two_workers_writes_one_run_directory_as_one_cpu_would(data, tmp_path):
    run_dir = tmp_path / "run"
    flags = ["--epochs=2", "--early_stopping_patience=0"]
    results = _run_cluster(data, run_dir, 2, *flags)
    for number, result in enumerate(results):
        assert result.returncode == 0, result.stderr[-3000:]
        assert result.stderr == ""
        assert "strategy multi_worker: TF_CONFIG names 2 processes" in result.stdout
        assert re.search(
            rf"^worker {number} of 2 \(TF_CONFIG\), at localhost:", result.stdout, re.M
        )
    chief, other = (result.stdout for result in results)
    epochs = [
        [re.sub(r"[\d.]+ s, \d+ img/s", "", line) for line in text.splitlines() if "loss" in line]
        for text in (chief, other)
    ]
    assert epochs[0] == epochs[1]
    assert "report.md has all results" in chief
    assert "report.md" not in other
    # What only the chief may write is there once, and nothing else is.
    assert len(os.listdir(run_dir / "tensorboard")) == 1
    assert [name for name in os.listdir(run_dir) if "tmp" in name] == []

    whole = tmp_path / "whole"
    (result,) = _run_cluster(data, whole, 1, *flags, strategy="cpu")
    assert result.returncode == 0, result.stderr[-3000:]
    for row, expected in zip(_history(run_dir), _history(whole), strict=True):
        for name in ("step", "learning_rate", "accuracy"):
            assert row[name] == expected[name]
        assert float(row["loss"]) == pytest.approx(float(expected["loss"]), rel=_RELU)
    audits = [json.loads((path / "sampler_audit.json").read_text()) for path in (run_dir, whole)]
    assert audits[0]["epochs"] == audits[1]["epochs"]
    stored = [read_predictions(str(path / "predictions_test.csv")) for path in (run_dir, whole)]
    assert stored[0].ids == stored[1].ids
    np.testing.assert_array_equal(*(p.logits.argmax(1) for p in stored))


@pytest.mark.slow
def test_worker_that_is_killed_ends_the_others_with_a_line_and_all_go_on_together(data, tmp_path):
    flags = ["--epochs=2", "--steps_per_loop=1"]
    survivor, killed = _run_cluster(data, tmp_path / "run", 2, *flags, killed_at=13)
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-3000:]
    assert survivor.returncode == 75, survivor.stderr[-3000:]
    assert "worker 1 is lost after step" in survivor.stderr
    assert "Traceback" not in survivor.stderr
    assert len(_history(tmp_path / "run")) == 1

    for result in _run_cluster(data, tmp_path / "run", 2, *flags):
        assert result.returncode == 0, result.stderr[-3000:]
        assert "resuming after epoch 1 (9 steps)" in result.stdout
    for result in _run_cluster(data, tmp_path / "whole", 2, *flags):
        assert result.returncode == 0, result.stderr[-3000:]
    timed = ("seconds", "images_per_second")
    resumed, whole = (
        [
            {name: value for name, value in row.items() if name not in timed}
            for row in _history(path)
        ]
        for path in (tmp_path / "run", tmp_path / "whole")
    )
    assert resumed == whole
    metrics = [(tmp_path / name / "metrics.json").read_bytes() for name in ("run", "whole")]
    assert metrics[0] == metrics[1]
