"""Probabilities for the place where a model is used: the formulas, and the exported model."""

import dataclasses
import json
import os

import keras
import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from cxr_tfrecords.errors import UserError
from tests import helpers
from tests.trainer import processes
from tests.trainer.fake_run import CLASSES, COUNTS, write_run
from trainer.deployment import corrected_probabilities, exported_model
from trainer.distribution import strategies
from trainer.evaluation import calibration
from trainer.evaluation.metrics import OVERALL, weighted_metrics
from trainer.evaluation.predictions import read_predictions
from trainer.input.split_batches import SplitSource
from trainer.runs.finished_run import read_run
from trainer.settings.config import TrainConfig
from trainer.training import run as experiment

SIZES = {"train": (16, 16, 40, 6), "validation": (6, 8, 10, 4), "test": (6, 7, 10, 4)}
PLACE = "COVID=0.7,Lung_Opacity=0.1,Normal=0.2,Viral Pneumonia=0"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return helpers.write_dataset(tmp_path_factory.mktemp("data"), SIZES)


@pytest.fixture(scope="module")
def run_dir(data, tmp_path_factory):
    path = str(tmp_path_factory.mktemp("runs") / "oversampled")
    config = TrainConfig(data.path, path, epochs=2, batch_size=16, sampler="oversample")
    experiment.run(config, data, strategies.create_strategy("cpu"))
    return path


def _by_hand(logits, plan):
    """The three variants, one step after the other, in plain probabilities."""
    raw = softmax(logits, axis=1)
    moved = raw * plan.natural / plan.trained_at
    moved /= moved.sum(axis=1, keepdims=True)
    cooled = moved ** (1 / plan.temperature)
    cooled = cooled / cooled.sum(axis=1, keepdims=True) * plan.target / plan.natural
    uncooled = raw * plan.target / plan.trained_at
    return {
        "raw": raw,
        "prior_corrected": uncooled / uncooled.sum(axis=1, keepdims=True),
        "calibrated": cooled / cooled.sum(axis=1, keepdims=True),
    }


def test_variants_are_the_formulas_by_hand():
    rng = np.random.default_rng(0)
    trained_at, natural, target = rng.dirichlet(np.ones(4), 3)
    plan = corrected_probabilities.Deployment(trained_at, natural, target, temperature=1.7)
    logits = rng.normal(size=(50, 4))
    expected = _by_hand(logits, plan)
    for name, found in plan.variants(log_softmax(logits, axis=1)).items():
        np.testing.assert_allclose(np.exp(found), expected[name], err_msg=name)


def test_the_temperature_is_fitted_at_the_natural_shares_of_validation(tmp_path):
    run = read_run(write_run(tmp_path / "run"))
    plan = corrected_probabilities.plan_deployment(run, (1, 1, 1, 1))
    natural = np.array(COUNTS["train"]) / sum(COUNTS["train"])
    np.testing.assert_allclose(plan.natural, natural)
    np.testing.assert_allclose(plan.target, 0.25)
    validation = run.predictions("validation")
    moved = calibration.correct_priors(validation.log_probabilities, plan.trained_at, natural)
    assert plan.temperature == calibration.fit_temperature(validation.labels, moved)
    assert plan.temperature == corrected_probabilities.plan_deployment(run).temperature


def test_a_temperature_without_a_best_value_is_told_and_recorded(tmp_path, capsys):
    run = read_run(write_run(tmp_path / "run"))
    assert corrected_probabilities.plan_deployment(run).temperature_warning() is None
    assert "warning" not in capsys.readouterr().out
    validation = run.predictions("validation")
    validation.logits[:] = 10 * np.eye(4)[validation.labels]
    plan = corrected_probabilities.plan_deployment(run)
    assert plan.temperature == 0.1
    told = plan.temperature_warning()
    assert told.startswith("the temperature is at its bound of 0.1: validation is classified")
    assert capsys.readouterr().out == f"warning: {run.path}: {told}\n"
    (tmp_path / "run" / "model.keras").touch()
    assert exported_model.describe(run, plan, natural=True)["temperature_warning"] == told


@pytest.mark.parametrize("form", ["keras", "saved_model"])
def test_the_exported_model_gives_every_kind_of_probability(form, run_dir, data, tmp_path):
    output = str(tmp_path / "model")
    lines = list(exported_model.export(run_dir, output, PLACE.split(","), form))
    images = next(SplitSource(data, "test").evaluation(batch_size=27).as_numpy_iterator())[0]
    if form == "keras":
        found = keras.models.load_model(os.path.join(output, "model.keras"))(images)
    else:
        import tensorflow as tf

        loaded = tf.saved_model.load(output)  # which holds the variables
        found = loaded.serve(images)
    plan = corrected_probabilities.plan_deployment(read_run(run_dir), (0.7, 0.1, 0.2, 0))
    test = read_predictions(os.path.join(run_dir, "predictions_test.csv"))
    np.testing.assert_allclose(found["logits"], test.logits, atol=1e-4)
    expected = _by_hand(test.logits.astype(np.float64), plan)
    for name, variant in exported_model.OUTPUTS.items():
        np.testing.assert_allclose(found[name], expected[variant], atol=1e-4, err_msg=name)
    assert np.abs(found["probabilities_raw"] - found["probabilities"]).max() > 0.1
    np.testing.assert_allclose(found["probabilities"][:, 3], 0, atol=1e-6)
    content = json.loads((tmp_path / "model" / "deployment.json").read_text())
    assert content["class_shares"]["target"] == pytest.approx(
        dict(zip(CLASSES, (0.7, 0.1, 0.2, 0), strict=True))
    )
    assert content["temperature"] == plan.temperature
    assert "each image was weighted by the share of its class there" in "\n".join(lines)
    kept = np.repeat(np.array([0.7, 0.1, 0.2]) / SIZES["test"][:3], SIZES["test"][:3])
    for name, variant in exported_model.OUTPUTS.items():
        chosen = expected[variant][np.arange(27), test.labels][: len(kept)]
        loss = -(kept * np.log(chosen)).sum()
        assert content["test"][name]["log_loss"] == pytest.approx(loss), name


def test_at_natural_shares_the_test_split_scores_all(run_dir, tmp_path):
    list(exported_model.export(run_dir, str(tmp_path / "model")))
    scores = json.loads((tmp_path / "model" / "deployment.json").read_text())["test"]
    metrics = read_run(run_dir).metrics["test"]
    assert scores["probabilities_raw"]["brier"] == pytest.approx(metrics["brier"])
    assert scores["probabilities"]["log_loss"] != scores["probabilities_raw"]["log_loss"]
    assert set(scores) == set(exported_model.OUTPUTS)


def test_a_calibrated_model_is_calibrated_where_the_classes_have_other_shares():
    natural, target = np.array([0.2, 0.5, 0.3]), np.array([0.6, 0.1, 0.3])
    rng = np.random.default_rng(0)
    labels = rng.choice(3, 30_000, p=natural)
    images = rng.normal(0, 1, (len(labels), 3)) + 1.5 * np.eye(3)[labels]
    raw = log_softmax(1.5 * images + np.log(natural), axis=1)  # the posterior of this world
    plan = corrected_probabilities.Deployment(natural, natural, target, temperature=1.0)
    corrected = plan.variants(raw)["calibrated"]
    once = np.ones(len(labels))
    weights = corrected_probabilities.deployment_weights(labels, target)
    lines = {}
    for name, answers, of_image in (
        ("natural", raw, once),
        ("unweighted", corrected, once),
        ("deployed", corrected, weights),
    ):
        found = weighted_metrics(labels, answers, of_image).report("abc")["per_class"]
        lines[name] = np.array(
            [[v["calibration_intercept"], v["calibration_slope"]] for v in found.values()]
        )
    np.testing.assert_allclose(lines["natural"], [[0, 1]] * 3, atol=0.06)
    np.testing.assert_allclose(lines["deployed"], [[0, 1]] * 3, atol=0.06)
    assert np.abs(lines["unweighted"][:2, 0]).min() > 1


def test_weights_give_every_resample_the_shares_of_the_deployment():
    labels, target = np.array([0, 0, 0, 0, 1, 1, 2]), np.array([2.0, 2.0, 0.0])
    weights = corrected_probabilities.deployment_weights(labels, target)
    np.testing.assert_allclose(weights, [*[7 / 8] * 4, *[7 / 4] * 2, 0])
    drawn = np.array([[1, 1, 1, 1, 1, 1, 1], [0, 3, 0, 1, 1, 0, 2], [2, 1, 1, 1, 0, 0, 2]])
    by_row = corrected_probabilities.deployment_weights(labels, target, drawn)
    np.testing.assert_allclose(by_row[0], weights)
    np.testing.assert_allclose(by_row[1], [0, 21 / 8, 0, 7 / 8, 7 / 2, 0, 0])
    assert np.isnan(by_row[2, :6]).all()  # without an image of class 1
    assert by_row[2, 6] == 0
    logp = log_softmax(np.random.default_rng(0).normal(size=(7, 3)), axis=1)
    metrics = weighted_metrics(labels, logp, by_row)
    assert np.isnan([metrics.overall[name][2] for name in OVERALL]).all()
    assert not np.isnan([metrics.overall[name][:2] for name in OVERALL]).any()


def test_shares_that_do_not_fit_are_refused():
    for items in (
        ["COVID=1"],
        PLACE.replace("0.7", "-0.7").split(","),
        PLACE.replace("0.7", "nan").split(","),
        ["COVID=0", "Lung_Opacity=0", "Normal=0", "Viral Pneumonia=0"],
        ["COVID=0.5", *PLACE.split(",")],
    ):
        with pytest.raises(UserError, match="--deploy_prior"):
            corrected_probabilities.parse_deploy_prior(items, CLASSES)
    assert corrected_probabilities.parse_deploy_prior([], CLASSES) is None


def test_the_command_writes_a_model_and_says_what_is_missing(run_dir, tmp_path):
    def command(*flags):
        return processes.run("trainer.export", *map(str, flags))

    output = tmp_path / "model"
    done = command(f"--run_dir={run_dir}", f"--output_dir={output}")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "of the deployment" in done.stdout
    assert sorted(os.listdir(output)) == ["deployment.json", "model.keras"]
    refused = command(f"--output_dir={output}")
    assert refused.returncode == 2
    assert refused.stderr == "error: --run_dir is missing: --help explains it\n"


def test_a_taken_directory_and_an_unfinished_run_are_refused(run_dir, tmp_path):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    new = str(tmp_path / "new")
    with pytest.raises(UserError, match=r"--output_dir=.*taken exists and is not empty"):
        list(exported_model.export(run_dir, str(tmp_path / "taken")))
    with pytest.raises(UserError, match=r"is .* a finished run"):
        list(exported_model.export(str(tmp_path), new))
    with pytest.raises(UserError, match="--deploy_prior=a=1"):
        list(exported_model.export(run_dir, new, ["a=1"]))
    assert os.listdir(tmp_path) == ["taken"]


def test_an_interrupted_export_leaves_no_directory(run_dir, tmp_path, monkeypatch):
    def broken(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(keras.Model, "save", broken)
    with pytest.raises(OSError, match="No space left"):
        list(exported_model.export(run_dir, str(tmp_path / "model")))
    assert os.listdir(tmp_path) == []


def test_plan_is_of_the_run_and_not_of_the_balanced_stream(run_dir):
    plan = corrected_probabilities.plan_deployment(read_run(run_dir))
    assert dataclasses.astuple(plan)[1] == pytest.approx(np.array(SIZES["train"]) / 78)
    assert np.abs(plan.trained_at - plan.natural).max() > 0.1
