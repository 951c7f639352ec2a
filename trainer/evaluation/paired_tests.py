"""Tests of two sets of predictions, and intervals of proportions, by closed formulas.

All of them assume that images are independent: where groups hold more than one image, trust the
cluster bootstrap of `bootstrap` instead. McNemar and DeLong compare two trained models (one seed
each), not two methods.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import scipy.stats

from trainer.evaluation.bootstrap import Interval

# With fewer discordant pairs than this the chi-square approximation is poor.
_EXACT_BELOW = 25


@dataclasses.dataclass(frozen=True)
class McNemar:
    """Result of McNemar's test of the models A and B.

    Attributes:
      only_a, only_b: images that A alone, or B alone, classifies correctly.
      p_value: two-sided; the null hypothesis is that both are equally often correct.
      method: `exact` (binomial) or `chi-square` (with continuity correction).
    """

    only_a: int
    only_b: int
    p_value: float
    method: str


@dataclasses.dataclass(frozen=True)
class DeLong:
    """Result of DeLong's test of the models A and B.

    Attributes:
      auroc_a, auroc_b: of the models.
      difference: A - B.
      standard_error: of the difference; low, high: its interval at `level`.
      p_value: two-sided; the null hypothesis is that both AUROCs are equal. None if the standard
        error is 0.
    """

    auroc_a: float
    auroc_b: float
    difference: float
    standard_error: float
    low: float
    high: float
    level: float
    p_value: float | None


@dataclasses.dataclass(frozen=True)
class TwoProportions:
    """Result of a test of two independent proportions.

    Attributes:
      difference: first - second; None if one of them is of no image.
      low, high: its interval at `level`.
      p_value: two-sided; the null hypothesis is that both proportions are equal.
      method: `z` (pooled) or `Fisher` (an expected count below 5).
    """

    difference: float | None
    low: float | None
    high: float | None
    level: float
    p_value: float | None
    method: str


def mcnemar(correct_a: np.ndarray, correct_b: np.ndarray) -> McNemar:
    """McNemar's test (McNemar 1947; Dietterich 1998, sec. 3.1) of paired answers.

    Args:
      correct_a, correct_b: bool [n], whether each image was classified correctly.
    """
    a, b = np.asarray(correct_a, bool), np.asarray(correct_b, bool)
    only_a, only_b = int((a & ~b).sum()), int((~a & b).sum())
    discordant = only_a + only_b
    if discordant < _EXACT_BELOW:
        p_value = 2 * float(scipy.stats.binom.cdf(min(only_a, only_b), discordant, 0.5))
        return McNemar(only_a, only_b, min(1.0, p_value), "exact")
    statistic = (abs(only_a - only_b) - 1) ** 2 / discordant
    return McNemar(only_a, only_b, float(scipy.stats.chi2.sf(statistic, 1)), "chi-square")


def delong(
    positive: np.ndarray, scores_a: np.ndarray, scores_b: np.ndarray, level: float = 0.95
) -> DeLong | None:
    """DeLong's test of two AUROCs on the same images (DeLong et al. 1988), in n log n by midranks
    (Sun and Xu 2014, algorithm 2).

    Args:
      positive: bool [n].
      scores_a, scores_b: float [n], higher for "positive"; only their ranks matter.
      level: confidence of the interval.

    Returns:
      None if there are fewer than two positives or negatives.
    """
    positive = np.asarray(positive, bool)
    positives, negatives = int(positive.sum()), int((~positive).sum())
    if min(positives, negatives) < 2:
        return None
    of_positives, of_negatives = [], []
    for scores in (np.asarray(scores_a), np.asarray(scores_b)):
        ranks = scipy.stats.rankdata(scores)
        above = ranks[positive] - scipy.stats.rankdata(scores[positive])
        below = ranks[~positive] - scipy.stats.rankdata(scores[~positive])
        of_positives.append(above / negatives)
        of_negatives.append(1 - below / positives)
    aurocs = np.mean(of_positives, axis=1)
    covariance = np.cov(of_positives) / positives + np.cov(of_negatives) / negatives
    contrast = np.array([1, -1])
    difference = float(aurocs[0] - aurocs[1])
    error = float(np.sqrt(max(0.0, contrast @ covariance @ contrast)))
    reach = float(scipy.stats.norm.ppf((1 + level) / 2)) * error
    return DeLong(
        auroc_a=float(aurocs[0]),
        auroc_b=float(aurocs[1]),
        difference=difference,
        standard_error=error,
        low=difference - reach,
        high=difference + reach,
        level=level,
        p_value=float(2 * scipy.stats.norm.sf(abs(difference) / error)) if error > 0 else None,
    )


def wilson(successes: int, count: int, level: float = 0.95) -> Interval:
    """Score interval of a proportion (Wilson 1927); all ends are None if `count` is 0."""
    if count == 0:
        return Interval(None, None, None, level, 0, 0)
    low, high = _wilson_ends(successes, count, level)
    return Interval(successes / count, low, high, level, 0, 0)


def two_proportions(
    first: tuple[int, int], second: tuple[int, int], level: float = 0.95
) -> TwoProportions:
    """Two proportions of different images: Newcombe's interval (1998, method 10) from two Wilson
    intervals; pooled z-test, or Fisher's exact one where an expected count is below 5.

    Args:
      first, second: (successes, count) of each.
    """
    (x1, n1), (x2, n2) = first, second
    if n1 == 0 or n2 == 0:
        return TwoProportions(None, None, None, level, None, "")
    a, b = _wilson_ends(x1, n1, level), _wilson_ends(x2, n2, level)
    p1, p2 = x1 / n1, x2 / n2
    low = p1 - p2 - np.hypot(p1 - a[0], b[1] - p2)
    high = p1 - p2 + np.hypot(a[1] - p1, p2 - b[0])
    pooled = (x1 + x2) / (n1 + n2)
    if min(n1, n2) * min(pooled, 1 - pooled) < 5:
        table = [[x1, n1 - x1], [x2, n2 - x2]]
        p_value, method = float(scipy.stats.fisher_exact(table).pvalue), "Fisher"
    else:
        z = (p1 - p2) / np.sqrt(pooled * (1 - pooled) * (1 / n1 + 1 / n2))
        p_value, method = float(2 * scipy.stats.norm.sf(abs(z))), "z"
    return TwoProportions(p1 - p2, float(low), float(high), level, p_value, method)


def _wilson_ends(successes: int, count: int, level: float) -> tuple[float, float]:
    ends = scipy.stats.binomtest(int(successes), int(count)).proportion_ci(level, "wilson")
    return float(ends.low), float(ends.high)
