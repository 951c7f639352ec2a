"""Prediction sets that hold the true class with a chosen probability, for every class by itself.

Split conformal prediction with a threshold for each class (class-conditional or Mondrian: Vovk
2012, "Conditional validity of inductive conformal predictors", section 4). With one threshold for
all classes the coverage holds on average only, and the rare class pays for it. The promise holds
for images like those of the calibration, whatever the model, and stays when class shares change.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def choose_thresholds(
    labels: np.ndarray, probabilities: np.ndarray, coverage: float, groups: Sequence[str] = ()
) -> np.ndarray:
    """The smallest probability with which each class is in the set.

    Args:
      labels: integer [n], true classes of the calibration images.
      probabilities: float [n, classes]; any probabilities, calibrated or not.
      coverage: wanted probability that the set holds the true class, from 0 to 1.
      groups: n group ids; empty: each image is a group of its own.

    Returns:
      float64 [classes]; 0 for a class with too few groups for this coverage, so that it is in every
      set: 9 are needed for 90%, 19 for 95%.
    """
    names = np.asarray(groups)
    thresholds = np.zeros(np.shape(probabilities)[1])
    for c in range(len(thresholds)):
        members = np.asarray(labels) == c
        of_class = names[members] if len(names) else ()
        bound = upper_bound(-np.asarray(probabilities, np.float64)[members, c], coverage, of_class)
        thresholds[c] = 0 if bound is None else -bound
    return thresholds


def upper_bound(
    scores: np.ndarray, coverage: float, groups: Sequence[str] | np.ndarray = ()
) -> float | None:
    """What the score of a new image does not exceed, with a chosen probability.

    Images of one group are not independent, so that each group counts once, whatever its size, and
    the new image is one of a new group (Lee, Barber and Willett 2023, "Distribution-free inference
    with hierarchical data", section 3).

    Args:
      scores: float [n] of calibration images.
      coverage: the probability, from 0 to 1.
      groups: [n], the group of each image; empty: each image is a group of its own.

    Returns:
      None if there are too few groups for this coverage.
    """
    _, member, sizes = np.unique(
        groups if len(groups) else np.arange(len(scores)), return_inverse=True, return_counts=True
    )
    order = np.argsort(scores, kind="stable")
    # A new group is as likely at each of the places between and beside these. The tiny number is
    # for the rounding of the sum.
    reached = np.cumsum(1 / sizes[member][order]) >= coverage * (len(sizes) + 1) - 1e-6
    return float(scores[order[reached.argmax()]]) if reached.any() else None


def prediction_sets(probabilities: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """bool [n, classes], which classes are in the set of each image.

    Args:
      probabilities: float [n, classes], of the kind that `choose_thresholds` was given.
    """
    return np.asarray(probabilities, np.float64) >= thresholds
