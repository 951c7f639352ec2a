"""Detectors against independent implementations, and the promise of the threshold."""

import numpy as np
import pytest
from scipy.spatial.distance import mahalanobis
from scipy.special import logsumexp
from scipy.stats import norm
from sklearn.covariance import ledoit_wolf
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors

from trainer.evaluation.out_of_distribution import DETECTORS, choose_threshold


def _draw(rng, count, shift=0.0):
    """Features of three classes that vary in 6 of 20 directions, and a little in the others."""
    labels = rng.integers(0, 3, count)
    spread = np.where(np.arange(20) < 6, 2.0, 0.2)
    features = rng.normal(0, spread, (count, 20)) + 3 * np.eye(20)[labels] + shift
    logits = features[:, :3] + rng.normal(0, 0.1, (count, 3))
    return features.astype(np.float32), labels, logits.astype(np.float32)


@pytest.fixture(params=[15, 300])  # fewer images than features, and many more
def drawn(request):
    rng = np.random.default_rng(request.param)
    return _draw(rng, request.param), _draw(rng, 40)


def _scores(method, drawn):
    (features, labels, logits), (new, _, new_logits) = drawn
    return DETECTORS[method].fit(features, labels, logits).score(new, new_logits)


def test_mahalanobis_is_the_distance_to_the_nearest_class_mean(drawn):
    (features, labels, _), (new, _, _) = drawn
    features, new = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (features, new))
    means = [features[labels == c].mean(axis=0, dtype=np.float64) for c in range(3)]
    covariance, _ = ledoit_wolf(features - np.stack(means)[labels], assume_centered=True)
    precision = np.linalg.inv(covariance)
    expected = [min(mahalanobis(x, mean, precision) ** 2 for mean in means) for x in new]
    np.testing.assert_allclose(_scores("mahalanobis", drawn), expected, rtol=1e-4)


def test_knn_is_the_distance_to_the_tenth_nearest_direction(drawn):
    (features, _, _), (new, _, _) = drawn
    unit, new_unit = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (features, new))
    distances, _ = NearestNeighbors(n_neighbors=10).fit(unit).kneighbors(new_unit)
    np.testing.assert_allclose(_scores("knn", drawn), distances[:, 9], rtol=1e-4)


def test_vim_is_the_residual_of_95_percent_of_variance_less_the_energy(drawn):
    (features, _, logits), (new, _, new_logits) = drawn
    pca = PCA(n_components=0.95, svd_solver="full").fit(features)

    def residual(x):
        return np.linalg.norm(x - pca.inverse_transform(pca.transform(x)), axis=1)

    scale = logits.max(axis=1).mean() / residual(features).mean()
    expected = scale * residual(new) - logsumexp(new_logits, axis=1)
    np.testing.assert_allclose(_scores("vim", drawn), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("method", DETECTORS)
def test_a_detector_flags_what_is_far_away_and_few_of_its_own_kind(method):
    rng = np.random.default_rng(1)
    detector = DETECTORS[method].fit(*_draw(rng, 500))
    features, _, logits = _draw(rng, 4999)
    threshold = choose_threshold(detector.score(features, logits), 0.05)
    for shift, low, high in ((0.0, 0.03, 0.07), (3.0, 0.9, 1.0)):
        features, _, logits = _draw(rng, 5000, shift)
        assert low <= (detector.score(features, logits) > threshold).mean() <= high


@pytest.mark.parametrize(("count", "promised"), [(19, 1 / 20), (59, 3 / 60), (50, 2 / 51)])
def test_the_threshold_keeps_the_rate_of_false_alarms_with_few_images_too(count, promised):
    rng = np.random.default_rng(2)
    rates = [norm.sf(choose_threshold(rng.normal(size=count), 0.05)) for _ in range(2000)]
    assert np.mean(rates) == pytest.approx(promised, abs=4 * np.std(rates) / 2000**0.5)


def test_false_alarms_are_of_patients_however_many_images_each_has():
    rng = np.random.default_rng(3)
    rates = {True: [], False: []}
    for _ in range(300):
        # A patient's images are all alike; the odder the patient, the fewer images.
        oddness = rng.normal(size=99)
        patients = np.repeat(np.arange(99), np.where(oddness > 1, 1, 12))
        for grouped, found in rates.items():
            threshold = choose_threshold(oddness[patients], 0.05, patients if grouped else ())
            found.append(norm.sf(threshold))
    assert np.mean(rates[True]) == pytest.approx(0.05, abs=0.005)
    assert np.mean(rates[False]) > 0.1, "groups would not matter here"


def test_too_few_images_give_no_threshold():
    assert choose_threshold(np.arange(18.0), 0.05) is None
    assert choose_threshold(np.arange(19.0), 0.05) == 18
    assert choose_threshold(np.arange(99.0), 1.0) == 0


def test_a_class_without_images_and_equal_features_are_no_error():
    features, logits = np.ones((5, 4), np.float32), np.zeros((5, 3), np.float32)
    for kind in DETECTORS.values():
        detector = kind.fit(features, np.array([0, 0, 2, 2, 2]), logits)
        assert np.isfinite(detector.score(features, logits)).all()
