"""Every metric of a split as a function of image weights, so that a resample is a weight vector.

    weighted_metrics(labels, log_probabilities, np.ones((1, n)))        # the split itself
    weighted_metrics(labels, log_probabilities, group_weights(...))     # all of a bootstrap

An image of weight w counts as w images. Scores are sorted once for all resamples; metrics of the
confusion matrix are matrix products. 4,233 images x 1,000 resamples take some seconds.
An undefined metric (AUROC without positives, precision of a class never predicted) is NaN.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.special import logsumexp

from trainer.evaluation.calibration_line import recalibration_line
from trainer.evaluation.ranked_areas import areas, descending, pooled, ratio

OVERALL = (
    "accuracy",
    "balanced_accuracy",
    "macro_f1",
    "mcc",
    "auroc_macro",
    "auprc_macro",
    "log_loss",
    "brier",
    "ece",
)
PER_CLASS = (
    "precision",
    "recall",
    "specificity",
    "f1",
    "auroc",
    "auprc",
    "brier",
    "calibration_intercept",
    "calibration_slope",
    "support",
)
# Besides, calibration_intercept is best at 0 and calibration_slope at 1.
LOWER_IS_BETTER = ("log_loss", "brier", "ece")
ECE_BINS = 15
# Weights of a chunk of resamples times images: 8 MiB as float64, so that work stays in the cache.
_CHUNK = 2**20

# Overall metrics, float64 [b], and those by class, float64 [b, classes].
ByName = tuple[dict[str, np.ndarray], dict[str, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class MetricArrays:
    """Metrics of b weight vectors.

    Attributes:
      overall: name of `OVERALL` -> float64 [b].
      per_class: name of `PER_CLASS` -> float64 [b, classes].
      labels, predicted: integer [n], classes of the images that count.
      weights: [b, n], of these images.
    """

    overall: dict[str, np.ndarray]
    per_class: dict[str, np.ndarray]
    labels: np.ndarray
    predicted: np.ndarray
    weights: np.ndarray

    def confusion(self, row: int = 0) -> np.ndarray:
        """float64 [classes, classes] of one weight vector, rows are true classes. Of all of them it
        would be 4 GB with 2,000 resamples of 500 classes."""
        classes = self.per_class["recall"].shape[1]
        counts = np.bincount(
            self.labels * classes + self.predicted, self.weights[row], minlength=classes**2
        )
        return counts.reshape(classes, classes)

    def flat(self, class_names: Sequence[str]) -> dict[str, np.ndarray]:
        """Name -> float64 [b]; a class's metrics are called `recall/COVID`."""
        flat = dict(self.overall)
        for name, values in self.per_class.items():
            flat |= {f"{name}/{c}": values[:, i] for i, c in enumerate(class_names)}
        return flat

    def report(self, class_names: Sequence[str], row: int = 0) -> dict[str, Any]:
        """One row as JSON values: the overall metrics, confusion_matrix and per_class; undefined
        metrics are None. Sums of whole weights are integers."""
        counts = self.confusion(row)
        counts = counts if (counts % 1).any() else counts.astype(int)
        per_class: dict[str, dict[str, Any]] = {
            class_name: {name: _plain(values[row, c]) for name, values in self.per_class.items()}
            for c, class_name in enumerate(class_names)
        }
        for values, support in zip(per_class.values(), counts.sum(axis=1).tolist(), strict=True):
            values["support"] = support
        return {
            **{name: _plain(values[row]) for name, values in self.overall.items()},
            "confusion_matrix": counts.tolist(),
            "per_class": per_class,
        }


def weighted_metrics(
    labels: np.ndarray,
    log_probabilities: np.ndarray,
    weights: np.ndarray,
    *,
    lines: bool = True,
) -> MetricArrays:
    """All metrics for many weight vectors.

    accuracy, balanced_accuracy (mean recall), macro_f1 and mcc (Gorodkin 2004, eq. 8) and the
    metrics by class of the same names come from the class of the highest probability. auroc, auprc
    (average precision, without interpolation) and the calibration line (see `calibration_line`) are
    of one class against all others; the macro forms are their means over classes.
    log_loss is in nats. brier is the mean sum over classes of (probability - outcome)^2, from 0 to
    2 (Brier 1950); by class it is that class's part. ece is the mean distance between confidence
    (highest probability) and accuracy over `ECE_BINS` bins of equal mass (Guo et al. 2017, with
    the bins of Nguyen and O'Connor 2015): noise raises it, so that of a small split is too high.

    Means over classes are over the classes of the images that any weight vector counts; a class
    that is only predicted is in none of them. They are NaN for a weight vector (a resample) that
    gives one of these classes no weight, since a mean over fewer classes is another quantity.

    Args:
      labels: integer [n], true classes.
      log_probabilities: float64 [n, classes].
      weights: [b, n], how much each image counts, 0 or more, whole or not; NaN gives NaN.
      lines: False leaves out (NaN) the calibration lines, which take most of the time.
    """
    weights = np.atleast_2d(weights)
    # Images that never count are left out: their true class may have the probability 0, whose
    # logarithm times a weight of 0 would be NaN.
    counted = (weights != 0).any(axis=0)
    weights, labels = weights[:, counted], np.asarray(labels)[counted]
    log_probabilities = np.asarray(log_probabilities, np.float64)[counted]
    rows = max(1, _CHUNK // max(1, len(labels)))
    scores = _Scores.prepare(labels, log_probabilities)
    parts = [
        _chunk_metrics(scores, weights[i : i + rows].astype(np.float64), lines)
        for i in range(0, len(weights), rows)
    ]
    return MetricArrays(
        {name: np.concatenate([part[0][name] for part in parts]) for name in OVERALL},
        {name: np.concatenate([part[1][name] for part in parts]) for name in PER_CLASS},
        labels,
        log_probabilities.argmax(axis=1),
        weights,
    )


def log_odds(log_probabilities: np.ndarray) -> np.ndarray:
    """float64 [n, classes], log p / (1 - p), exact where p rounds to 1; infinite if p is 0 or 1.

    Args:
      log_probabilities: float64 [n, classes], classes >= 2.
    """
    rows = np.arange(len(log_probabilities))
    highest = log_probabilities.argmax(axis=1)
    others = np.array(log_probabilities, np.float64)
    others[rows, highest] = -np.inf
    with np.errstate(divide="ignore"):
        # Without a class at least half of the sum is left, except without the highest.
        shares = np.exp(log_probabilities)
        rest = np.log(shares.sum(axis=1, keepdims=True) - shares)
        rest[rows, highest] = logsumexp(others, axis=1)
    return log_probabilities - rest


@dataclasses.dataclass(frozen=True)
class _Scores:
    """What is the same for all resamples, so that sorting and logarithms are done once."""

    truth: np.ndarray  # bool [n, classes]
    predicted: np.ndarray  # bool [n, classes]
    probabilities: np.ndarray  # float64 [n, classes]
    losses: np.ndarray  # float64 [n], nats
    log_odds: np.ndarray  # float64 [n, classes]
    orders: list[tuple[np.ndarray, np.ndarray]]  # by class, see `descending`
    confidence: tuple[np.ndarray, np.ndarray]

    @classmethod
    def prepare(cls, labels: np.ndarray, log_probabilities: np.ndarray) -> _Scores:
        n, classes = log_probabilities.shape
        predicted = log_probabilities.argmax(axis=1)
        # Log-odds have the order of probabilities, and still differ where those round to 1.
        odds = log_odds(log_probabilities)
        return cls(
            truth=labels[:, np.newaxis] == np.arange(classes),
            predicted=predicted[:, np.newaxis] == np.arange(classes),
            probabilities=np.exp(log_probabilities),
            losses=-log_probabilities[np.arange(n), labels],
            log_odds=odds,
            orders=[descending(odds[:, c]) for c in range(classes)],
            confidence=descending(log_probabilities.max(axis=1)),
        )


def _chunk_metrics(scores: _Scores, weights: np.ndarray, lines: bool) -> ByName:
    classes = scores.truth.shape[1]
    total = weights.sum(axis=1)
    overall, per_class = _share_metrics(
        weights @ (scores.truth & scores.predicted),
        weights @ scores.truth,
        weights @ scores.predicted,
    )
    for name in ("auroc", "auprc", "calibration_intercept", "calibration_slope"):
        per_class[name] = np.full((len(weights), classes), np.nan)
    for c in range(classes):
        order, starts = scores.orders[c]
        ranked, truth = weights[:, order], scores.truth[order, c]
        per_class["auroc"][:, c], per_class["auprc"][:, c] = areas(ranked, truth, starts)
        if lines:
            line = recalibration_line(truth, scores.log_odds[order, c], ranked)
            per_class["calibration_intercept"][:, c], per_class["calibration_slope"][:, c] = line
    errors = (scores.probabilities - scores.truth) ** 2
    with np.errstate(invalid="ignore"):
        per_class["brier"] = weights @ errors / total[:, np.newaxis]
        overall["log_loss"] = weights @ scores.losses / total
    overall["brier"] = per_class["brier"].sum(axis=1)
    overall["ece"] = _calibration_error(scores, weights)
    lost = (per_class["support"][:, scores.truth.any(axis=0)] == 0).any(axis=1)
    for name, of in (("auroc_macro", "auroc"), ("auprc_macro", "auprc")):
        overall[name] = _mean(per_class[of], axis=1)
    for name in ("balanced_accuracy", "macro_f1", "auroc_macro", "auprc_macro"):
        overall[name] = np.where(lost, np.nan, overall[name])
    return overall, per_class


def confusion_metrics(counts: np.ndarray) -> ByName:
    """Metrics of confusion matrices alone: overall ones [b], where means over classes are over
    those that have images, and those by class [b, classes].

    Args:
      counts: [b, classes, classes], rows are true classes.
    """
    counts = np.asarray(counts, np.float64)
    return _share_metrics(
        np.diagonal(counts, axis1=1, axis2=2), counts.sum(axis=2), counts.sum(axis=1)
    )


def _share_metrics(hits: np.ndarray, support: np.ndarray, predicted: np.ndarray) -> ByName:
    """See `confusion_metrics`. Args: float64 [b, classes]: images of a class that are predicted as
    it, images of it, and images predicted as it."""
    total = support.sum(axis=1)
    rest = total[:, np.newaxis] - support
    per_class = {
        "precision": ratio(hits, predicted),
        "recall": ratio(hits, support),
        "specificity": ratio(rest - (predicted - hits), rest),
        "f1": ratio(2 * hits, support + predicted),
        "support": support,
    }
    shares = [ratio(n, total[:, np.newaxis]) for n in (support, predicted)]
    accuracy = ratio(hits.sum(axis=1), total)
    # If all is one class it is 0, up to a rounding error, by which nothing may be divided.
    spread = np.array([1 - (share**2).sum(axis=1) for share in shares])
    spread[np.abs(spread) < 1e-12] = 0
    overall = {
        "accuracy": accuracy,
        "balanced_accuracy": _mean(per_class["recall"], axis=1),
        "macro_f1": _mean(np.where(support > 0, per_class["f1"], np.nan), axis=1),
        "mcc": ratio(accuracy - np.prod(shares, axis=0).sum(axis=1), np.sqrt(spread.prod(axis=0))),
    }
    return overall, per_class


def _calibration_error(scores: _Scores, weights: np.ndarray) -> np.ndarray:
    """ECE over bins of equal weight. An image (or a run of equal scores) across an edge is divided
    between both bins in proportion, so that the order of images does not matter."""
    order, starts = scores.confidence
    confidence = scores.probabilities.max(axis=1)[order]
    correct = (scores.truth & scores.predicted).any(axis=1)[order]
    ranked = weights[:, order]
    gap = pooled(ranked * (confidence - correct), starts).cumsum(axis=1)
    mass = pooled(ranked, starts).cumsum(axis=1)
    gap, mass = (np.pad(values, ((0, 0), (1, 0))) for values in (gap, mass))
    shares = np.linspace(0, 1, ECE_BINS + 1)
    edges = np.array([np.interp(m[-1] * shares, m, g) for m, g in zip(mass, gap, strict=True)])
    return ratio(np.abs(np.diff(edges, axis=1)).sum(axis=1), mass[:, -1])


def _mean(values: np.ndarray, axis: int) -> np.ndarray:
    """Mean of the defined values; NaN if there is none."""
    defined = ~np.isnan(values)
    return ratio(np.where(defined, values, 0).sum(axis=axis), defined.sum(axis=axis))


def _plain(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
