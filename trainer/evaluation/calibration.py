"""Probabilities put right after training: temperature, priors; and thresholds chosen beforehand.

Everything is fitted on validation and applied, frozen, to test. Probabilities travel as
log-probabilities, float64 [n, classes], like `Predictions.log_probabilities`.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import scipy.optimize
from scipy.special import log_softmax

from trainer.evaluation.bootstrap import Interval
from trainer.evaluation.paired_tests import wilson

# A temperature outside means classes that validation parts perfectly: any sharper is better.
_TEMPERATURES = (0.01, 100.0)


@dataclasses.dataclass(frozen=True)
class ReliabilityCurve:
    """Bins of about equal mass, by rising probability.

    Attributes:
      predicted: float64 [bins], mean predicted probability.
      observed: float64 [bins], share of positives, with Wilson's 95% interval low to high.
      count: int [bins], images.
    """

    predicted: np.ndarray
    observed: np.ndarray
    low: np.ndarray
    high: np.ndarray
    count: np.ndarray


@dataclasses.dataclass(frozen=True)
class OperatingPoint:
    """What a fixed threshold does; each with Wilson's 95% interval.

    Attributes:
      threshold: an image is called positive from this score on.
      sensitivity, specificity: of positives and negatives.
      ppv, npv: of images called positive and negative; they hold at this set's prevalence.
    """

    threshold: float
    sensitivity: Interval
    specificity: Interval
    ppv: Interval
    npv: Interval


def fit_temperature(labels: np.ndarray, log_probabilities: np.ndarray) -> float:
    """Temperature that gives the least cross-entropy (Guo et al. 2017, sec. 4.2).

    Above 1 the model was too sure. Fit on validation; order and accuracy do not change.

    Args:
      labels: integer [n].
      log_probabilities: float64 [n, classes]; logits do as well.
    """
    labels = np.asarray(labels)
    logits = np.asarray(log_probabilities, np.float64)

    def loss(log_temperature: float) -> float:
        scaled = log_softmax(logits * np.exp(-log_temperature), axis=1)
        return float(-scaled[np.arange(len(labels)), labels].mean())

    # The loss has one minimum in 1/T, hence one in log T, whose scale suits the search better.
    low, high = np.log(_TEMPERATURES)
    result = scipy.optimize.minimize_scalar(
        loss, bounds=(low, high), method="bounded", options={"xatol": 1e-6}
    )
    return float(np.exp(result.x))


def correct_priors(
    log_probabilities: np.ndarray, from_priors: np.ndarray, to_priors: np.ndarray
) -> np.ndarray:
    """Posteriors at other class shares (Saerens et al. 2002, eq. 2.4), no retraining.

    Holds where only the shares change and not what a class looks like. After balanced training:
    from the shares of the training stream to those of the deployment (or of the natural data).

    Args:
      log_probabilities: float64 [n, classes].
      from_priors: float [classes], shares in what the model was fitted to; any scale.
      to_priors: float [classes], shares where it is used; 0 rules a class out.

    Raises:
      ValueError: a share is negative, or one of `from_priors` is 0 (the model knows no such class).
    """
    old, new = _shares(from_priors, "from_priors"), _shares(to_priors, "to_priors")
    if (old == 0).any():
        raise ValueError("from_priors: every class needs a share above 0")
    with np.errstate(divide="ignore"):
        return log_softmax(log_probabilities + np.log(new) - np.log(old), axis=1)


def reliability_curve(
    positive: np.ndarray, probabilities: np.ndarray, bins: int = 10
) -> ReliabilityCurve:
    """Observed shares against predicted ones, in bins of equal mass (Nguyen and O'Connor 2015).

    Equal probabilities stay in one bin, so there may be fewer bins than asked for.

    Args:
      positive: bool [n].
      probabilities: float [n], predicted for "positive".
    """
    order = np.argsort(probabilities, kind="stable")
    ranked, hits = np.asarray(probabilities)[order], np.asarray(positive, bool)[order]
    edges = np.linspace(0, len(ranked), min(bins, len(ranked)) + 1).round().astype(int)
    starts = np.unique(np.searchsorted(ranked, ranked[edges[:-1]])) if len(ranked) else edges[:0]
    count = np.diff(np.r_[starts, len(ranked)])
    found = np.add.reduceat(hits, starts, dtype=int)
    shares = [wilson(k, n) for k, n in zip(found, count, strict=True)]
    return ReliabilityCurve(
        predicted=np.add.reduceat(ranked, starts) / count,
        observed=np.array([share.estimate for share in shares], np.float64),
        low=np.array([share.low for share in shares], np.float64),
        high=np.array([share.high for share in shares], np.float64),
        count=count,
    )


def choose_threshold(positive: np.ndarray, scores: np.ndarray, sensitivity: float) -> float | None:
    """Highest threshold that finds at least this share of the positives: choose on validation.

    Args:
      positive: bool [n].
      scores: float [n], the class's probability or anything that rises with it.

    Returns:
      None without positives.
    """
    found = np.sort(np.asarray(scores)[np.asarray(positive, bool)])[::-1]
    if not len(found):
        return None
    # 0.95 * 20 is 19.000000000000004 in floating point or not: a hair must not ask for 20 of 20.
    needed = max(1, int(np.ceil(sensitivity * len(found) - 1e-9)))
    return float(found[min(needed, len(found)) - 1])


def operating_point(positive: np.ndarray, scores: np.ndarray, threshold: float) -> OperatingPoint:
    """What a threshold that was chosen elsewhere does on these images.

    Args:
      positive: bool [n].
      scores: float [n], on the scale of `threshold`.
    """
    positive, called = np.asarray(positive, bool), np.asarray(scores) >= threshold
    hits, rests = int((positive & called).sum()), int((~positive & ~called).sum())
    return OperatingPoint(
        threshold=threshold,
        sensitivity=wilson(hits, int(positive.sum())),
        specificity=wilson(rests, int((~positive).sum())),
        ppv=wilson(hits, int(called.sum())),
        npv=wilson(rests, int((~called).sum())),
    )


def _shares(priors: np.ndarray, name: str) -> np.ndarray:
    shares = np.asarray(priors, np.float64)
    if (shares < 0).any() or not shares.sum() > 0:
        raise ValueError(f"{name}: shares must not be negative, and not all 0")
    return shares / shares.sum()
