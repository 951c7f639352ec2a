"""Whole runs inside the test process, and what goes wrong in them."""

import csv
import dataclasses
import errno
import os
import shutil

import numpy as np
import pytest
import tensorflow as tf

from cxr_tfrecords import files
from cxr_tfrecords.concurrency import locks
from cxr_tfrecords.errors import DivergedError, TemporaryError, UserError
from tests import helpers
from tests.trainer import toy
from trainer.deployment.predictor import Classifier
from trainer.evaluation.predictions import read_predictions
from trainer.input.split_batches import SplitSource
from trainer.runs import run_directory, run_files
from trainer.runs.finished_run import read_run
from trainer.runs.progress import Progress
from trainer.settings.config import TrainConfig
from trainer.training import loop, saving
from trainer.training.learner import create_planner
from trainer.training.run import run
from trainer.training.second_stage import decouple

COUNTS = {"train": (16, 16, 24, 8), "validation": (6, 8, 10, 4), "test": (6, 7, 10, 4)}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return helpers.write_dataset(tmp_path_factory.mktemp("data"), COUNTS)


def _config(data, run_dir, **settings) -> TrainConfig:
    values = {"batch_size": 16, "epochs": 2, "flip": False, "optimizer": "sgd", "dropout": 0.0}
    values |= {"learning_rate": 0.02}
    return TrainConfig(data.path, str(run_dir), **values | settings)


@pytest.mark.slow
def test_a_run_learns_and_two_devices_learn_the_same(data, strategy, tmp_path):
    alone = _config(data, tmp_path / "cpu", epochs=6)
    metrics = run(alone, data, strategy)
    assert metrics["test"]["balanced_accuracy"] > 0.9
    shared = dataclasses.replace(alone, run_dir=str(tmp_path / "two"))
    toy.run_replicated(shared, 2)
    logits = [
        read_predictions(os.path.join(c.run_dir, "predictions_test.csv")).logits
        for c in (alone, shared)
    ]
    np.testing.assert_allclose(*logits, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["undersample", "weighted", "rejection"])
def test_every_sampler_and_streaming_run_to_the_end(data, strategy, tmp_path, sampler):
    shares = tuple(zip(data.class_names, (1.0, 1.0, 2.0, 1.0), strict=True))
    config = _config(
        data,
        tmp_path,
        sampler=sampler,
        epochs=1,
        cache="none",
        target_distribution=() if sampler == "undersample" else shares,
    )
    run(config, data, strategy)
    assert run_files.is_finished(config.run_dir)


class _KilledError(Exception):
    pass


def _run_killed(config, data, strategy, monkeypatch, step=None):
    """Runs until a checkpoint is written: the first, or that of a step."""
    save = saving.save

    def killed(trainer, progress):
        save(trainer, progress)
        if step in (None, progress.step):
            raise _KilledError

    with monkeypatch.context() as patched:
        patched.setattr(saving, "save", killed)
        with pytest.raises(_KilledError):
            run(config, data, strategy)


@pytest.mark.slow
def test_progressive_reaches_its_last_mix_and_goes_on_exactly_where_it_was_killed(
    data, strategy, tmp_path, monkeypatch
):
    # So small a learning rate never improves the accuracy: any other sampler stops at epoch 2.
    config = _config(
        data,
        tmp_path / "whole",
        **{"sampler": "progressive", "steps_per_epoch": 3, "epochs": 4, "learning_rate": 1e-6},
        **{"early_stopping_patience": 1, "monitor": "validation_accuracy", "dropout": 0.2},
    )
    run(config, data, strategy)
    audit = files.read_json(str(tmp_path / "whole" / "sampler_audit.json"))["epochs"]
    assert [row["realised_counts"] for row in audit] == [
        *([12, 12, 18, 6], [12, 12, 16, 8], [12, 12, 14, 10], [12, 12, 12, 12]),
    ]
    other = dataclasses.replace(config, run_dir=str(tmp_path / "other"), sampler="none")
    run(other, data, strategy)
    assert len(files.read_json(str(tmp_path / "other" / "sampler_audit.json"))["epochs"]) == 2

    cut = dataclasses.replace(config, run_dir=str(tmp_path / "cut"), checkpoint_every=1)
    _run_killed(cut, data, strategy, monkeypatch, step=7)  # in the third epoch
    run(cut, data, strategy)
    assert files.read_json(str(tmp_path / "cut" / "sampler_audit.json"))["epochs"] == audit
    for name in ("predictions_validation.csv", "predictions_test.csv"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "cut" / name).read_bytes()


@pytest.fixture(scope="module")
def finished(data, strategy, tmp_path_factory):
    """The directory of a finished run, not to be changed, and what the call returned."""
    run_dir = tmp_path_factory.mktemp("runs") / "finished"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trainer.runs.report_pictures.write_pictures", lambda run_dir: None)
        metrics = run(_config(data, run_dir), data, strategy)
    return run_dir, metrics


def test_results_lost_after_the_training_are_made_again_without_training(
    data, strategy, finished, tmp_path
):
    run_dir, metrics = finished
    shutil.copytree(run_dir, tmp_path, dirs_exist_ok=True)
    config = _config(data, tmp_path)
    predictions = (tmp_path / "predictions_test.csv").read_bytes()
    history = (tmp_path / "history.csv").read_bytes()
    for name in ("metrics.json", "report.md", "predictions_test.csv", "model.keras", "history.csv"):
        (tmp_path / name).unlink()
    assert run(config, data, strategy) == metrics
    assert (tmp_path / "predictions_test.csv").read_bytes() == predictions
    assert (tmp_path / "history.csv").read_bytes() == history


def test_an_edited_result_of_a_finished_run_is_one_line(data, strategy, finished, tmp_path):
    shutil.copytree(finished[0], tmp_path, dirs_exist_ok=True)
    metrics = tmp_path / "metrics.json"
    text = metrics.read_text()
    metrics.write_text(text.replace('"accuracy": ', '"accuracy": null, "x": ', 1))
    with pytest.raises(UserError, match=r"metrics.json is damaged .*validation.accuracy is null"):
        run(_config(data, tmp_path), data, strategy)
    metrics.write_text(text)
    read_run(str(tmp_path))
    history = tmp_path / "history.csv"
    history.write_text("".join(history.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(UserError, match=r"history.csv has 1 epochs and sampler_audit.json 2: one"):
        read_run(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "kept", "words"),
    [
        ("history.csv", 0, r"history.csv holds no epoch"),
        ("history.csv", 2, r"history.csv has 1 epochs and sampler_audit.json 2"),
        ("sampler_counts.json", 0, r"sampler_counts.json .*line 1 column 1"),
        ("sampler_audit.json", 0, r"sampler_audit.json .*line 1 column 1"),
        ("predictions_validation.csv", 0, r"predictions_validation.csv is not a file of predict"),
        ("predictions_test.csv", 2, r"predictions_test.csv was changed or cut short"),
    ],
)
def test_a_cut_file_of_a_finished_run_is_not_called_finished(
    data, strategy, finished, tmp_path, capsys, name, kept, words
):
    """kept: lines that are left."""
    shutil.copytree(finished[0], tmp_path, dirs_exist_ok=True)
    lines = (tmp_path / name).read_text().splitlines(keepends=True)
    (tmp_path / name).write_text("".join(lines[:kept]))
    with pytest.raises(UserError, match=words) as caught:
        run(_config(data, tmp_path), data, strategy)
    assert str(tmp_path) in str(caught.value)
    assert "nothing to train" not in capsys.readouterr().out


def test_best_weights_are_evaluated_and_not_the_last(data, strategy, tmp_path, capsys):
    # Mirrored, the classes of the left are those of the right: the loss cannot keep falling.
    config = _config(data, tmp_path, epochs=8, flip=True, learning_rate=0.1, dropout=0.3)
    metrics = run(config, data, strategy)
    with open(tmp_path / "history.csv", newline="") as file:
        losses = [float(row["validation_loss"]) for row in csv.DictReader(file)]
    assert np.argmin(losses) < len(losses) - 1, "the last epoch was the best: the test says nothing"
    assert metrics["validation"]["log_loss"] == min(losses)
    printed = capsys.readouterr().out
    assert f"weights of the best epoch, {np.argmin(losses) + 1}" in printed
    assert printed.count("building the graph of the training step") == 1


@pytest.mark.parametrize(
    ("changes", "stopped", "hint"),
    [
        ({}, False, ", which is the last: more epochs may do better (--epochs=8)"),
        ({"epochs": 5}, True, ""),
        ({"lr_schedule": "cosine"}, False, ""),  # its last epochs are meant to be the best
    ],
)
def test_a_run_that_still_improves_at_its_end_says_so(data, tmp_path, changes, stopped, hint):
    config = _config(data, tmp_path, **{"epochs": 4, "monitor": "validation_loss", **changes})
    progress = Progress(learning_rate=0.1, epoch=4, best_epoch=4, stopped=stopped)
    text = loop._describe_end(progress, config)
    assert text.partition("restored the weights of the best epoch, 4")[2] == hint


def test_only_a_learning_rate_that_is_used_is_told(data, tmp_path):
    row = dict.fromkeys(
        (
            *("epoch", "loss", "accuracy", "validation_loss", "validation_accuracy"),
            *("validation_balanced_accuracy", "seconds", "images_per_second", "learning_rate"),
        ),
        1,
    )
    config = _config(data, tmp_path, epochs=4)
    for epoch, stopped, told in ((3, False, True), (3, True, False), (4, False, False)):
        progress = Progress(learning_rate=0.1, epoch=epoch, stopped=stopped)
        text = loop._describe_epoch(row, config, progress, is_best=False)
        assert text.endswith("learning rate to 0.1") is told


def test_forecast_leaves_out_the_first_steps_and_trainings_of_seconds(capsys):
    loop._print_forecast([(2, 100.0), (4, 112.0)], steps=20, epochs=3)
    loop._print_forecast([(2, 100.0), (4, 100.2)], steps=20, epochs=3)
    loop._print_forecast([(2, 100.0), (4, 100.2)], steps=200, epochs=4)
    expected = "about 2.0 minutes an epoch, 6.0 minutes in all, without validations\n"
    expected += "about 20 seconds an epoch, 1.3 minutes in all, without validations\n"
    assert capsys.readouterr().out == expected


def test_loss_that_is_not_finite_names_the_step_and_leaves_the_directory_usable(
    data, strategy, tmp_path
):
    config = _config(data, tmp_path, learning_rate=1e30)
    with pytest.raises(UserError, match=r"NaN or infinite at step [23] \(epoch 1\)"):
        run(config, data, strategy)
    run(dataclasses.replace(config, learning_rate=0.01), data, strategy)


@pytest.mark.parametrize(
    "learning_rate",
    # Either the loss of step 2 is NaN or infinite, or only the weights after it are.
    [3e38, pytest.param(1e15, marks=pytest.mark.slow)],
)
def test_images_of_a_step_that_is_not_finite_are_named_and_the_good_checkpoint_stays(
    data, strategy, tmp_path, learning_rate
):
    config = _config(data, tmp_path, learning_rate=learning_rate, checkpoint_every=1)
    with pytest.raises(DivergedError, match=r"NaN or infinite at step 2 \(epoch 1\)") as caught:
        run(config, data, strategy)
    written = files.read_json(str(tmp_path / "not_finite.json"))
    plan = create_planner(config, data).plan(0)
    slots = slice(16, 32)
    ids = SplitSource(data, "train").ids()
    starts = np.cumsum(data.counts["train"]) - data.counts["train"]
    expected = [ids[row] for row in (starts[plan.labels] + plan.ordinals)[slots]]
    assert written["image_ids"] == expected
    assert ", ".join(expected) in str(caught.value)
    assert (written["step"], written["epoch"]) == (2, 1)
    assert os.listdir(tmp_path / "checkpoints" / "resume") == ["epoch-0-step-1"]


def test_image_size_of_another_data_set_is_refused(data, strategy, tmp_path):
    config = _config(data, tmp_path / "run", image_size=64)
    with pytest.raises(UserError, match=r"--image_size=64, but .* 32 px"):
        run(config, data, strategy)
    assert not os.path.exists(config.run_dir)


def test_other_data_in_the_same_run_directory_is_refused(data, strategy, finished, tmp_path):
    other = helpers.write_dataset(tmp_path / "other", COUNTS, seed=1)
    with pytest.raises(UserError, match=rf"--data_dir: {data.path}.*{other.path}"):
        run(_config(other, finished[0]), other, strategy)


def test_damaged_shard_is_named(strategy, tmp_path):
    data = helpers.write_dataset(tmp_path / "data", COUNTS)
    shard = data.split_shards("test", 2)[0].path
    with open(shard, "r+b") as file:
        file.seek(300)
        file.write(b"\xff" * 20)
    with pytest.raises(UserError, match=os.path.basename(shard)):
        run(_config(data, tmp_path / "run"), data, strategy)
    assert not os.path.exists(tmp_path / "run")


def test_full_disk_and_file_in_the_way_name_the_run_directory(data, strategy, tmp_path):
    in_the_way = tmp_path / "file"
    in_the_way.write_text("")
    with pytest.raises(UserError, match=f"--run_dir={in_the_way}/run: Not a directory"):
        run(_config(data, in_the_way / "run"), data, strategy)
    config = _config(data, tmp_path)
    full_disk = (
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        # What TensorFlow 2.21 raises while it saves a checkpoint.
        tf.errors.ResourceExhaustedError(
            None, None, "{{function_node __wrapped__SaveV2}} r/epoch-1; No space left on device"
        ),
    )
    for error in full_disk:
        message = f"^--run_dir={tmp_path}: no space left on its disk"
        with pytest.raises(UserError, match=message), run_directory.explained_failures(config):
            raise error


def test_failed_write_leaves_the_old_file_and_no_temporary_one(tmp_path):
    path = str(tmp_path / "metrics.json")
    run_directory.write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="Out of range"):
        run_directory.write_json(path, {"a": float("nan")})
    assert files.read_json(path) == {"a": 1}
    assert os.listdir(tmp_path) == ["metrics.json"]


@pytest.mark.slow
def test_a_run_on_chosen_classes_is_used_with_its_own_classes(data, strategy, tmp_path):
    sick = (("COVID", "Sick"), ("Viral Pneumonia", "Sick"))
    chosen = {"classes": ("Sick", "Normal"), "map_classes": sick}
    config = _config(data, tmp_path / "run", epochs=1, sampler="oversample", **chosen)
    metrics = run(config, data, strategy)
    assert list(metrics["test"]["per_class"]) == ["Sick", "Normal"]
    stored = read_predictions(run_files.predictions_path(config.run_dir, "test"))
    assert np.bincount(stored.labels).tolist() == [6 + 4, 10]
    assert {name.split("/")[0] for name in stored.ids[:10]} == {"COVID", "Viral Pneumonia"}
    classifier = Classifier.load(config.run_dir)
    assert classifier.class_names == ("Sick", "Normal")
    source = SplitSource(config.shown(data), "test")
    (pixels, _, _), *_ = source.evaluation(batch_size=20).as_numpy_iterator()
    np.testing.assert_array_equal(classifier.predict_pixels(pixels).logits, stored.logits)
    report = (tmp_path / "run" / "report.md").read_text()
    assert "--map_classes=COVID:Sick,Viral Pneumonia:Sick --classes=Sick,Normal" in report
    with pytest.raises(UserError, match=r"--classes: \[.*\] there, \[\] here") as caught:
        run(_config(data, tmp_path / "run", epochs=1, sampler="oversample"), data, strategy)
    assert "fingerprint" not in str(caught.value)
    again = decouple(config.run_dir, str(tmp_path / "second"), "tau_norm", tau=0.0)
    assert list(again["test"]["per_class"]) == ["Sick", "Normal"]


@pytest.mark.slow
def test_a_training_from_a_finished_run_goes_on_exactly_and_keeps_to_its_model(
    data, strategy, tmp_path, monkeypatch
):
    first = _config(data, tmp_path / "first", epochs=1)
    run(first, data, strategy)
    start = {"init_from": first.run_dir, "dropout": 0.2, "trainable": "from:conv3"}
    whole = _config(data, tmp_path / "whole", **start)
    run(whole, data, strategy)
    cut = dataclasses.replace(whole, run_dir=str(tmp_path / "cut"), checkpoint_every=1)
    _run_killed(cut, data, strategy, monkeypatch, step=5)
    run(cut, data, strategy)
    name = "predictions_test.csv"
    assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "cut" / name).read_bytes()
    os.remove(tmp_path / "cut" / "report.md")
    os.remove(tmp_path / "first" / "model.keras")
    run_directory.save_model(first.run_dir, run_directory.load_model(whole.run_dir))
    with pytest.raises(UserError, match=r"--init_from=.*first: its model has changed since"):
        run(cut, data, strategy)


@pytest.mark.slow
def test_epochs_that_were_added_give_the_run_that_had_them_from_the_start(
    data, strategy, tmp_path, monkeypatch, capsys
):
    settings = {"dropout": 0.2, "flip": True, "sampler": "oversample", "optimizer": "adamax"}
    whole = _config(data, tmp_path / "whole", epochs=3, **settings)
    run(whole, data, strategy)
    grown = _config(data, tmp_path / "grown", epochs=1, **settings)
    run(grown, data, strategy)
    grown = dataclasses.replace(grown, epochs=3)
    with locks.held(grown.run_dir, "another"), pytest.raises(TemporaryError):
        run(grown, data, strategy)
    # Killed while its epochs grow, the run must not look finished.
    _run_killed(grown, data, strategy, monkeypatch)
    assert not run_files.is_finished(grown.run_dir)
    run(grown, data, strategy)
    for name in ("predictions_validation.csv", "predictions_test.csv", "metrics.json"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "grown" / name).read_bytes()
    weights = [run_directory.load_model(c.run_dir).get_weights() for c in (whole, grown)]
    for a, b in zip(*weights, strict=True):
        np.testing.assert_array_equal(a, b)
    capsys.readouterr()
    run(grown, data, strategy)
    assert "grown is finished: nothing to train\n" in capsys.readouterr().out
