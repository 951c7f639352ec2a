"""Class shares of images whose labels are unknown, from a model's probabilities alone."""

from __future__ import annotations

import dataclasses

import numpy as np
import scipy.optimize
from scipy.special import log_softmax

_MOST = 10.0  # of a bias in size: a class without images would have an infinite one


@dataclasses.dataclass(frozen=True)
class EstimatedShares:
    """Class shares that were estimated without labels.

    Attributes:
      shares: float64 [classes], sum 1.
      iterations: how many steps of EM were made.
      converged: whether the last step changed no share by more than the tolerance.
    """

    shares: np.ndarray
    iterations: int
    converged: bool


def estimate_shares(
    log_probabilities: np.ndarray,
    from_shares: np.ndarray,
    *,
    iterations: int = 10_000,
    tolerance: float = 1e-7,
) -> EstimatedShares:
    """Class shares by expectation maximization (Saerens et al. 2002, section 2.3).

    It assumes that only the class shares differ and not how the images of a class look. It needs
    calibrated probabilities: every other difference, miscalibration too, is taken for a difference
    of the shares (Alexandari et al. 2020).

    Args:
      log_probabilities: float64 [n, classes], n >= 1, of the images whose shares are wanted.
      from_shares: float [classes], those that the probabilities assume, above 0, in any scale.
    """
    start = np.asarray(from_shares, np.float64) / np.sum(from_shares)
    # Likelihoods up to a factor of each image, which cancels.
    relative = log_probabilities - np.log(start)
    likelihoods = np.exp(relative - relative.max(axis=1, keepdims=True))
    shares = start
    for number in range(1, iterations + 1):
        joint = likelihoods * shares
        before, shares = shares, (joint / joint.sum(axis=1, keepdims=True)).mean(axis=0)
        if np.abs(shares - before).max() < tolerance:
            return EstimatedShares(shares, number, True)
    return EstimatedShares(shares, iterations, False)


def fit_bias_corrected(
    labels: np.ndarray, log_probabilities: np.ndarray
) -> tuple[float, np.ndarray]:
    """Scale and biases that give the least cross-entropy of softmax(scale * log p + bias).

    Bias-corrected temperature scaling (Alexandari et al. 2020, section 3): a temperature alone
    leaves a class that is predicted too often as it is, and EM then takes this for other shares.

    Args:
      labels: integer [n], of validation. log_probabilities: float64 [n, classes].

    Returns:
      The scale, above 0, and float64 [classes].
    """
    count, classes = log_probabilities.shape
    truth = np.eye(classes)[labels]

    def loss(values: np.ndarray) -> tuple[float, np.ndarray]:
        scale, bias = np.exp(values[0]), values[1:]
        scores = log_softmax(scale * log_probabilities + bias, axis=1)
        slopes = (np.exp(scores) - truth) / count
        of_scale = (slopes * log_probabilities).sum() * scale
        return -(scores * truth).sum() / count, np.r_[of_scale, slopes.sum(axis=0)]

    bounds = [(-np.log(_MOST), np.log(_MOST)), *[(-_MOST, _MOST)] * classes]
    found = scipy.optimize.minimize(
        loss, np.zeros(classes + 1), jac=True, method="L-BFGS-B", bounds=bounds
    ).x
    return float(np.exp(found[0])), found[1:]


def shares_apart(first: np.ndarray, second: np.ndarray) -> float:
    """Half the sum of the absolute differences of two rows of shares: the part of all images that
    would have to change its class (total variation distance), from 0 to 1."""
    return float(np.abs(np.asarray(first) - np.asarray(second)).sum() / 2)
