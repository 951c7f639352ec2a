"""The command as a user runs it: real processes, whole runs on a tiny data set."""

import csv
import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import time

import keras
import numpy as np
import pytest

from tests import helpers
from tests.trainer import processes
from trainer.evaluation.predictions import compute_metrics, read_predictions
from trainer.input.split_batches import SplitSource
from trainer.settings.config import TrainConfig

COUNTS = {"train": (12, 18, 30, 6), "validation": (6, 8, 10, 4), "test": (6, 7, 10, 4)}
FLAGS = ["--sampler=oversample", "--batch_size=8", "--epochs=3", "--steps_per_loop=1"]
# Twelve, eighteen, thirty and six, times 3 (12 * 2.5 rounds up), 2, 1 and 5: 132 images.
STEPS = 16


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return helpers.write_dataset(tmp_path_factory.mktemp("data"), COUNTS)


def _arguments(data, run_dir, *flags, module=("trainer.main",)):
    return [*module, f"--data_dir={data.path}", f"--run_dir={run_dir}", *FLAGS, *flags]


def _command(*arguments, **module):
    return processes.run(*_arguments(*arguments, **module))


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    """An uninterrupted run, started as a user does: its directory and what the process said."""
    run_dir = tmp_path_factory.mktemp("runs") / "whole"
    command = [sys.executable, "-m", *_arguments(data, run_dir)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert result.returncode == 0, result.stderr
    return run_dir, result


def _history(run_dir):
    """Rows without the columns that measure time."""
    with open(run_dir / "history.csv", newline="") as file:
        timed = ("seconds", "images_per_second")
        return [{k: v for k, v in row.items() if k not in timed} for row in csv.DictReader(file)]


def _results(run_dir):
    names = ["predictions_validation.csv", "predictions_test.csv", "metrics.json"]
    return [(run_dir / name).read_bytes() for name in names]


def test_run_directory_holds_everything_and_the_process_says_no_more_than_it_must(finished, data):
    run_dir, result = finished
    assert result.stderr == ""
    assert [row["epoch"] for row in _history(run_dir)] == ["1", "2", "3"]
    assert [row["step"] for row in _history(run_dir)] == [str(STEPS * e) for e in (1, 2, 3)]
    assert len([line for line in result.stdout.splitlines() if line.startswith("epoch")]) == 3
    for word in ("balanced accuracy", "recall Viral Pneumonia", str(run_dir)):
        assert word in result.stdout
    config = json.loads((run_dir / "config.json").read_text())
    assert config["config"]["sampler"] == "oversample"
    assert config["dataset"]["fingerprint"] == data.fingerprint
    assert config["dataset"]["counts"]["test"] == list(COUNTS["test"])
    samples = json.loads((run_dir / "sampler_counts.json").read_text())
    assert samples["natural"] == list(COUNTS["train"])
    assert samples["planned"] == [36, 36, 30, 30]
    assert sum(samples["realised"]) == STEPS * 8
    left_over = [name for name in os.listdir(run_dir) if "tmp" in name]
    assert left_over == []
    assert os.listdir(run_dir / "tensorboard")


def test_metrics_can_be_computed_again_from_the_predictions(finished, data):
    run_dir, _ = finished
    metrics = json.loads((run_dir / "metrics.json").read_text())
    for split in ("validation", "test"):
        predictions = read_predictions(str(run_dir / f"predictions_{split}.csv"))
        assert len(predictions.ids) == len(set(predictions.ids)) == data.num_examples(split)
        assert np.bincount(predictions.labels).tolist() == list(COUNTS[split])
        assert compute_metrics(predictions, data.class_names) == metrics[split]
    best = min(float(row["validation_loss"]) for row in _history(run_dir))
    assert metrics["validation"]["log_loss"] == best


def test_saved_model_gives_the_stored_predictions(finished, data):
    run_dir, _ = finished
    model = keras.models.load_model(run_dir / "model.keras")
    source = SplitSource(data, "test")
    (images, labels, _), *_ = source.evaluation(batch_size=27).as_numpy_iterator()
    stored = read_predictions(str(run_dir / "predictions_test.csv"))
    np.testing.assert_array_equal(stored.labels, labels)
    assert stored.ids == source.ids()
    assert stored.groups == source.groups()
    np.testing.assert_allclose(model(images), stored.logits, atol=1e-5)


@pytest.mark.slow
def test_of_two_processes_with_one_run_directory_one_trains(finished, data, tmp_path):
    run_dir = tmp_path / "run"
    first = processes.Process(*_arguments(data, run_dir))
    while not (run_dir / ".lock").exists():
        assert first.poll() is None
        time.sleep(0.02)
    os.kill(first.pid, signal.SIGSTOP)
    try:
        second = _command(data, run_dir, "--learning_rate=0.1")
    finally:
        os.kill(first.pid, signal.SIGCONT)
    assert second.returncode == 75, second.stderr
    assert second.stderr == (
        f"process {first.pid} on {socket.gethostname()} is writing to --run_dir={run_dir}, "
        "wait for its end or name another: run the same command again to go on\n"
    )
    _, err = first.communicate(timeout=300)
    assert first.returncode == 0, err
    assert _results(run_dir) == _results(finished[0])
    assert not (run_dir / ".lock").exists()


def test_finished_run_is_reported_and_not_trained_again(finished, data):
    run_dir, first = finished
    before = {name: os.stat(run_dir / name).st_mtime_ns for name in os.listdir(run_dir)}
    again = _command(data, run_dir)
    assert again.returncode == 0
    assert "is finished: nothing to train" in again.stdout
    assert again.stdout.splitlines()[-10:] == first.stdout.splitlines()[-10:]
    assert {name: os.stat(run_dir / name).st_mtime_ns for name in os.listdir(run_dir)} == before


def test_other_flags_are_refused_with_both_values(finished, data):
    run_dir, _ = finished
    result = _command(data, run_dir, "--dropout=0.4", "--seed=5")
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert "--dropout: 0.2 there, 0.4 here; --seed: 0 there, 5 here" in result.stderr


@pytest.mark.slow
def test_kill_9_in_mid_epoch_changes_nothing(finished, data, tmp_path):
    whole, _ = finished
    run_dir = tmp_path / "killed"
    killed = _command(data, run_dir, module=("tests.trainer.killed_run", str(STEPS + STEPS // 2)))
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert len(_history(run_dir)) == 1
    assert not (run_dir / "metrics.json").exists()

    resumed = _command(data, run_dir)
    assert resumed.returncode == 0, resumed.stderr
    assert "resuming after epoch 1 (16 steps)" in resumed.stdout
    assert_same_run(run_dir, whole)


@pytest.mark.slow
def test_killed_within_an_epoch_and_told_to_stop_in_the_next_it_goes_on_at_the_very_step(
    finished, data, tmp_path
):
    whole, _ = finished
    run_dir = tmp_path / "interrupted"
    every = "--checkpoint_every=3"
    killed = _command(data, run_dir, every, module=("tests.trainer.killed_run", "5"))
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    told = _command(data, run_dir, every, module=("tests.trainer.killed_run", "20:SIGTERM"))
    assert told.returncode == 75, told.stderr
    assert "resuming after step 3 (3 of epoch 1)" in told.stdout
    assert told.stderr == (
        "SIGTERM, saved after step 20 (4 of epoch 2): run the same command again to go on\n"
    )
    resumed = _command(data, run_dir)
    assert resumed.returncode == 0, resumed.stderr
    assert "resuming after step 20 (4 of epoch 2)" in resumed.stdout
    assert_same_run(run_dir, whole)


def assert_same_run(first, second):
    """Weights, history and predictions are the same to the last bit."""
    assert _history(first) == _history(second)
    assert _results(first) == _results(second)
    weights = [keras.models.load_model(d / "model.keras").get_weights() for d in (first, second)]
    for one, other in zip(*weights, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
@pytest.mark.parametrize(("cache", "steps"), [("memory", (7, 16, 31)), ("none", (15, 17, 47))])
def test_kills_of_a_mixed_up_and_of_a_streamed_run_end_the_same(data, tmp_path, cache, steps):
    flags = (f"--cache={cache}", "--mixup_alpha=0.3", "--checkpoint_every=5", "--dropout=0.4")
    whole = tmp_path / "whole"
    assert _command(data, whole, *flags).returncode == 0
    # In the middle of a step interval, just before and after a checkpoint, around an epoch's end.
    for step in steps:
        run_dir = tmp_path / str(step)
        killed = _command(data, run_dir, *flags, module=("tests.trainer.killed_run", str(step)))
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        resumed = _command(data, run_dir, *flags)
        assert resumed.returncode == 0, resumed.stderr
        assert_same_run(run_dir, whole)


def test_missing_data_and_unknown_arguments_end_with_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for flags, words in (
        (
            ["--data_dir=/no/such"],
            "/no/such does not exist: name the --output_dir of a finished build",
        ),
        (
            ["--sampler=smote"],
            "--sampler=smote is not one of none, undersample, oversample, oversample_exact, reject",
        ),
        (["stray"], "stray"),
        ([], "`python -m beam_pipelines.build`"),
    ):
        result = processes.run("trainer.main", *flags)
        assert result.returncode == 2
        assert result.stdout == ""
        assert result.stderr.startswith("error: ")
        assert result.stderr.count("\n") == 1
        assert words in result.stderr


def test_help_explains_every_choice():
    result = subprocess.run(
        [sys.executable, "-m", "trainer.main", "--help"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0
    text = " ".join(result.stdout.split())
    for word in (
        "oversample: every image of class c",
        "adapt: before every evaluation",
        "Empty: runs/",
        "0: never",
    ):
        assert word in text
    assert [title for title in TrainConfig.groups if title not in text] == []
    for field in dataclasses.fields(TrainConfig):
        flag = f"--[no]{field.name} " if field.type == "bool" else f"--{field.name}="
        assert result.stdout.count(f"\n  {flag.strip()}") == 1, field.name


@pytest.mark.slow
def test_a_run_killed_while_it_is_copied_to_a_store_goes_on_there(finished, data, tmp_path, store):
    scheme, fs = store
    folder, address = "bucket/runs/first", f"{scheme}://bucket/runs/first"
    index = "checkpoints/resume/epoch-2/state.index"
    killed = _command(data, address, module=("tests.trainer.killed_upload", scheme, index))
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert fs.exists(f"{folder}/checkpoints/best/epoch-1/state.index")
    assert fs.exists(f"{folder}/checkpoints/resume/epoch-1/state.index")
    assert fs.exists(f"{folder}/checkpoints/resume/epoch-2/state.data-00000-of-00001")
    assert not fs.exists(f"{folder}/{index}")

    resumed = _command(data, address)
    assert resumed.returncode == 0, resumed.stderr
    assert f"--run_dir={address} is locked by process" in resumed.stdout  # the killed one
    assert "resuming after epoch 1 (16 steps)" in resumed.stdout
    assert not [path for path in fs.find(folder) if ".lock" in path]
    fs.get(f"{folder}/", str(tmp_path / "run"), recursive=True)
    assert_same_run(tmp_path / "run", finished[0])
