"""Class shares of images without labels."""

import numpy as np
import pytest
import scipy.special

from trainer.evaluation.prior_shift import estimate_shares, fit_bias_corrected, shares_apart

TRAINED_AT = np.array([0.2, 0.5, 0.3])
CENTERS = np.array([[0.0, 1.0], [1.0, 0.0], [-0.7, -0.7]])


def _draw(count, shares, move=0.0):
    """Labels, and the exact posteriors at TRAINED_AT of points around three centres."""
    rng = np.random.default_rng(0)
    labels = rng.choice(3, count, p=shares)
    points = rng.normal(0, 1, (count, 2)) + CENTERS[labels] + move
    densities = -((points[:, np.newaxis] - CENTERS) ** 2).sum(axis=2) / 2
    return labels, scipy.special.log_softmax(densities + np.log(TRAINED_AT), axis=1)


@pytest.mark.parametrize("shares", [[0.6, 0.1, 0.3], [0.0, 0.5, 0.5]])
def test_em_recovers_other_class_shares(shares):
    labels, posteriors = _draw(20_000, shares)
    found = estimate_shares(posteriors, 10 * TRAINED_AT)
    assert found.converged
    true = np.bincount(labels, minlength=3) / len(labels)
    assert shares_apart(found.shares, true) < 0.015
    assert shares_apart(TRAINED_AT, true) > 0.19


def test_em_is_wrong_where_images_of_a_class_look_different():
    labels, posteriors = _draw(20_000, TRAINED_AT, move=1.0)
    found = estimate_shares(posteriors, TRAINED_AT)
    assert shares_apart(found.shares, np.bincount(labels) / len(labels)) > 0.2


def test_a_bias_for_each_class_makes_em_right_again():
    labels, posteriors = _draw(20_000, TRAINED_AT)
    wrong = scipy.special.log_softmax((posteriors - np.array([0.9, 0.0, -0.9])) / 0.5, axis=1)
    scale, bias = fit_bias_corrected(labels, wrong)
    assert scale == pytest.approx(0.5, rel=0.05)
    np.testing.assert_allclose(bias - bias.mean(), [0.9, 0, -0.9], atol=0.05)
    corrected = scipy.special.log_softmax(scale * wrong + bias, axis=1)
    assert shares_apart(estimate_shares(wrong, TRAINED_AT).shares, TRAINED_AT) > 0.2
    assert shares_apart(estimate_shares(corrected, TRAINED_AT).shares, TRAINED_AT) < 0.02


def test_em_says_if_it_did_not_come_to_an_end():
    _, posteriors = _draw(100, [0.6, 0.1, 0.3])
    found = estimate_shares(posteriors, TRAINED_AT, iterations=2)
    assert (found.converged, found.iterations) == (False, 2)
    assert found.shares.sum() == pytest.approx(1)


def test_shares_apart_is_the_part_that_would_have_to_move():
    assert shares_apart([0.5, 0.5, 0], [0.2, 0.5, 0.3]) == pytest.approx(0.3)
