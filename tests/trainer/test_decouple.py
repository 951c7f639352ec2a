"""Another output layer for a finished run, in a run directory of its own."""

import csv
import dataclasses
import functools
import json
import os
import shutil

import keras
import numpy as np
import pytest

from cxr_tfrecords.concurrency import locks
from cxr_tfrecords.errors import TemporaryError, UserError
from tests import helpers
from tests.trainer import processes
from trainer.distribution import strategies
from trainer.evaluation.predictions import compute_metrics, read_predictions
from trainer.input.split_batches import SplitSource
from trainer.models.classifier import create_model
from trainer.runs import file_hashes, run_directory, run_files
from trainer.runs.finished_run import read_run
from trainer.settings.config import TrainConfig
from trainer.training import output_layer, second_stage
from trainer.training import run as experiment

COUNTS = {"train": (16, 16, 40, 6), "validation": (6, 8, 10, 4), "test": (6, 7, 10, 4)}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return helpers.write_dataset(tmp_path_factory.mktemp("data"), COUNTS)


@pytest.fixture(scope="module")
def source(data, tmp_path_factory):
    """A finished run on those data."""
    run_dir = tmp_path_factory.mktemp("runs") / "source"
    config = TrainConfig(
        data.path,
        str(run_dir),
        **{"epochs": 2, "batch_size": 16, "optimizer": "adam", "head_units": (16,), "seed": 4},
        **{"loss": "focal", "mixup_alpha": 0.2, "first_layer_lr_factor": 0.5},
    )
    experiment.run(config, data, strategies.create_strategy("cpu"))
    return run_dir


def _logits(run_dir, split="test"):
    return read_predictions(os.path.join(run_dir, f"predictions_{split}.csv"))


def _snapshot(directory):
    return {p: p.stat().st_mtime_ns for p in sorted(directory.rglob("*"))}


def test_a_directory_that_another_process_writes_is_left_alone(source, data, strategy, tmp_path):
    run_dir = str(tmp_path / "run")
    with locks.held(run_dir, "--run_dir"):
        message = f"process {os.getpid()} on .* is writing to --run_dir={run_dir}"
        with pytest.raises(TemporaryError, match=message):
            second_stage.decouple(str(source), run_dir, "tau_norm")
        with pytest.raises(TemporaryError, match=message):
            experiment.run(TrainConfig(data.path, run_dir), data, strategy)
        assert os.listdir(run_dir) == [".lock"]


@pytest.fixture(scope="module")
def decoupled(source, tmp_path_factory):
    """Method -> its run directory, made at the first call, and the metrics that the call gave."""

    @functools.cache
    def make(method):
        run_dir = tmp_path_factory.mktemp(method)
        before = _snapshot(source)
        metrics = second_stage.decouple(str(source), str(run_dir), method, epochs=2)
        assert _snapshot(source) == before
        return run_dir, metrics

    return make


@pytest.mark.parametrize("method", second_stage.METHODS)
def test_a_decoupled_run_is_a_finished_run_and_its_source_stays_untouched(
    method, source, data, decoupled
):
    tmp_path, metrics = decoupled(method)
    assert run_files.is_finished(str(tmp_path))
    run = read_run(str(tmp_path))
    assert run.metrics == metrics
    assert run.dataset["fingerprint"] == data.fingerprint
    assert run.decoupled["method"] == method
    assert run.decoupled["from_run"] == str(source)
    assert run.decoupled["from_config"] == read_run(str(source)).config.to_json()
    assert not [name for name in os.listdir(tmp_path) if "tmp" in name]
    old, new = _logits(source), _logits(tmp_path)
    assert new.ids == old.ids
    np.testing.assert_array_equal(new.labels, old.labels)
    assert np.abs(new.logits - old.logits).max() > 1e-3
    for split in ("validation", "test"):
        predictions = _logits(tmp_path, split)
        assert compute_metrics(predictions, data.class_names) == metrics[split]
    report = (tmp_path / "report.md").read_text()
    assert f"decoupled by {method}" in report
    assert f"python -m trainer.decouple \\\n    --from_run={source}" in report
    assert f"--method={method}" in report
    assert "Recalibrate" in report


@pytest.mark.parametrize("method", second_stage.METHODS)
def test_saved_model_gives_the_stored_predictions_and_only_its_output_layer_is_new(
    method, source, data, decoupled
):
    tmp_path, _ = decoupled(method)
    old, new = (keras.models.load_model(d / "model.keras") for d in (source, tmp_path))
    images = next(SplitSource(data, "test").evaluation(batch_size=27).as_numpy_iterator())[0]
    np.testing.assert_allclose(new(images), _logits(tmp_path).logits, atol=1e-4)
    for before, after in zip(old.layers, new.layers, strict=True):
        same = all(
            np.array_equal(a, b)
            for a, b in zip(before.get_weights(), after.get_weights(), strict=True)
        )
        assert same == (after.name != "logits"), after.name


def test_crt_learns_balanced_classes_and_keeps_its_best_epoch(source, tmp_path):
    second_stage.decouple(str(source), str(tmp_path), "crt", epochs=12, learning_rate=0.03)
    run = read_run(str(tmp_path))
    assert run.config.sampler == "weighted"
    assert run.config.loss == "cross_entropy"
    assert run.config.mixup_alpha == 0
    assert np.ptp(run.samples["planned"]) <= 1
    assert [row["epoch"] for row in run.history] == list(range(1, 13))
    # 78 images in batches of 16, in 2 epochs of the first stage and 12 of the second
    assert run.updates == read_run(str(source)).updates + 12 * 4 == 14 * 4
    assert run.history[-1]["loss"] < run.history[0]["loss"]
    best = max(row["validation_balanced_accuracy"] for row in run.history)
    assert run.metrics["validation"]["balanced_accuracy"] == best
    assert best > read_run(str(source)).metrics["validation"]["balanced_accuracy"]


def test_the_output_layer_learns_from_each_images_own_features(data):
    features = {
        split: np.eye(4, dtype=np.float32)[np.repeat(np.arange(4), COUNTS[split])] * 3
        for split in ("train", "validation")
    }
    labels = np.repeat(np.arange(4, dtype=np.int32), COUNTS["validation"])
    values = {"sampler": "weighted", "learning_rate": 0.1, "batch_size": 13, "epochs": 5}
    _, _, history = output_layer.train(
        features["train"],
        (features["validation"], labels),
        TrainConfig(data.path, optimizer="adam", **values),
        data,
    )
    assert history[-1]["accuracy"] == history[-1]["validation_balanced_accuracy"] == 1.0
    assert [row["step"] for row in history] == [6, 12, 18, 24, 30]


@pytest.mark.slow
def test_crt_gives_the_same_again(source, decoupled, tmp_path):
    second_stage.decouple(str(source), str(tmp_path), "crt", epochs=2)
    folders = (decoupled("crt")[0], tmp_path)
    files = [(folder / "predictions_test.csv").read_bytes() for folder in folders]
    assert files[0] == files[1]


def test_normalised_weights_follow_the_papers_equation():
    kernel = np.random.default_rng(0).normal(size=(5, 3)) * [1, 4, 0.1]
    np.testing.assert_array_equal(second_stage.normalise_weights(kernel, 0.0), kernel)
    ones = np.linalg.norm(second_stage.normalise_weights(kernel, 1.0), axis=0)
    np.testing.assert_allclose(ones, 1.0)
    half = np.stack([w / np.sqrt(np.linalg.norm(w)) for w in kernel.T], axis=1)
    np.testing.assert_allclose(second_stage.normalise_weights(kernel, 0.5), half)
    kernel[:, 1] = 0
    assert np.isfinite(second_stage.normalise_weights(kernel, 1.0)).all()


def test_given_tau_is_used_without_bias(source, tmp_path):
    second_stage.decouple(str(source), str(tmp_path), "tau_norm", tau=0.0)
    bias = keras.models.load_model(source / "model.keras").get_layer("logits").bias.numpy()
    assert np.abs(bias).max() > 1e-4
    expected = _logits(source).logits - bias
    np.testing.assert_allclose(_logits(tmp_path).logits, expected, atol=1e-4)
    assert read_run(str(tmp_path)).history == read_run(str(source)).history
    assert "--tau=0.0" in (tmp_path / "report.md").read_text()


def test_post_hoc_adjustment_is_menons_formula_and_trains_nothing(source, data, tmp_path):
    for tau in (None, 0.5):
        run_dir = tmp_path / str(tau)
        second_stage.decouple(str(source), str(run_dir), "posthoc_logit_adjusted", tau=tau)
        priors = np.array(COUNTS["train"]) / sum(COUNTS["train"])
        expected = _logits(source).logits - (tau or 1.0) * np.log(priors)
        np.testing.assert_allclose(_logits(run_dir).logits, expected, atol=1e-5)
        run = read_run(str(run_dir))
        assert run.decoupled["tau"] == (tau or 1.0)
        assert run.history == read_run(str(source)).history
        assert "Menon et al. 2021" in (run_dir / "report.md").read_text()


def test_tau_is_chosen_by_balanced_accuracy_on_validation(source, tmp_path):
    # Two directions; the frequent class has the longer weights and takes the rare one's images.
    kernel = np.array([[9.0, 0.0], [0.0, 1.0]], np.float32)
    features = np.array([[1, 0], [1, 0.2], [0.3, 1], [0.2, 1], [0.25, 1]], np.float32)
    labels = np.array([0, 0, 1, 1, 1], np.int32)
    scores = second_stage.choose_tau(features, labels, kernel)
    assert scores[0.0] == pytest.approx(0.5)
    assert scores[1.0] == 1.0
    second_stage.decouple(str(source), str(tmp_path), "tau_norm")
    told = read_run(str(tmp_path)).decoupled
    scores = dict(map(tuple, told["tau_scores"]))
    assert told["tau"] == next(t for t, s in scores.items() if s == max(scores.values()))
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["validation"]["balanced_accuracy"] == scores[told["tau"]]


def test_runs_that_cannot_be_decoupled_say_why(source, data, tmp_path):
    run, new = str(source), str(tmp_path / "new")
    with pytest.raises(UserError, match=r"nothing does not exist: name a finished run"):
        second_stage.decouple(str(tmp_path / "nothing"), new, "crt")
    unfinished = tmp_path / "unfinished"
    shutil.copytree(source, unfinished)
    (unfinished / "metrics.json").unlink()
    with pytest.raises(UserError, match="is a run that has not ended"):
        second_stage.decouple(str(unfinished), new, "crt")
    other = helpers.write_dataset(tmp_path / "other", COUNTS, seed=1)
    with pytest.raises(UserError, match=r"is not the data set that .*--data_dir"):
        second_stage.decouple(run, new, "crt", data_dir=other.path)
    damaged = tmp_path / "damaged"
    shutil.copytree(source, damaged)
    flipped = bytearray((source / "model.keras").read_bytes())
    flipped[100:200] = bytes(100)
    for content in (b"PK", flipped):  # the second one makes Keras raise a BadZipFile
        (damaged / "model.keras").write_bytes(content)
        with pytest.raises(UserError, match=r"model\.keras cannot be read"):
            second_stage.decouple(str(damaged), new, "crt")
    two = create_model("tiny", image_size=32, channels=1, num_classes=2)
    run_directory.save_model(str(damaged), two)
    with pytest.raises(UserError, match=r"model\.keras .*it has 2 outputs, but its run 4 classes"):
        second_stage.decouple(str(damaged), new, "crt")
    for arguments, words in (
        ({"method": "lws"}, "--method=lws"),
        ({"method": "tau_norm", "tau": -1.0}, "--tau=-1.0"),
    ):
        with pytest.raises(UserError, match=words):
            second_stage.decouple(run, new, **arguments)
    assert not os.path.exists(new)


def test_cosine_output_layers_are_refused(source, tmp_path):
    ldam = shutil.copytree(source, tmp_path / "ldam")
    content = json.loads((ldam / "config.json").read_text())
    content["config"]["loss"] = "ldam_drw"
    (ldam / "config.json").write_text(json.dumps(content))
    model = create_model("tiny", image_size=32, channels=1, num_classes=4, cosine_scale=30.0)
    run_directory.save_model(str(ldam), model)
    file_hashes.write(str(ldam))
    with pytest.raises(UserError, match="--loss=ldam_drw"):
        second_stage.decouple(str(ldam), str(tmp_path / "new"), "tau_norm")


def test_taken_directories_are_refused_and_half_made_ones_are_made_anew(source, data, tmp_path):
    with pytest.raises(UserError, match="holds a run already"):
        second_stage.decouple(str(source), str(source), "crt")
    second_stage.decouple(str(source), str(tmp_path), "tau_norm", tau=0.5)
    with pytest.raises(UserError, match="holds a run already"):
        second_stage.decouple(str(source), str(tmp_path), "tau_norm", tau=1.0)
    config = dataclasses.replace(read_run(str(source)).config, run_dir=str(tmp_path))
    with pytest.raises(UserError, match=r"holds a run of trainer\.decouple"):
        experiment.run(config, data, strategies.create_strategy("cpu"))
    (tmp_path / "report.md").unlink()
    second_stage.decouple(str(source), str(tmp_path), "tau_norm", tau=1.0)
    assert read_run(str(tmp_path)).decoupled["tau"] == 1.0


@pytest.mark.slow
def test_the_command_says_what_it_did_and_one_line_when_it_cannot(source, data, tmp_path):
    def command(*flags):
        return processes.run("trainer.decouple", *flags)

    moved = tmp_path / "moved"
    shutil.copytree(data.path, moved)
    run_dir = tmp_path / "crt"
    flags = [f"--from_run={source}", f"--run_dir={run_dir}", "--epochs=2", f"--data_dir={moved}"]
    result = command(*flags)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    assert "balanced accuracy" in result.stdout
    with open(run_dir / "history.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == 2
    assert read_run(str(run_dir)).config.data_dir == str(moved)
    for bad, words in (
        (flags, "holds a run already"),
        ([f"--run_dir={run_dir}"], "--from_run is missing"),
        ([*flags, "--tau=1"], "--tau has no meaning with --method=crt"),
        ([*flags, "--method=lws"], "--method=lws is not one of crt, tau_norm, posthoc_logit"),
    ):
        result = command(*bad)
        assert result.returncode == 2
        assert result.stderr.startswith("error: ")
        assert result.stderr.count("\n") == 1
        assert words in result.stderr
