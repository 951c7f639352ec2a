import numpy as np
import pytest
import scipy.special
import sklearn.metrics
import statsmodels.api
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.evaluation.calibration_line import BOUND, _overlap
from trainer.evaluation.metrics import ECE_BINS, OVERALL, PER_CLASS, log_odds, weighted_metrics

NAMES = ("COVID", "Normal", "Viral")


def _split(count=240, seed=0, decimals=None):
    """Labels of three unequal classes and log-probabilities, with ties if rounded."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(3, count, p=(0.3, 0.6, 0.1))
    labels[:3] = range(3)
    logits = rng.normal(0, 1, (count, 3)) + 1.2 * np.eye(3)[labels]
    if decimals is not None:
        logits = logits.round(decimals)
    return labels, scipy.special.log_softmax(logits, axis=1)


def _one(labels, log_probabilities, weights=None):
    weights = np.ones(len(labels)) if weights is None else weights
    return weighted_metrics(labels, log_probabilities, weights).report(NAMES)


def test_metrics_agree_with_scikit_learn():
    labels, logp = _split()
    found, p, predicted = _one(labels, logp), np.exp(logp), logp.argmax(1)
    assert found["accuracy"] == pytest.approx((labels == predicted).mean())
    expected = {
        "balanced_accuracy": sklearn.metrics.balanced_accuracy_score(labels, predicted),
        "macro_f1": sklearn.metrics.f1_score(labels, predicted, average="macro"),
        "mcc": sklearn.metrics.matthews_corrcoef(labels, predicted),
        "auroc_macro": sklearn.metrics.roc_auc_score(labels, p, multi_class="ovr"),
        "auprc_macro": sklearn.metrics.average_precision_score(np.eye(3)[labels], p),
        "log_loss": sklearn.metrics.log_loss(labels, p),
        "brier": ((p - np.eye(3)[labels]) ** 2).sum(axis=1).mean(),
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    for c, name in enumerate(NAMES):
        of_class, is_c = found["per_class"][name], labels == c
        assert of_class["brier"] == pytest.approx(sklearn.metrics.brier_score_loss(is_c, p[:, c]))
        assert of_class["precision"] == pytest.approx(
            sklearn.metrics.precision_score(is_c, predicted == c)
        )
        assert of_class["specificity"] == pytest.approx(
            sklearn.metrics.recall_score(~is_c, predicted != c)
        )
        assert of_class["support"] == is_c.sum()


@given(st.integers(0, 10_000), st.sampled_from([None, 0, 1]))
@settings(max_examples=40, deadline=None)
def test_a_weight_counts_an_image_as_often_as_a_resample_holds_it(seed, decimals):
    labels, logp = _split(60, seed, decimals)
    drawn = np.random.default_rng(seed).integers(0, 60, (2, 60))
    weights = np.stack([np.bincount(rows, minlength=60) for rows in drawn])
    together = weighted_metrics(labels, logp, weights)
    for row, rows in enumerate(drawn):
        if len(np.unique(labels[rows])) < 3:
            continue
        expected = _one(labels[rows], logp[rows])
        found = together.report(NAMES, row)
        for name in OVERALL:
            assert found[name] == pytest.approx(expected[name], abs=1e-9), name
        for class_name in NAMES:
            for name in PER_CLASS:
                value = expected["per_class"][class_name][name]
                # A slope that is nearly infinite is found to fewer digits.
                close = None if value is None else pytest.approx(value, rel=1e-4, abs=1e-6)
                assert found["per_class"][class_name][name] == close, name
        assert found["confusion_matrix"] == expected["confusion_matrix"]


def test_ranks_with_ties_agree_with_scikit_learn():
    labels, logp = _split(decimals=0)
    odds = log_odds(logp).round(9)
    found = _one(labels, logp)
    for c, name in enumerate(NAMES):
        expected = sklearn.metrics.roc_auc_score(labels == c, odds[:, c])
        assert found["per_class"][name]["auroc"] == pytest.approx(expected)


def test_calibration_line_agrees_with_a_weighted_logistic_regression():
    labels, logp = _split()
    weights = np.random.default_rng(1).integers(0, 3, len(labels))
    found = _one(labels, logp, weights)["per_class"]
    x, family = log_odds(logp), statsmodels.api.families.Binomial()
    for c, name in enumerate(NAMES):
        one = np.ones(len(x))
        y = (labels == c).astype(float)
        line = statsmodels.api.GLM(y, np.c_[one, x[:, c]], family, freq_weights=weights).fit()
        level = statsmodels.api.GLM(y, one, family, offset=x[:, c], freq_weights=weights).fit()
        assert found[name]["calibration_slope"] == pytest.approx(line.params[1], rel=1e-6)
        assert found[name]["calibration_intercept"] == pytest.approx(level.params[0], abs=1e-6)


@pytest.mark.parametrize(("times", "slope"), [(1, 1.0), (2, 0.5)])
def test_calibration_slope_is_one_if_calibrated_and_half_if_logits_are_doubled(times, slope):
    rng = np.random.default_rng(0)
    logit = rng.normal(0, 1.5, 40_000)
    labels = (rng.random(40_000) < scipy.special.expit(logit)).astype(int)
    logp = scipy.special.log_softmax(np.c_[0 * logit, times * logit], axis=1)
    arrays = weighted_metrics(labels, logp, np.ones(len(labels)))
    found = arrays.report(("no", "yes"))["per_class"]["yes"]
    assert found["calibration_slope"] == pytest.approx(slope, abs=0.03)
    if times == 1:
        assert found["calibration_intercept"] == pytest.approx(0, abs=0.03)


def test_overrated_class_has_a_negative_calibration_intercept():
    labels, logp = _split(2000)
    logp = scipy.special.log_softmax(logp + np.array([0, 0, 3.0]), axis=1)
    assert _one(labels, logp)["per_class"]["Viral"]["calibration_intercept"] < -1


def test_calibration_error_by_hand_over_equal_bins():
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.5, 1, 20 * ECE_BINS)
    right = rng.random(len(confidence)) < 0.7
    labels = np.where(right, 0, 1)
    logp = np.log(np.c_[confidence, 1 - confidence])
    order = np.argsort(-confidence)
    bins = zip(np.split(confidence[order], ECE_BINS), np.split(right[order], ECE_BINS), strict=True)
    expected = np.mean([abs(c.mean() - r.mean()) for c, r in bins])
    found = weighted_metrics(labels, logp, np.ones(len(labels))).overall["ece"][0]
    assert found == pytest.approx(expected)


def test_a_resample_without_a_class_has_no_means_over_classes():
    labels, logp = _split(60)
    arrays = weighted_metrics(labels, logp, np.stack([np.ones(60), labels != 2]))
    found = arrays.report(NAMES, 1)
    undefined = {name for name in OVERALL if found[name] is None}
    assert undefined == {"balanced_accuracy", "macro_f1", "auroc_macro", "auprc_macro"}
    assert found["per_class"]["Viral"]["recall"] is None
    assert found["per_class"]["Viral"]["calibration_slope"] is None


def test_means_over_classes_leave_out_a_class_without_images():
    labels, predicted = np.array([0, 0, 1, 1]), np.array([0, 0, 1, 2])
    logp = scipy.special.log_softmax(3.0 * np.eye(3)[predicted], axis=1)
    expected = sklearn.metrics.f1_score(labels, predicted, labels=[0, 1], average="macro")
    assert expected == pytest.approx(5 / 6)
    for truth, weights in ((labels, np.ones(4)), (np.r_[labels, 2], np.array([1, 1, 1, 1, 0]))):
        found = _one(truth, logp[[0, 1, 2, 3, 0]][: len(truth)], weights)
        assert found["macro_f1"] == pytest.approx(expected)
        assert found["balanced_accuracy"] == 0.75
        of_present = [found["per_class"][name]["auprc"] for name in NAMES[:2]]
        assert found["auprc_macro"] == pytest.approx(np.mean(of_present))


@given(st.integers(0, 10_000), st.sampled_from([0.001, 0.3, 7.0]))
@settings(max_examples=20, deadline=None)
def test_metrics_do_not_depend_on_the_unit_of_the_weights(seed, unit):
    labels, logp = _split(60, seed, decimals=1)
    weights = np.random.default_rng(seed).integers(0, 4, (1, 60))
    whole, scaled = (weighted_metrics(labels, logp, unit * weights) for unit in (1, unit))
    for name in OVERALL:
        np.testing.assert_allclose(scaled.overall[name], whole.overall[name], err_msg=name)
    for name in PER_CLASS:
        times = unit if name == "support" else 1
        expected = times * whole.per_class[name]
        np.testing.assert_allclose(scaled.per_class[name], expected, rtol=1e-5, err_msg=name)


def test_ranks_with_fractional_weights_agree_with_scikit_learn():
    labels, logp = _split(decimals=0)
    weights = np.random.default_rng(2).uniform(0, 0.1, len(labels))
    odds, found = log_odds(logp).round(9), _one(labels, logp, weights)["per_class"]
    for c, name in enumerate(NAMES):
        ranked = (labels == c, odds[:, c])
        for metric, function in (
            ("auroc", sklearn.metrics.roc_auc_score),
            ("auprc", sklearn.metrics.average_precision_score),
        ):
            assert found[name][metric] == pytest.approx(function(*ranked, sample_weight=weights))


def test_a_class_that_never_counts_may_have_the_probability_0():
    labels, logp = _split()
    logp[:, 2] = -np.inf
    logp = scipy.special.log_softmax(logp, axis=1)
    found = _one(labels, logp, labels != 2)
    kept = labels != 2
    expected = sklearn.metrics.log_loss(labels[kept], np.exp(logp[kept, :2]))
    assert found["log_loss"] == pytest.approx(expected)
    assert None not in (found[name] for name in OVERALL)


def test_a_class_that_is_never_predicted_has_no_precision_but_an_f1_of_zero():
    labels = np.array([0, 0, 1, 2])
    logp = np.log([[0.8, 0.1, 0.1], [0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.8, 0.1, 0.1]])
    viral = _one(labels, logp)["per_class"]["Viral"]
    assert (viral["precision"], viral["recall"], viral["f1"]) == (None, 0.0, 0.0)


@pytest.mark.parametrize(("labels", "slope"), [([0, 0, 1, 1], BOUND), ([1, 1, 0, 0], -BOUND)])
@pytest.mark.parametrize("sharper", [1, 20])
def test_scores_that_part_the_classes_have_the_slope_of_the_bound(labels, slope, sharper):
    logp = np.log([[0.99, 0.01], [0.9, 0.1], [0.2, 0.8], [0.01, 0.99]])
    logp = scipy.special.log_softmax(sharper * logp, axis=1)
    found = weighted_metrics(np.array(labels), logp, np.ones(4)).report(("a", "b"))["per_class"]
    assert found["a"]["calibration_slope"] == found["b"]["calibration_slope"] == slope
    assert abs(found["a"]["calibration_intercept"]) <= BOUND
    none = weighted_metrics(np.array(labels), 0 * logp - np.log(2), np.ones(4)).report(("a", "b"))
    assert none["per_class"]["a"]["calibration_slope"] is None  # all scores are equal


def test_nearly_infinite_slopes_and_intercepts_are_bounded():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 400)
    odds = (2 * labels - 1) * 0.01 + rng.normal(0, 0.006, 400)
    logp = scipy.special.log_softmax(np.c_[odds * 0, odds], axis=1)
    assert _overlap(labels == 1, odds, np.ones((1, 400))).all()
    arrays = weighted_metrics(labels, logp, np.ones(400))
    assert arrays.per_class["calibration_slope"].tolist() == [[BOUND, BOUND]]
    wrong = scipy.special.log_softmax(np.c_[odds * 0, odds - 60], axis=1)
    intercepts = weighted_metrics(labels, wrong, np.ones(400)).per_class["calibration_intercept"]
    assert intercepts.tolist() == [[-BOUND, BOUND]]


def test_one_certain_image_does_not_make_the_calibration_line_infinite():
    with np.errstate(divide="ignore"):
        logp = np.log([[1.0, 0.0], [0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.2, 0.8]])
    found = weighted_metrics(np.array([0, 0, 1, 0, 1]), logp, np.ones(5)).report(("a", "b"))
    assert 0 < found["per_class"]["a"]["calibration_slope"] < np.inf
    assert np.isfinite(found["per_class"]["a"]["calibration_intercept"])
