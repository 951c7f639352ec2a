"""Class shares of images whose labels are unknown, from a model's probabilities alone."""

from __future__ import annotations

import dataclasses

import numpy as np


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


def shares_apart(first: np.ndarray, second: np.ndarray) -> float:
    """Half the sum of the absolute differences of two rows of shares: the part of all images that
    would have to change its class (total variation distance), from 0 to 1."""
    return float(np.abs(np.asarray(first) - np.asarray(second)).sum() / 2)
