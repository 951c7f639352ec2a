"""Tests of two sets of predictions by closed formulas.

They assume that images are independent: where groups hold more than one image, use `crossed_seeds`
instead. They compare two trained models (one seed each), not two methods.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import scipy.stats


@dataclasses.dataclass(frozen=True)
class McNemar:
    """Result of McNemar's test of the models A and B.

    Attributes:
      only_a, only_b: images that A alone, or B alone, classifies correctly.
      p_value: two-sided, mid-p; the null hypothesis is that both are equally often correct.
    """

    only_a: int
    only_b: int
    p_value: float


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


def mcnemar(correct_a: np.ndarray, correct_b: np.ndarray) -> McNemar:
    """McNemar's mid-p test of paired answers (Fagerland, Lydersen and Laake 2013, sec. 3): the
    exact binomial test is too careful, and chi-square needs many discordant pairs.

    Args:
      correct_a, correct_b: bool [n], whether each image was classified correctly.
    """
    a, b = np.asarray(correct_a, bool), np.asarray(correct_b, bool)
    only_a, only_b = int((a & ~b).sum()), int((~a & b).sum())
    if only_a == only_b:
        return McNemar(only_a, only_b, 1.0)
    binomial = scipy.stats.binom(only_a + only_b, 0.5)
    fewer = min(only_a, only_b)
    return McNemar(only_a, only_b, float(2 * binomial.cdf(fewer) - binomial.pmf(fewer)))


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
