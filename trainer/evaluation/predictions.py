"""Predictions of a split, every example exactly once: made, stored, read back and scored."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from cxr_tfrecords import csv_rows
from cxr_tfrecords.errors import UserError
from cxr_tfrecords.files import replacing
from trainer.evaluation.metrics import weighted_metrics


@dataclasses.dataclass(frozen=True)
class Predictions:
    """A model's answers on a split, in the split's canonical order.

    Attributes:
      ids: image ids, n of them.
      labels: int32 [n], true classes.
      logits: float32 [n, classes].
      groups: group ids, n of them: images that were kept in one split (near-duplicates, those of
        a patient), the unit that a bootstrap draws. Empty: each image is a group of its own.
    """

    ids: list[str]
    labels: np.ndarray
    logits: np.ndarray
    groups: list[str] = dataclasses.field(default_factory=list)

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

    def subset(self, kept: np.ndarray) -> Predictions:
        """The images of `kept`, bool [n]; `groups` is never empty."""
        at, groups = np.flatnonzero(kept), self.groups or self.ids
        return Predictions(
            [self.ids[i] for i in at],
            self.labels[at],
            self.logits[at],
            [groups[i] for i in at],
        )


def collect(
    answers: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]], counts: Sequence[int]
) -> np.ndarray:
    """float32 [n, outputs], the model's answer to each example, in the split's order.

    Args:
      answers: for each batch of B rows the outputs, float32 [B, outputs]; the labels, int32 [B];
        and the index of each row in the split, int32 [B], which is -1 for padding.
      counts: examples of each class in the metadata; the split's order is by class.

    Raises:
      RuntimeError: an example is missing, comes twice or has another label than the metadata say:
        a bug of this package, not a user's mistake.
    """
    expected = labels_in_order(counts)
    outputs = np.zeros((len(expected), 0), np.float32)
    seen = np.zeros(len(expected), np.int64)
    for batch_outputs, labels, index in answers:
        if not outputs.shape[1]:
            outputs = np.zeros((len(expected), batch_outputs.shape[1]), np.float32)
        real = index >= 0
        rows = index[real]
        outputs[rows] = batch_outputs[real]
        np.add.at(seen, rows, 1)
        if not np.array_equal(labels[real], expected[rows]):
            raise RuntimeError("labels read for evaluation differ from the metadata's order")
    if not (seen == 1).all():
        raise RuntimeError(
            f"evaluation saw {int((seen == 1).sum())} of {len(seen)} examples exactly once"
        )
    return outputs


def labels_in_order(counts: Sequence[int]) -> np.ndarray:
    """int32 [n], the labels of a split whose classes have so many examples."""
    return np.repeat(np.arange(len(counts), dtype=np.int32), counts)


def compute_metrics(predictions: Predictions, class_names: Sequence[str]) -> dict[str, Any]:
    """Metrics of a split, from its predictions alone.

    Returns:
      The names of `metrics.OVERALL`, confusion_matrix [true][predicted] and per_class {name: the
      names of `metrics.PER_CLASS`}; `metrics.weighted_metrics` defines them. An undefined metric is
      None, such as the AUROC of a class that is absent or the precision of one never predicted.
    """
    once = np.ones((1, len(predictions.labels)), np.int32)
    arrays = weighted_metrics(predictions.labels, predictions.log_probabilities, once)
    # The same sum as during training: in another order the last bit would differ.
    return arrays.report(class_names) | {"log_loss": predictions.loss}


def write_predictions(path: str, predictions: Predictions, class_names: Sequence[str]) -> None:
    """Writes a CSV file: id, label, class, logit_<class>…, probability_<class>…, group.

    Every float32 is written with as many digits as are needed to read the same value back.
    """
    header = ["id", "label", "class"]
    header += [f"logit_{name}" for name in class_names]
    header += [*(f"probability_{name}" for name in class_names), "group"]
    probabilities = predictions.probabilities.astype(np.float32)
    with (
        replacing(path) as temporary,
        csv_rows.open_csv(temporary, "w") as file,
    ):
        writer = csv_rows.writer(file)
        writer.writerow(header)
        groups = predictions.groups or predictions.ids
        for row, (identity, group, label) in enumerate(
            zip(predictions.ids, groups, predictions.labels, strict=True)
        ):
            values = (*predictions.logits[row], *probabilities[row])
            writer.writerow([identity, label, class_names[label], *map(str, values), group])


def read_predictions(path: str, counts: Sequence[int] | None = None) -> Predictions:
    """Reads what `write_predictions` wrote, bit for bit; `groups` is never empty.

    Args:
      counts: images of each class in the split, which the file must hold; None: not known.

    Raises:
      UserError: no such file, or not one of predictions, or it was changed or cut short.
    """
    try:
        with csv_rows.open_csv(path) as file:
            text = file.read()
        reader = csv_rows.dict_reader(io.StringIO(text, newline=""))
        columns = [name for name in reader.fieldnames or () if name.startswith("logit_")]
        rows = list(reader)
        if not columns or not rows:
            raise ValueError("no logits")
        read = Predictions(
            [row["id"] for row in rows],
            np.array([int(row["label"]) for row in rows], np.int32),
            np.array([[np.float32(row[name]) for name in columns] for row in rows], np.float32),
            [row["group"] for row in rows],
        )
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; is its run finished?") from error
    except (KeyError, TypeError, ValueError, OverflowError, csv.Error) as error:
        raise UserError(
            f"{path} is not a file of predictions ({error}): name a run directory of trainer.main"
        ) from error
    problem = _problem(read, counts)
    if problem or not text.endswith("\n"):
        raise UserError(
            f"{path} was changed or cut short ({problem or 'its last line has no end'}): restore "
            "it, or delete its run directory and train the run again"
        )
    return read


def _problem(read: Predictions, counts: Sequence[int] | None) -> str:
    """What predictions of a whole file cannot be; empty if nothing is wrong."""
    rows, classes = read.logits.shape
    finite = np.isfinite(read.logits).all(axis=1)
    if not finite.all():
        return f"a logit in row {int(finite.argmin()) + 1} is not a finite number"
    if counts is not None and (rows, classes) != (sum(counts), len(counts)):
        return (
            f"it has {rows:,} images of {classes} classes, the split {sum(counts):,} of "
            f"{len(counts)}"
        )
    if counts is not None and not np.array_equal(read.labels, labels_in_order(counts)):
        return "its labels are not those of the split"
    if read.labels.min() < 0 or read.labels.max() >= classes:
        return f"a label is not one of 0 to {classes - 1}"
    if None in read.groups:
        return "a row has no group"
    return "an image comes twice" if len(set(read.ids)) < rows else ""
