"""Which groups decide a metric, and what becomes of rare classes."""

import numpy as np
import pytest

from trainer.evaluation.bootstrap import group_weights
from trainer.evaluation.inference import Inference
from trainer.evaluation.metrics import weighted_metrics
from trainer.evaluation.predictions import Predictions

CLASSES = ("common", "rare")


def _test_split():
    """80 groups of two images, and 8 groups of one image of the rare class."""
    groups = [f"g{i // 2}" for i in range(160)] + [f"r{i}" for i in range(8)]
    labels = np.r_[np.zeros(160, int), np.ones(8, int)]
    return Predictions([str(i) for i in range(168)], labels, np.zeros((168, 2)), groups)


def _values(test, seeds, wrong):
    """Metrics of models that mistake some common images and, if asked, rare ones."""
    weights = group_weights(test.groups, 200, 0)
    rows = []
    for seed in seeds:
        rng = np.random.default_rng(seed)
        answer = np.where(rng.random(168) < 0.1, 1 - test.labels, test.labels)
        answer[160:] = test.labels[160:]
        answer[160 : 160 + wrong] = 0
        log_probabilities = np.log(np.where(np.eye(2)[answer] > 0, 0.9, 0.1))
        rows.append(weighted_metrics(test.labels, log_probabilities, weights).flat(CLASSES))
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def test_groups_that_decide_a_metric():
    inference = Inference(_test_split(), CLASSES, [(0,)])
    assert inference.rare_classes() == {"rare": 8}
    decided = {
        "accuracy": 88,
        "brier": 88,
        "brier/rare": 88,
        "balanced_accuracy": 8,
        "recall/rare": 8,
        "recall/common": 80,
        "specificity/rare": 80,
    }
    assert {name: inference.groups_of(name) for name in decided} == decided


def test_a_rare_class_has_intervals_and_no_test():
    test = _test_split()
    values = [_values(test, (0, 1, 2), wrong) for wrong in (0, 2)]
    inference = Inference(test, CLASSES, [(0, 1, 2)] * 2)
    study = inference.study("recall/rare", [one["recall/rare"] for one in values])
    perfect = inference.mean("recall/rare", study.mean(0))
    assert perfect.high == 1.0
    assert perfect.low < 0.7
    difference = inference.difference("recall/rare", study, 0, 1)
    assert difference.estimate == pytest.approx(0.25)
    assert difference.p_value is None
    assert difference.low < 0 < difference.high, "2 of 8 images are no evidence"
    common = inference.study("recall/common", [one["recall/common"] for one in values])
    assert inference.difference("recall/common", common, 0, 1).standard_error is not None


def test_the_calibration_error_has_no_interval():
    test = _test_split()
    values = [_values(test, (0, 1), 0)["ece"]] * 2
    inference = Inference(test, CLASSES, [(0, 1)] * 2)
    study = inference.study("ece", values)
    assert inference.mean("ece", study.mean(0)).low is None
    assert inference.mean("ece", study.mean(0)).estimate is not None
    assert inference.difference("ece", study, 0, 1).p_value is None
