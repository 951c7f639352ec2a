"""Scores of how unlike the training images an image is, from a model's features. NumPy only.

Every detector is fitted on training images and gives a score that is higher the less an image is
like them. `choose_threshold` takes the score above which an image is flagged from validation
images. docs/out_of_distribution.md has what each detector finds and misses.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from trainer.evaluation.conformal import upper_bound

# The share of the variance of the training features that ViM's principal space holds.
_PRINCIPAL_SHARE = 0.95
_NEIGHBOURS = 10


@dataclasses.dataclass(frozen=True)
class Vim:
    """Virtual-logit matching (Wang et al. 2022, "ViM: Out-Of-Distribution with Virtual-logit
    Matching", section 4): the distance from the space that training features vary in, scaled to
    the size of logits, less log(sum(exp(logits))).

    Two things differ from the paper, so that a model may have any head and few images: features
    are centred at their mean, not at a point computed from the head's weights; and the space holds
    95% of the variance, not a fixed number of directions.

    Attributes:
      mean: float32 [F]. principal: float32 [F, D], orthonormal directions.
      scale: float32 [], factor of the distance.
    """

    mean: np.ndarray
    principal: np.ndarray
    scale: np.ndarray

    @classmethod
    def fit(cls, features: np.ndarray, labels: np.ndarray, logits: np.ndarray) -> Vim:
        del labels
        features = np.asarray(features, np.float64)
        mean = features.mean(axis=0)
        variances, directions = np.linalg.eigh(np.cov(features - mean, rowvar=False, ddof=0))
        # eigh sorts from the smallest.
        shares = np.cumsum(variances[::-1]) / max(variances.sum(), np.finfo(float).tiny)
        kept = min(int(np.searchsorted(shares, _PRINCIPAL_SHARE)) + 1, len(mean) - 1)
        principal = directions[:, ::-1][:, :kept]
        distances = _distances(features, mean, principal)
        scale = np.asarray(logits, np.float64).max(axis=1).mean() / max(distances.mean(), 1e-12)
        return cls(*(np.asarray(part, np.float32) for part in (mean, principal, scale)))

    def score(self, features: np.ndarray, logits: np.ndarray) -> np.ndarray:
        logits = np.asarray(logits, np.float64)
        largest = logits.max(axis=1, keepdims=True)
        energy = largest[:, 0] + np.log(np.exp(logits - largest).sum(axis=1))
        return self.scale * _distances(features, self.mean, self.principal) - energy


def _distances(features: np.ndarray, mean: np.ndarray, principal: np.ndarray) -> np.ndarray:
    centred = np.asarray(features, np.float64) - mean
    return np.linalg.norm(centred - (centred @ principal) @ principal.T, axis=1)


@dataclasses.dataclass(frozen=True)
class Mahalanobis:
    """The squared Mahalanobis distance to the nearest class mean, with one covariance for all
    classes (Lee et al. 2018, "A Simple Unified Framework for Detecting Out-of-Distribution Samples
    and Adversarial Attacks", section 2.1), of features scaled to length 1 (Mueller and Hein 2025,
    "Mahalanobis++: Improving OOD Detection via Feature Normalization"): a model with all layers
    trained gives short features to unknown images. With fewer images than features that covariance
    has no inverse: it is shrunk as Ledoit and Wolf 2004 say.

    Attributes:
      means: float32 [classes with images, F].
      whitening: float32 [F, F]; features of length 1 times this have unit covariance.
    """

    means: np.ndarray
    whitening: np.ndarray

    @classmethod
    def fit(cls, features: np.ndarray, labels: np.ndarray, logits: np.ndarray) -> Mahalanobis:
        del logits
        features = _unit(features)
        _, members = np.unique(labels, return_inverse=True)
        means = np.stack([features[members == c].mean(axis=0) for c in range(members.max() + 1)])
        variances, directions = np.linalg.eigh(_shrunk_covariance(features - means[members]))
        whitening = directions / np.sqrt(np.maximum(variances, 1e-12))
        return cls(means.astype(np.float32), whitening.astype(np.float32))

    def score(self, features: np.ndarray, logits: np.ndarray) -> np.ndarray:
        del logits
        features = _unit(features)
        return np.min(
            [np.sum(((features - mean) @ self.whitening) ** 2, axis=1) for mean in self.means],
            axis=0,
        )


def _shrunk_covariance(centred: np.ndarray) -> np.ndarray:
    """Ledoit and Wolf 2004, "A well-conditioned estimator for large-dimensional covariance
    matrices", section 3.3, of rows [n, F] whose mean is 0."""
    count, width = centred.shape
    covariance = centred.T @ centred / count
    variance = np.trace(covariance) / width
    distance = np.sum(covariance**2) / width - variance**2
    # The mean squared distance of one row's outer product from the covariance.
    spread = (np.sum(np.sum(centred**2, axis=1) ** 2) / count - np.sum(covariance**2)) / width
    share = min(spread / count / distance, 1.0) if distance > 0 else 0.0
    return (1 - share) * covariance + share * variance * np.eye(width)


@dataclasses.dataclass(frozen=True)
class Knn:
    """The distance to the 10th nearest training image, of features scaled to length 1 (Sun et al.
    2022, "Out-of-Distribution Detection with Deep Nearest Neighbors", section 3).

    Attributes:
      directions: float32 [n, F], the training features at length 1.
    """

    directions: np.ndarray

    @classmethod
    def fit(cls, features: np.ndarray, labels: np.ndarray, logits: np.ndarray) -> Knn:
        del labels, logits
        return cls(_unit(features).astype(np.float32))

    def score(self, features: np.ndarray, logits: np.ndarray) -> np.ndarray:
        del logits
        number = min(_NEIGHBOURS, len(self.directions)) - 1
        squared = 2 - 2 * _unit(features) @ self.directions.T
        return np.sqrt(np.maximum(np.partition(squared, number, axis=1)[:, number], 0))


def _unit(features: np.ndarray) -> np.ndarray:
    features = np.asarray(features, np.float64)
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)


# Name -> class with `fit(features, labels, logits)` and `score(features, logits)`: features are
# float [n, F], labels integer [n], logits float [n, classes]; scores are float64 [n].
DETECTORS: dict[str, Any] = {"mahalanobis": Mahalanobis, "knn": Knn, "vim": Vim}
DEFAULT = "mahalanobis"
FALSE_ALARMS = 0.05


def choose_threshold(
    scores: np.ndarray, false_alarms: float, groups: Sequence[str] | np.ndarray = ()
) -> float | None:
    """The score above which an image is flagged.

    Of new images like those of validation, at most this share is flagged on average (split
    conformal prediction: Laxhammar and Falkman 2010; Bates et al. 2023, "Testing for outliers with
    conformal p-values", section 2). Groups of images count once, see `conformal.upper_bound`.

    Args:
      scores: float [n] of validation images.
      false_alarms: share from 0 to 1.
      groups: [n], the group of each image; empty: each image is a group of its own.

    Returns:
      None if there are too few groups: 19 are needed for 5%, 99 for 1%.
    """
    return upper_bound(scores, 1 - false_alarms, groups)
