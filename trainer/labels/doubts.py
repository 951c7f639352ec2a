"""Finds doubtful labels: copies of one image under two labels, and contradictions of predictions.

Predictions are judged by confident learning (Northcutt, Jiang and Chuang, "Confident Learning:
Estimating Uncertainty in Dataset Labels", 2021), by the package cleanlab.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence

import numpy as np
from cleanlab.filter import find_label_issues
from cleanlab.rank import get_label_quality_scores

from cxr_tfrecords import csv_rows
from cxr_tfrecords.files import replacing
from trainer.labels.out_of_fold import OutOfFold


@dataclasses.dataclass(frozen=True)
class Doubt:
    """An image whose label is doubtful.

    Attributes:
      row: of the predictions.
      suggested: class index: the most probable one; of copies under several labels, the most
        probable of these labels, by the mean over the copies, so that one copy keeps its label.
      self_confidence: probability of the given class.
      is_copy: whether a copy of the image has another label, which is certain.
      prediction_rank: from 1, among the labels that predictions contradict; None: they do not.
    """

    row: int
    suggested: int
    self_confidence: float
    is_copy: bool
    prediction_rank: int | None


def find_doubts(given: OutOfFold, copies: Collection[Sequence[str]] = ()) -> list[Doubt]:
    """All doubtful labels: copies under several labels first, then by rising self-confidence.

    Args:
      copies: names of images that are copies of each other, of each such image; names that were
        not predicted are left out.
    """
    labels, probabilities = given.labels, given.probabilities
    confidence = get_label_quality_scores(labels, probabilities, method="self_confidence")
    contradicted = find_label_issues(
        labels, probabilities, return_indices_ranked_by="self_confidence", n_jobs=1
    )
    ranks = {int(row): number for number, row in enumerate(contradicted, 1)}
    rows_of = {name: row for row, name in enumerate(given.ids)}
    found = []
    for names in copies:
        rows = [rows_of[name] for name in names if name in rows_of]
        classes = np.unique(labels[rows])
        if len(classes) > 1:
            best = classes[probabilities[rows].mean(axis=0)[classes].argmax()]
            found.append((sorted(rows, key=lambda row: confidence[row]), int(best)))
    found.sort(key=lambda one: confidence[one[0][0]])
    suggested = {row: best for rows, best in found for row in rows}
    order = [*suggested, *(row for row in ranks if row not in suggested)]
    return [
        Doubt(
            row,
            suggested.get(row, int(probabilities[row].argmax())),
            float(confidence[row]),
            row in suggested,
            ranks.get(row),
        )
        for row in order
    ]


def count_pairs(given: OutOfFold, doubts: Sequence[Doubt]) -> list[tuple[int, int, int]]:
    """(given class, most probable class, images) of labels that predictions contradict, most
    first."""
    classes = len(given.class_names)
    counts = np.zeros((classes, classes), np.int64)
    for one in doubts:
        if one.prediction_rank is not None:
            counts[given.labels[one.row], int(given.probabilities[one.row].argmax())] += 1
    pairs = [(a, b, int(counts[a, b])) for a, b in np.argwhere(counts).tolist()]
    return sorted(pairs, key=lambda pair: -pair[2])


def write_doubts(path: str, given: OutOfFold, doubts: Sequence[Doubt]) -> None:
    """Writes label_doubts.csv, a row for each doubt, in their order."""
    names = given.class_names
    with (
        replacing(path) as temporary,
        csv_rows.open_csv(temporary, "w") as file,
    ):
        writer = csv_rows.writer(file)
        columns = ["rank", "filename", "given", "suggested", "self_confidence"]
        columns += ["copy_has_other_label", "prediction_rank", "group"]
        writer.writerow([*columns, *(f"probability_{name}" for name in names)])
        for rank, one in enumerate(doubts, 1):
            values = [f"{value:.6f}" for value in given.probabilities[one.row]]
            writer.writerow(
                [
                    rank,
                    given.ids[one.row],
                    names[given.labels[one.row]],
                    names[one.suggested],
                    f"{one.self_confidence:.6f}",
                    int(one.is_copy),
                    one.prediction_rank or "",
                    given.groups[one.row],
                    *values,
                ]
            )
