"""Prediction sets that hold the true class with a chosen probability, for every class by itself.

Split conformal prediction with a threshold for each class (class-conditional or Mondrian: Vovk
2012, "Conditional validity of inductive conformal predictors", section 4). With one threshold for
all classes the coverage holds on average only, and the rare class pays for it. The promise holds
for images like those of the calibration, whatever the model, and stays when class shares change.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np


def choose_thresholds(
    labels: np.ndarray, probabilities: np.ndarray, coverage: float, groups: Sequence[str] = ()
) -> np.ndarray:
    """The smallest probability with which each class is in the set.

    Images of one group are not independent, so one image of each group and class is used, chosen
    by a digest of the group's name (subsampling once: Dunn, Wasserman and Ramdas 2022, section 3).

    Args:
      labels: integer [n], true classes of the calibration images.
      probabilities: float [n, classes]; any probabilities, calibrated or not.
      coverage: wanted probability that the set holds the true class, from 0 to 1.
      groups: n group ids; empty: each image is a group of its own.

    Returns:
      float64 [classes]; 0 for a class with too few groups for this coverage, so that it is in every
      set: 9 are needed for 90%, 19 for 95%.
    """
    probabilities = np.asarray(probabilities, np.float64)
    chosen = _one_of_each_group(labels, groups) if len(groups) else np.arange(len(labels))
    thresholds = np.zeros(probabilities.shape[1])
    for c in range(len(thresholds)):
        own = np.sort(probabilities[chosen][np.asarray(labels)[chosen] == c, c])
        # A new image is as likely in each of the n + 1 gaps between these n. The tiny number is
        # for the rounding of products such as 0.1 * 10.
        rank = int(np.floor((1 - coverage) * (len(own) + 1) + 1e-9))
        if rank >= 1:
            thresholds[c] = own[min(rank, len(own)) - 1]
    return thresholds


def prediction_sets(probabilities: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """bool [n, classes], which classes are in the set of each image.

    Args:
      probabilities: float [n, classes], of the kind that `choose_thresholds` was given.
    """
    return np.asarray(probabilities, np.float64) >= thresholds


def _one_of_each_group(labels: np.ndarray, groups: Sequence[str]) -> np.ndarray:
    """Row of one image of each group and class, in rising order."""
    members: dict[tuple[str, int], list[int]] = {}
    for row, (group, label) in enumerate(zip(groups, labels, strict=True)):
        members.setdefault((group, int(label)), []).append(row)
    return np.array(
        sorted(rows[zlib.crc32(group.encode()) % len(rows)] for (group, _), rows in members.items())
    )
