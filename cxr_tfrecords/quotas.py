"""How many images of each class a split or a fold gets."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def stratified_quotas(
    class_counts: Sequence[int] | np.ndarray, test_fraction: float, validation_fraction: float
) -> np.ndarray:
    """Images of train, validation and test: the arithmetic of Wuisan et al. 2022, Table II.

    The test split takes ceil(test_fraction * N) images, validation
    ceil(validation_fraction * rest), training what remains: 21,165 gives 4,233, 3,387 and
    13,545. Each class is in proportion, by largest remainder (ties to the lower class index).

    A class of three images or more that rounding would leave without a test or validation image
    gets one, taken from training. This matters where there are hundreds of small classes.

    Returns:
      int64 [3, classes].
    """
    counts = np.asarray(class_counts, dtype=np.int64)
    test = _in_proportion(math.ceil(test_fraction * counts.sum() - 1e-9), counts)
    test = np.maximum(test, counts >= 3)
    rest = counts - test
    validation = _in_proportion(math.ceil(validation_fraction * rest.sum() - 1e-9), rest)
    validation = np.maximum(validation, rest >= 2)
    return np.stack([rest - validation, validation, test])


def fold_quotas(class_counts: Sequence[int] | np.ndarray, folds: int) -> np.ndarray:
    """Images of each fold, int64 [folds, classes]: as if all were dealt in turn, class by class.

    Two folds differ by at most one image in each class, and by at most one in all.
    """
    ends = np.cumsum(np.asarray(class_counts, dtype=np.int64))
    starts = np.concatenate([[0], ends[:-1]])
    fold = np.arange(folds)[:, None]
    return (ends - fold + folds - 1) // folds - (starts - fold + folds - 1) // folds


def apportion(exact: np.ndarray, total: int) -> np.ndarray:
    """Rounds numbers of sum `total`, float64 [n], down or up to int64 [n] of the same sum.

    Those with the largest remainders are rounded up (Hamilton's method), the first of equal ones.
    """
    whole = np.floor(exact).astype(np.int64)
    missing = total - int(whole.sum())
    whole[np.argsort(whole - exact, kind="stable")[:missing]] += 1
    return whole


def reduce_evenly(numbers: np.ndarray, total: int) -> np.ndarray:
    """Subtracts one amount from all numbers, int [n], so that those above 0 have the sum `total`.

    The others become 0. This is the projection onto a simplex of Held, Wolfe and Crowder 1974
    ("Validation of subgradient optimization"), rounded by `apportion`.

    Returns:
      int64 [n] of the sum `total`.
    """
    descending = np.sort(numbers)[::-1]
    amounts = (np.cumsum(descending) - total) / np.arange(1, len(numbers) + 1)
    return apportion(np.maximum(numbers - amounts.max(), 0.0), total)


def _in_proportion(total: int, counts: np.ndarray) -> np.ndarray:
    return apportion(total * counts / max(counts.sum(), 1), total)
