"""Net benefit is what decision curve analysis defines."""

import numpy as np
import pytest
import sklearn.metrics

from trainer.evaluation.net_benefit import THRESHOLDS, net_benefit


@pytest.fixture
def sample():
    rng = np.random.default_rng(0)
    positive = rng.random(400) < 0.2
    return positive, np.round(1 / (1 + np.exp(-rng.normal(2.0 * positive - 1.5, 1))), 2)


def test_it_is_sensitivity_and_specificity_at_the_prevalence(sample):
    positive, probabilities = sample
    curve = net_benefit(positive, probabilities, THRESHOLDS)
    share = positive.mean()
    for threshold, benefit in zip(THRESHOLDS, curve, strict=True):
        matrix = sklearn.metrics.confusion_matrix(positive, probabilities >= threshold)
        (specificity, sensitivity) = np.diag(matrix) / matrix.sum(axis=1)
        odds = threshold / (1 - threshold)
        expected = sensitivity * share - (1 - specificity) * (1 - share) * odds
        assert benefit == pytest.approx(expected, abs=1e-12)


def test_calling_all_crosses_zero_at_the_prevalence_and_the_truth_is_the_best(sample):
    positive = sample[0]
    share = positive.mean()
    everything = net_benefit(positive, np.ones(len(positive)), np.array([0.0, share]))
    assert everything == pytest.approx([share, 0])
    assert net_benefit(positive, positive.astype(float), THRESHOLDS) == pytest.approx(share)


def test_a_weight_counts_as_so_many_images(sample):
    positive, probabilities = sample
    weights = np.random.default_rng(1).integers(0, 3, (2, len(positive)))
    weighted = net_benefit(positive, probabilities, THRESHOLDS, weights)
    assert weighted.shape == (2, 99)
    for row, weight in zip(weighted, weights, strict=True):
        repeated = net_benefit(
            np.repeat(positive, weight), np.repeat(probabilities, weight), THRESHOLDS
        )
        assert row == pytest.approx(repeated)
