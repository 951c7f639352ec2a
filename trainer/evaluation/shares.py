"""Intervals of proportions, and the test of two proportions of different images."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import scipy.stats

from trainer.evaluation.bootstrap import Interval


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


def score_ends(share: float, count: float, quantile: float) -> tuple[float, float]:
    """Ends of the score interval (Wilson 1927) of a share of `count` independent images.

    Args:
      share: in 0..1; count: above 0, may be a fraction (an effective number of images).
      quantile: of the normal or Student's distribution, such as 1.96.
    """
    # Multiplied by count, so that tiny effective numbers do not overflow.
    squared = quantile**2
    middle = (count * share + squared / 2) / (count + squared)
    spread = count * share * (1 - share) * squared + squared**2 / 4
    half = np.sqrt(spread) / (count + squared)
    # Rounding must not leave the estimate outside.
    return float(min(share, max(0.0, middle - half))), float(max(share, min(1.0, middle + half)))


def wilson(successes: float, count: float, level: float = 0.95) -> Interval:
    """Score interval of a proportion of independent images (Wilson 1927); all ends are None if
    `count` is 0."""
    if count == 0:
        return Interval(None, None, None, level, 0, 0)
    low, high = score_ends(successes / count, count, _normal(level))
    return Interval(successes / count, low, high, level, 0, 0)


def grouped_share(
    hits: np.ndarray,
    groups: Sequence[str] | np.ndarray,
    weights: np.ndarray | None = None,
    level: float = 0.95,
) -> Interval:
    """Score interval of a proportion of images that come in groups (Korn and Graubard 1998).

    Images of one group are alike, so that they say less than as many independent ones: the interval
    is that of the number of independent images with the variance that is measured between groups,
    with Student's quantile of groups - 1. Where no group differs from another (8 of 8), it is that
    of the number of groups.

    Args:
      hits: bool [n]; groups: [n], of each image; weights: float [n], None: each counts once.
    """
    hits = np.asarray(hits, bool)
    weights = np.ones(len(hits)) if weights is None else np.asarray(weights, np.float64)
    hits, groups, weights = (np.asarray(a)[weights > 0] for a in (hits, groups, weights))
    if not len(hits):
        return Interval(None, None, None, level, 0, 0)
    share = float(np.average(hits, weights=weights))
    _, member = np.unique(groups, return_inverse=True)
    sizes = np.bincount(member, weights)
    apart = np.bincount(member, weights * (hits - share))
    squares = float((apart**2).sum())
    largest = float(sizes.sum() ** 2 / (sizes**2).sum())  # if all images of a group are the same
    count = share * (1 - share) * sizes.sum() ** 2 / squares if squares else largest
    quantile = scipy.stats.t.ppf((1 + level) / 2, max(1, len(sizes) - 1))
    low, high = score_ends(share, count, quantile)
    return Interval(share, low, high, level, 0, 0)


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
    p1, p2 = x1 / n1, x2 / n2
    low, high = square_and_add(wilson(x1, n1, level), wilson(x2, n2, level))
    pooled = (x1 + x2) / (n1 + n2)
    if min(n1, n2) * min(pooled, 1 - pooled) < 5:
        table = [[x1, n1 - x1], [x2, n2 - x2]]
        p_value, method = float(scipy.stats.fisher_exact(table).pvalue), "Fisher"
    else:
        z = (p1 - p2) / np.sqrt(pooled * (1 - pooled) * (1 / n1 + 1 / n2))
        p_value, method = float(2 * scipy.stats.norm.sf(abs(z))), "z"
    return TwoProportions(p1 - p2, low, high, level, p_value, method)


def square_and_add(first: Interval, second: Interval) -> tuple[float | None, float | None]:
    """Interval of first - second from the intervals of both, as if they were independent (Newcombe
    1998, method 10); None if one of them has no interval."""
    p1, low1, high1 = first.estimate, first.low, first.high
    p2, low2, high2 = second.estimate, second.low, second.high
    if p1 is None or low1 is None or high1 is None:
        return None, None
    if p2 is None or low2 is None or high2 is None:
        return None, None
    low = p1 - p2 - np.hypot(p1 - low1, high2 - p2)
    high = p1 - p2 + np.hypot(high1 - p1, p2 - low2)
    return float(low), float(high)


def _normal(level: float) -> float:
    return float(scipy.stats.norm.ppf((1 + level) / 2))
