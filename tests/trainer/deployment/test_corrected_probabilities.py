"""Probabilities for the place where a model is used: the formulas."""

import dataclasses

import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from cxr_tfrecords.errors import UserError
from cxr_tfrecords.reading import Reading
from tests.trainer import fake_study
from tests.trainer.fake_run import CLASSES, COUNTS, write_run
from trainer.deployment import corrected_probabilities
from trainer.evaluation import calibration
from trainer.evaluation.metrics import OVERALL, weighted_metrics
from trainer.exporting import contract
from trainer.runs.finished_run import read_run

PLACE = "COVID=0.7,Lung_Opacity=0.1,Normal=0.2,Viral Pneumonia=0"


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
    content = contract.describe_run(run, plan, Reading(96, 1), natural=True)
    assert content["temperature_warning"] == told


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
    with pytest.raises(UserError, match="there is no class LungOpacity; its classes are COVID, L"):
        corrected_probabilities.parse_deploy_prior(["LungOpacity=0.2"], CLASSES)
    assert corrected_probabilities.parse_deploy_prior([], CLASSES) is None


def test_plan_is_of_the_run_and_not_of_the_balanced_stream(tmp_path):
    plan = corrected_probabilities.plan_deployment(read_run(write_run(tmp_path / "run")))
    natural = np.array(COUNTS["train"])
    assert dataclasses.astuple(plan)[1] == pytest.approx(natural / natural.sum())
    assert np.abs(plan.trained_at - plan.natural).max() > 0.1


def test_predictions_that_were_cut_short_are_refused_by_the_counts_of_their_run(tmp_path):
    path = write_run(tmp_path, counts=fake_study.COUNTS)
    name = tmp_path / "predictions_validation.csv"
    name.write_text("".join(name.read_text().splitlines(keepends=True)[:50]))
    with pytest.raises(UserError, match=rf"^{name} was changed .* 49 images .* split 100 of 4\)"):
        corrected_probabilities.plan_deployment(read_run(path), None)
