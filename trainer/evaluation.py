"""Exact evaluation: every example of a split once, metrics from the stored predictions."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import sklearn.metrics

from cxr_tfrecords.errors import UserError
from cxr_tfrecords.files import replacing


@dataclasses.dataclass(frozen=True)
class Predictions:
    """A model's answers on a split, in the split's canonical order.

    Attributes:
      ids: image ids, n of them.
      labels: int32 [n], true classes.
      logits: float32 [n, classes].
    """

    ids: list[str]
    labels: np.ndarray
    logits: np.ndarray

    @property
    def log_probabilities(self) -> np.ndarray:
        """float64 [n, classes], logarithm of the softmax of the logits."""
        logits = self.logits.astype(np.float64)
        logits -= logits.max(axis=1, keepdims=True)
        return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))

    @property
    def probabilities(self) -> np.ndarray:
        """float64 [n, classes], softmax of the logits."""
        return np.exp(self.log_probabilities)

    @property
    def loss(self) -> float:
        """Mean cross-entropy in nats."""
        return float(-self.log_probabilities[np.arange(len(self.labels)), self.labels].mean())


def predict(
    predict_step: Callable[[tuple], tuple],
    batches: Iterable,
    counts: Sequence[int],
    ids: list[str] | None = None,
) -> Predictions:
    """Runs a split through the model and puts each row where its index says.

    Args:
      predict_step: see `steps.make_predict_step`.
      batches: distributed (images, labels, weights, index), padded rows with index -1.
      counts: examples of each class in the metadata; the split's order is by class.
      ids: of the examples in that order; None leaves them empty (between epochs nobody asks).

    Raises:
      RuntimeError: a row is missing, comes twice or has another label than the metadata say.
        Padding and masking are ours, so this is a bug and not a user's mistake.
    """
    expected = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    logits = np.zeros((len(expected), len(counts)), np.float32)
    seen = np.zeros(len(expected), np.int64)
    for batch in batches:
        batch_logits, labels, index = (tensor.numpy() for tensor in predict_step(batch))
        real = index >= 0
        rows = index[real]
        logits[rows] = batch_logits[real]
        np.add.at(seen, rows, 1)
        if not np.array_equal(labels[real], expected[rows]):
            raise RuntimeError("labels read for evaluation differ from the metadata's order")
    if not (seen == 1).all():
        raise RuntimeError(
            f"evaluation saw {int((seen == 1).sum())} of {len(seen)} examples exactly once"
        )
    return Predictions(ids or [""] * len(expected), expected, logits)


def compute_metrics(predictions: Predictions, class_names: Sequence[str]) -> dict[str, Any]:
    """Metrics of a split, by scikit-learn, from nothing but its predictions.

    Returns:
      accuracy, balanced_accuracy (mean recall), log_loss (nats), auroc_macro,
      confusion_matrix [true][predicted] and per_class {name: precision, recall, specificity,
      f1, auroc (one against the rest), support}. What is undefined is None (AUROC with a single
      class present) or 0 (precision of a class that is never predicted).
    """
    labels, probabilities = predictions.labels, predictions.probabilities
    predicted = predictions.logits.argmax(axis=1)
    classes = np.arange(len(class_names))
    confusion = sklearn.metrics.confusion_matrix(labels, predicted, labels=classes)
    precision, recall, f1, support = sklearn.metrics.precision_recall_fscore_support(
        labels, predicted, labels=classes, zero_division=0
    )
    auroc = [_auroc(labels == c, probabilities[:, c]) for c in classes]
    defined = [value for value in auroc if value is not None]
    negatives = len(labels) - support
    false_positives = confusion.sum(axis=0) - np.diag(confusion)
    specificity = (negatives - false_positives) / np.maximum(negatives, 1)
    return {
        "accuracy": float(sklearn.metrics.accuracy_score(labels, predicted)),
        "balanced_accuracy": float(recall[support > 0].mean()),
        "log_loss": predictions.loss,
        "auroc_macro": float(np.mean(defined)) if defined else None,
        "confusion_matrix": confusion.tolist(),
        "per_class": {
            name: {
                "precision": float(precision[c]),
                "recall": float(recall[c]),
                "specificity": float(specificity[c]),
                "f1": float(f1[c]),
                "auroc": auroc[c],
                "support": int(support[c]),
            }
            for c, name in enumerate(class_names)
        },
    }


def write_predictions(path: str, predictions: Predictions, class_names: Sequence[str]) -> None:
    """Writes a CSV file: id, label, class, logit_<class>…, probability_<class>….

    Every float32 is written with as many digits as reading it back needs.
    """
    header = ["id", "label", "class"]
    header += [f"logit_{name}" for name in class_names]
    header += [f"probability_{name}" for name in class_names]
    probabilities = predictions.probabilities.astype(np.float32)
    with (
        replacing(path) as temporary,
        open(temporary, "w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        for row, (identity, label) in enumerate(
            zip(predictions.ids, predictions.labels, strict=True)
        ):
            values = (*predictions.logits[row], *probabilities[row])
            writer.writerow([identity, label, class_names[label], *map(str, values)])


def read_predictions(path: str) -> Predictions:
    """Reads what `write_predictions` wrote, bit for bit.

    Raises:
      UserError: no such file, or not one of predictions.
    """
    try:
        with open(path, newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            columns = [name for name in reader.fieldnames or () if name.startswith("logit_")]
            rows = list(reader)
        if not columns or not rows:
            raise ValueError("no logits")
        return Predictions(
            [row["id"] for row in rows],
            np.array([int(row["label"]) for row in rows], np.int32),
            np.array([[np.float32(row[name]) for name in columns] for row in rows], np.float32),
        )
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is not a file of predictions ({error})") from error


def _auroc(positive: np.ndarray, scores: np.ndarray) -> float | None:
    if positive.all() or not positive.any():
        return None
    return float(sklearn.metrics.roc_auc_score(positive, scores))
