"""Corrects probabilities after training (temperature, class shares) and chooses thresholds.

Everything is fitted on validation and applied unchanged to test. Probabilities are passed as
log-probabilities, float64 [n, classes], like `Predictions.log_probabilities`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import scipy.optimize
from scipy.special import log_softmax

from trainer.evaluation.bootstrap import Interval
from trainer.evaluation.shares import grouped_share, wilson

# Range of the temperature. If validation is classified perfectly, the best one is 0, at which a
# single wrong answer on test costs an infinite loss. For a model worse than chance it is infinite.
TEMPERATURES = (0.1, 100.0)


@dataclasses.dataclass(frozen=True)
class ReliabilityCurve:
    """Bins that hold about the same number of images each, by rising probability.

    Attributes:
      predicted: float64 [bins], mean predicted probability.
      observed: float64 [bins], share of positives.
      low, high: float64 [bins], Wilson's 95% interval of `observed`.
      count: int [bins], images.
    """

    predicted: np.ndarray
    observed: np.ndarray
    low: np.ndarray
    high: np.ndarray
    count: np.ndarray


@dataclasses.dataclass(frozen=True)
class OperatingPoint:
    """Shares of right answers at a fixed threshold, each with a 95% score interval over groups.

    Attributes:
      threshold: an image is called positive if its score is at least this.
      sensitivity, specificity: share of the positives called positive, of the negatives negative.
      ppv, npv: share of those called positive that are, of those called negative that are; they
        hold at this set's prevalence only.
    """

    threshold: float
    sensitivity: Interval
    specificity: Interval
    ppv: Interval
    npv: Interval


def fit_temperature(labels: np.ndarray, log_probabilities: np.ndarray) -> float:
    """Temperature that gives the least cross-entropy (Guo et al. 2017, sec. 4.2).

    Above 1 the model was overconfident. To be fitted on validation; it changes neither the order of
    an image's classes nor the accuracy. It is exactly one end of `TEMPERATURES` where the loss has
    no minimum between them: it is then no estimate, which users must be told.

    Args:
      labels: integer [n].
      log_probabilities: float64 [n, classes]; logits give the same result.
    """
    labels = np.asarray(labels)
    logits = np.asarray(log_probabilities, np.float64)

    def loss(log_temperature: float) -> float:
        scaled = log_softmax(logits * np.exp(-log_temperature), axis=1)
        return float(-scaled[np.arange(len(labels)), labels].mean())

    # The loss has one minimum in 1/T, hence one in log T, whose scale suits the search better.
    low, high = np.log(TEMPERATURES)
    result = scipy.optimize.minimize_scalar(
        loss, bounds=(low, high), method="bounded", options={"xatol": 1e-6}
    )
    ends = dict(zip((low, high), TEMPERATURES, strict=True))
    best = min((low, high, result.x), key=loss)
    return ends.get(best, float(np.exp(best)))


def correct_priors(
    log_probabilities: np.ndarray, from_priors: np.ndarray, to_priors: np.ndarray
) -> np.ndarray:
    """Posteriors at other class shares (Saerens et al. 2002, eq. 2.4), no retraining.

    It assumes that only the class shares change and not how the images of a class look. After
    balanced training: from the shares of the training stream to those of the deployment (or of the
    data before balancing).

    Args:
      log_probabilities: float64 [n, classes].
      from_priors: float [classes], shares that the model was fitted to; any scale.
      to_priors: float [classes], shares where it is used, any scale; 0 excludes a class.

    Returns:
      float64 [n, classes], normalized log-probabilities.

    Raises:
      ValueError: a share is negative, or one of `from_priors` is 0.
    """
    old, new = _shares(from_priors, "from_priors"), _shares(to_priors, "to_priors")
    if (old == 0).any():
        raise ValueError("from_priors: every class needs a share above 0")
    with np.errstate(divide="ignore"):
        return log_softmax(log_probabilities + np.log(new) - np.log(old), axis=1)


def reliability_curve(
    positive: np.ndarray,
    probabilities: np.ndarray,
    bins: int = 10,
    weights: np.ndarray | None = None,
) -> ReliabilityCurve:
    """Observed shares against predicted ones, in bins of equal size (Nguyen and O'Connor 2015).

    Equal probabilities stay in one bin, so there may be fewer than `bins`.

    Args:
      positive: bool [n].
      probabilities: float [n], predicted for the positive class.
      bins: how many, at most.
      weights: float [n], how much each image counts; None: once. Bins then have equal weight, and
        intervals are those of (sum w)^2 / sum w^2 images (Kish 1965).
    """
    weights = np.ones(len(probabilities)) if weights is None else np.asarray(weights)
    counted = np.flatnonzero(weights)
    order = counted[np.argsort(np.asarray(probabilities)[counted], kind="stable")]
    ranked, hits = np.asarray(probabilities)[order], np.asarray(positive, bool)[order]
    mass = weights[order]
    before = np.r_[0, mass.cumsum()]  # of each image
    shares_below = np.linspace(0, before[-1], min(bins, len(ranked)) + 1)
    edges = np.interp(shares_below, before, np.arange(len(before))).round().astype(int)
    starts = np.unique(np.searchsorted(ranked, ranked[edges[:-1]])) if len(ranked) else edges[:0]
    count = np.diff(np.r_[starts, len(ranked)])
    sums, squares, positives, predicted = (
        np.add.reduceat(values, starts) for values in (mass, mass**2, mass * hits, mass * ranked)
    )
    sizes = sums**2 / squares
    shares = [wilson(k, n) for k, n in zip(positives / sums * sizes, sizes, strict=True)]
    return ReliabilityCurve(
        predicted=predicted / sums,
        observed=np.array([share.estimate for share in shares], np.float64),
        low=np.array([share.low for share in shares], np.float64),
        high=np.array([share.high for share in shares], np.float64),
        count=count,
    )


def choose_threshold(positive: np.ndarray, scores: np.ndarray, sensitivity: float) -> float | None:
    """Highest threshold with at least this sensitivity, to be chosen on validation.

    Args:
      positive: bool [n].
      scores: float [n], the class's probability or anything that rises with it.
      sensitivity: wanted share of the positives that are called positive, in 0..1.

    Returns:
      The threshold on the scale of `scores`; None if there are no positives.
    """
    ranked = np.sort(np.asarray(scores)[np.asarray(positive, bool)])[::-1]
    if not len(ranked):
        return None
    # 0.95 * 20 may be 19.000000000000004 in floating point: the rounding error must not make 20.
    needed = max(1, int(np.ceil(sensitivity * len(ranked) - 1e-9)))
    return float(ranked[min(needed, len(ranked)) - 1])


def operating_point(
    positive: np.ndarray,
    scores: np.ndarray,
    threshold: float,
    groups: Sequence[str] | np.ndarray | None = None,
) -> OperatingPoint:
    """Applies a threshold that was chosen on other images.

    Args:
      positive: bool [n].
      scores: float [n], on the scale of `threshold`.
      groups: [n], of each image; None: each is a group of its own.
    """
    positive, called = np.asarray(positive, bool), np.asarray(scores) >= threshold
    groups = np.arange(len(positive)) if groups is None else np.asarray(groups)

    def share(hits: np.ndarray, among: np.ndarray) -> Interval:
        return grouped_share(hits[among], groups[among])

    return OperatingPoint(
        threshold=threshold,
        sensitivity=share(called, positive),
        specificity=share(~called, ~positive),
        ppv=share(positive, called),
        npv=share(~positive, ~called),
    )


def _shares(priors: np.ndarray, name: str) -> np.ndarray:
    shares = np.asarray(priors, np.float64)
    if (shares < 0).any() or not shares.sum() > 0:
        raise ValueError(f"{name}: shares must not be negative, nor all 0")
    return shares / shares.sum()
