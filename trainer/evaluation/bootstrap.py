"""Bootstrap intervals and paired tests of metrics on one test set.

    weights = group_weights(groups, resamples=2000, seed=0)            # [1 + 2000, n], row 0 is 1
    a = [weighted_metrics(labels, p, weights).overall["mcc"] for p in seeds_of_a]    # [seeds, 2001]
    interval(a)                        # of method A
    paired_difference(a, b)            # A - B on the same images, with a p-value
    holm([...])                        # over all comparisons that are shown

Row 0 of every array of values is the sample itself, the others are resamples. Two methods are
compared on the same resamples, so that the difficulty of an image, which both share, cancels.
Tests of single predictions (McNemar, DeLong, proportions) are in `trainer.evaluation.paired_tests`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import scipy.stats

FIXED, RESAMPLED = "fixed", "resampled"


@dataclasses.dataclass(frozen=True)
class Interval:
    """An estimate with its interval.

    Attributes:
      estimate: on the sample itself, averaged over seeds; None if it is undefined.
      low, high: ends of the interval; None if fewer than half of the resamples are defined.
      level: confidence, such as 0.95.
      resamples: how many were used.
      left_out: resamples in which the metric is undefined, for example without any image of a
        class.
      seeds: `fixed`: the interval holds for these trained models, on other images; `resampled`:
        also for other seeds of the same method.
      p_value: two-sided, of a difference; the null hypothesis is 0. None for anything else.
    """

    estimate: float | None
    low: float | None
    high: float | None
    level: float
    resamples: int
    left_out: int
    seeds: str = FIXED
    p_value: float | None = None


def group_weights(groups: Sequence[str] | np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Weights of a bootstrap over groups (cluster bootstrap; Davison and Hinkley 1997, sec. 3.8).

    Whole groups are drawn, as many as there are, with replacement: images of one group are alike in
    what makes them difficult, and drawing them one by one would give intervals that are too short.
    Classes are not drawn separately: the class counts of a test set at natural prevalence are
    random themselves, and a group may hold two classes. A resample without any image of a rare
    class makes some metrics NaN; `interval` leaves it out and counts it.

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


def interval(
    values: np.ndarray, *, seeds: str = RESAMPLED, level: float = 0.95, seed: int = 0
) -> Interval:
    """Percentile interval of a metric (Efron and Tibshirani 1993, sec. 13.3), mean over seeds.

    Args:
      values: float64 [1 + resamples] or [seeds, 1 + resamples], of rows of `group_weights`.
      seeds: `resampled` (default) draws seeds as well as images, see `seed_means`; `fixed` keeps
        the given trained models. A single seed is always fixed.
      level: confidence.
      seed: of the random numbers that draw seeds.
    """
    values = np.atleast_2d(np.asarray(values, np.float64))
    means, seeds = _means(values, seeds, seed)
    return _percentiles(means, level, seeds)


def paired_difference(
    values_a: np.ndarray,
    values_b: np.ndarray,
    *,
    seeds: str = RESAMPLED,
    paired_seeds: bool = True,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """A minus B with its percentile interval and bootstrap p-value.

    Both are evaluated on the same resampled images, and each is averaged over its seeds within
    each resample. The default draws seeds as well: a statement about two *methods* has to hold
    for the next training too. With `fixed`, a lucky seed would look like a better method.

    Args:
      values_a, values_b: float64 [1 + resamples] or [seeds, 1 + resamples], by the same rows of
        the same `group_weights`.
      paired_seeds: row i of both is the same seed (initial weights, order of the data), so the
        same seeds are drawn for both; False where the seeds differ.
      seeds, level, seed: see `interval`.

    Raises:
      ValueError: the shapes do not fit.
    """
    a = np.atleast_2d(np.asarray(values_a, np.float64))
    b = np.atleast_2d(np.asarray(values_b, np.float64))
    if a.shape[1] != b.shape[1] or (paired_seeds and len(a) != len(b)):
        raise ValueError(f"cannot pair values of shapes {a.shape} and {b.shape}")
    if paired_seeds:
        means, seeds = _means(a - b, seeds, seed)
    else:
        means_a, seeds_a = _means(a, seeds, seed)
        means_b, seeds_b = _means(b, seeds, seed + 1)
        # "fixed" comes before "resampled": one seed on a side says nothing of other seeds there.
        means, seeds = means_a - means_b, min(seeds_a, seeds_b)
    return dataclasses.replace(
        _percentiles(means, level, seeds), p_value=bootstrap_p_value(means[1:])
    )


def bootstrap_p_value(differences: np.ndarray) -> float | None:
    """Two-sided p-value of a difference of 0: twice the share of resamples on the other side of 0.

    It agrees with the percentile interval: it is below 0.05 if the 95% interval excludes 0. One is
    added to numerator and denominator, so that it is never 0 (Davison and Hinkley 1997, eq. 4.11;
    Phipson and Smyth 2010).

    Args:
      differences: float64 [resamples], NaN where undefined, without row 0 (the sample).

    Returns:
      None if fewer than half of the resamples are defined.
    """
    defined = differences[~np.isnan(differences)]
    if 2 * len(defined) < max(1, len(differences)):
        return None
    beyond = min((defined <= 0).sum(), (defined >= 0).sum())
    return float(min(1.0, 2 * (beyond + 1) / (len(defined) + 1)))


def seed_means(values: np.ndarray, seed: int) -> np.ndarray:
    """Mean over seeds in each resample, with other seeds drawn in each: a hierarchical bootstrap.

    seeds - 1 of them are drawn with replacement: the mean of that many has the variance s^2/seeds
    of a mean of `seeds` new ones. Drawing `seeds` of them would give (seeds - 1) / seeds of that
    variance, a third less with three seeds (Rao and Wu 1988, sec. 2). The deviations are then
    multiplied by t(seeds - 1) / z, because the variance of so few seeds is itself uncertain
    (Student's interval is wider than the normal one for the same reason). Images and seeds are
    crossed: chance that belongs to one image under one seed is counted in both, so the interval is
    rather too wide (Owen 2007).

    Args:
      values: float64 [seeds, 1 + resamples], at least two seeds.

    Returns:
      float64 [1 + resamples]; entry 0 is the plain mean.
    """
    count, columns = values.shape
    generator = np.random.Generator(np.random.Philox(seed))
    drawn = generator.integers(0, count, (count - 1, columns))
    means = values.mean(axis=0)
    apart = values[drawn, np.arange(columns)].mean(axis=0) - means
    apart[0] = 0
    return means + apart * scipy.stats.t.ppf(0.975, count - 1) / scipy.stats.norm.ppf(0.975)


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


def _means(values: np.ndarray, seeds: str, seed: int) -> tuple[np.ndarray, str]:
    if seeds not in (FIXED, RESAMPLED):
        raise ValueError(f"seeds={seeds!r} is not one of {FIXED}, {RESAMPLED}")
    if seeds == FIXED or len(values) == 1:
        return values.mean(axis=0), FIXED
    return seed_means(values, seed), RESAMPLED


def _percentiles(means: np.ndarray, level: float, seeds: str) -> Interval:
    resampled = means[1:][~np.isnan(means[1:])]
    low = high = None
    if len(resampled) and 2 * len(resampled) >= len(means) - 1:
        tail = (1 - level) / 2
        low, high = map(float, np.quantile(resampled, [tail, 1 - tail]))
    estimate = None if np.isnan(means[0]) else float(means[0])
    left_out = len(means) - 1 - len(resampled)
    return Interval(estimate, low, high, level, len(resampled), left_out, seeds)
