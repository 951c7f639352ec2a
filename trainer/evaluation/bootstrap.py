"""Resamples of a test set's groups, and intervals and p-values in general.

    weights = group_weights(groups, resamples=2000, seed=0)            # [1 + 2000, n], row 0 is 1
    a = [weighted_metrics(labels, p, weights).overall["mcc"] for p in seeds_of_a]    # [seeds, 2001]

Row 0 of every array of values is the sample itself, the others are resamples. All methods are
evaluated on the same resamples, so that the difficulty of an image, which they share, cancels in
their difference. `trainer.evaluation.crossed_seeds` makes intervals of these values. Tests of
single predictions (McNemar, DeLong, proportions) are in `trainer.evaluation.paired_tests`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

FIXED, RANDOM = "fixed", "random"


@dataclasses.dataclass(frozen=True)
class Interval:
    """An estimate with its interval.

    Attributes:
      estimate: on the sample itself, averaged over seeds; None if it is undefined.
      low, high: ends of the interval; None if it cannot be computed.
      level: confidence, such as 0.95.
      resamples: how many were used.
      left_out: resamples in which the metric is undefined, for example without any image of a
        class.
      seeds: `fixed`: the interval holds for these trained models, on other images; `random`:
        also for other seeds of the same method.
      p_value: two-sided, of a difference; the null hypothesis is 0. None for anything else.
      standard_error, df: of the estimate, and the degrees of freedom of Student's t; None where the
        interval is not made of them.
    """

    estimate: float | None
    low: float | None
    high: float | None
    level: float
    resamples: int
    left_out: int
    seeds: str = FIXED
    p_value: float | None = None
    standard_error: float | None = None
    df: float | None = None


def group_weights(groups: Sequence[str] | np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Weights of a bootstrap over groups (cluster bootstrap; Davison and Hinkley 1997, sec. 3.8).

    Whole groups are drawn, as many as there are, with replacement: images of one group are alike in
    what makes them difficult, and drawing them one by one would give intervals that are too short.
    Classes are not drawn separately: the class counts of a test set at natural prevalence are
    random themselves, and a group may hold two classes. A resample without any image of a rare
    class makes some metrics NaN; `crossed_seeds` leaves it out and counts it.

    Args:
      groups: [n], the group of each image; if every image is its own, this is the usual bootstrap.
      resamples: how many to draw; seed: of the random numbers.

    Returns:
      int32 [1 + resamples, n]: how often each image counts. Row 0 is all ones, the sample itself.
    """
    names, member = np.unique(np.asarray(groups), return_inverse=True)
    count = len(names)
    generator = np.random.Generator(np.random.Philox(seed))
    weights = np.ones((1 + resamples, len(member)), np.int32)
    for row in range(1, 1 + resamples):
        drawn = np.bincount(generator.integers(0, count, count), minlength=count)
        weights[row] = drawn[member]
    return weights


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """p-values adjusted for their number (Holm 1979), whatever the dependence between the tests.

    Rejecting below 0.05 keeps the family-wise error at 5% or less. None (a test that could not be
    made) stays None and does not count.
    """
    known = np.array([p for p in p_values if p is not None], np.float64)
    order = np.argsort(known, kind="stable")
    factors = len(known) - np.arange(len(known))
    adjusted = np.empty_like(known)
    adjusted[order] = np.maximum.accumulate(np.minimum(known[order] * factors, 1))
    rest = iter(adjusted)
    return [None if p is None else float(next(rest)) for p in p_values]
