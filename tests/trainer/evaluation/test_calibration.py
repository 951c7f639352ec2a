import numpy as np
import pytest
import scipy.special

from trainer.evaluation import calibration

PRIORS = np.array([0.2, 0.5, 0.3])


def _world(count, priors, seed=0):
    """Two-dimensional images of three classes, and their exact posteriors under any priors."""
    rng = np.random.default_rng(seed)
    centers = np.array([[0.0, 1.0], [1.0, 0.0], [-0.7, -0.7]])
    labels = rng.choice(3, count, p=priors)
    images = rng.normal(0, 1, (count, 2)) + centers[labels]
    densities = -((images[:, np.newaxis] - centers) ** 2).sum(axis=2) / 2
    return labels, lambda shares: scipy.special.log_softmax(densities + np.log(shares), axis=1)


@pytest.mark.parametrize("true", [0.5, 2.5])
def test_temperature_of_scaled_logits_is_recovered(true):
    labels, posteriors = _world(20_000, PRIORS)
    logits = posteriors(PRIORS) * true
    found = calibration.fit_temperature(labels, logits)
    assert found == pytest.approx(true, rel=0.03)


def test_temperature_is_the_best_of_a_fine_grid():
    labels, posteriors = _world(300, PRIORS)
    logits = posteriors(PRIORS) * 3

    def loss(temperature):
        scaled = scipy.special.log_softmax(logits / temperature, axis=1)
        return -scaled[np.arange(300), labels].mean()

    best = loss(calibration.fit_temperature(labels, logits))
    assert best <= min(map(loss, np.geomspace(0.05, 50, 400))) + 1e-9


@pytest.mark.parametrize("sharper", [1, 300])
def test_temperature_of_perfect_or_useless_answers_is_exactly_a_bound(sharper):
    labels = np.array([0, 1, 2, 0])
    logits = sharper * (np.eye(3)[labels] + 0.1 * np.eye(3)[[1, 2, 0, 2]])
    assert calibration.fit_temperature(labels, logits) == calibration.TEMPERATURES[0]
    assert calibration.fit_temperature(labels, -logits) == calibration.TEMPERATURES[1]


def test_prior_correction_gives_the_posteriors_of_the_new_priors():
    _, posteriors = _world(500, PRIORS)
    balanced = np.full(3, 1 / 3)
    corrected = calibration.correct_priors(posteriors(balanced), [1, 1, 1], PRIORS)
    np.testing.assert_allclose(corrected, posteriors(PRIORS), atol=1e-9)
    ruled_out = calibration.correct_priors(posteriors(PRIORS), PRIORS, [0.5, 0.5, 0])
    assert np.exp(ruled_out)[:, 2].max() == 0
    np.testing.assert_allclose(np.exp(ruled_out).sum(axis=1), 1)


@pytest.mark.parametrize("shares", [[0, 1, 1], [-1, 1, 1], [0, 0, 0]])
def test_priors_that_a_model_cannot_have_are_refused(shares):
    with pytest.raises(ValueError, match="from_priors"):
        calibration.correct_priors(np.zeros((1, 3)), shares, [1, 1, 1])


def test_reliability_bins_hold_equal_mass_and_observed_shares():
    rng = np.random.default_rng(0)
    p = rng.beta(0.5, 2, 5000)
    curve = calibration.reliability_curve(rng.random(5000) < p, p, bins=10)
    assert curve.count.tolist() == [500] * 10
    assert (np.diff(curve.predicted) > 0).all()
    assert ((curve.low <= curve.predicted) & (curve.predicted <= curve.high)).sum() >= 8
    assert ((curve.low <= curve.observed) & (curve.observed <= curve.high)).all()


def test_equal_probabilities_share_a_bin():
    p = np.array([0.1] * 50 + [0.9] * 50)
    curve = calibration.reliability_curve(np.arange(100) >= 45, p, bins=10)
    assert curve.count.tolist() == [50, 50]
    assert curve.observed.tolist() == [0.1, 1.0]
    assert curve.predicted.tolist() == pytest.approx([0.1, 0.9])


def test_reliability_bins_with_whole_weights_are_those_of_repeated_images():
    rng = np.random.default_rng(0)
    p, weights = rng.beta(0.5, 2, 3000), rng.integers(0, 3, 3000)
    positive = rng.random(3000) < p
    weighted = calibration.reliability_curve(positive, p, 8, weights=weights)
    repeated = calibration.reliability_curve(positive.repeat(weights), p.repeat(weights), 8)
    np.testing.assert_allclose(weighted.predicted, repeated.predicted, rtol=0.02)
    np.testing.assert_allclose(weighted.observed, repeated.observed, atol=0.01)
    assert weighted.count.sum() == (weights > 0).sum()
    # Repeated images look like more than there are.
    assert (weighted.high - weighted.low > 1.1 * (repeated.high - repeated.low)).all()


def test_threshold_is_the_highest_that_reaches_the_sensitivity():
    scores = np.r_[np.arange(1, 21) / 20, np.full(5, 0.9)]
    positive = np.r_[np.ones(20, bool), np.zeros(5, bool)]
    assert calibration.choose_threshold(positive, scores, 0.95) == 0.1
    assert calibration.choose_threshold(positive, scores, 1.0) == 0.05
    assert calibration.choose_threshold(positive, scores, 0.01) == 1.0
    assert calibration.choose_threshold(~positive & positive, scores, 0.9) is None


def test_operating_point_by_hand():
    positive = np.array([1, 1, 1, 0, 0, 0, 0, 0], bool)
    scores = np.array([0.9, 0.5, 0.2, 0.5, 0.4, 0.3, 0.2, 0.1])
    point = calibration.operating_point(positive, scores, 0.5)
    shares = (point.sensitivity, point.specificity, point.ppv, point.npv)
    assert [share.estimate for share in shares] == [2 / 3, 4 / 5, 2 / 3, 4 / 5]
    assert point.sensitivity.low < 2 / 3 < point.sensitivity.high
    nobody = calibration.operating_point(positive, scores, 2.0)
    assert nobody.ppv.estimate is None
    assert nobody.specificity.estimate == 1.0
