"""What models say of images that they were not trained on: the test folds of cross-validation."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from cxr_tfrecords.errors import UserError
from trainer.comparison.method_grid import find_runs
from trainer.comparison.methods import Entry, group_runs, score_entry


@dataclasses.dataclass(frozen=True)
class OutOfFold:
    """One method's predictions of all n test images, each by models that have not seen it.

    Attributes:
      entry: the method's runs.
      ids: names of the images, n of them.
      labels: int32 [n], given classes.
      groups: group ids, n of them: copies of an image have the same.
      probabilities: float64 [n, classes], rows sum to 1: corrected to the natural class shares
        (Saerens et al. 2002), the mean over seeds.
    """

    entry: Entry
    ids: list[str]
    labels: np.ndarray
    groups: list[str]
    probabilities: np.ndarray

    @property
    def class_names(self) -> list[str]:
        return self.entry.runs[0].class_names

    @property
    def accuracy(self) -> float:
        """Share of images whose most probable class is the given one."""
        return float((self.probabilities.argmax(axis=1) == self.labels).mean())

    @property
    def folds(self) -> tuple[int, ...]:
        """The test folds; empty for a data set without folds."""
        folds = {run.config.fold for run in self.entry.runs}
        return tuple(sorted(fold for fold in folds if fold is not None))

    @property
    def is_whole(self) -> bool:
        """Whether every image of the data set was in a test fold."""
        return 0 < len(self.folds) == self.entry.runs[0].dataset.get("folds", 0)


def read_out_of_fold(patterns: Sequence[str]) -> OutOfFold:
    """Reads the test predictions of finished runs.

    Args:
      patterns: of run directories, as in --runs.

    Raises:
      UserError: no run is finished, runs are of several methods or data sets, or a seed lacks a
        fold that another run has.
    """
    entries = group_runs(find_runs(patterns, folds=False))
    if len(entries) > 1:
        names = ", ".join(entry.name for entry in entries)
        raise UserError(
            f"--runs={','.join(patterns)} matches runs of several methods ({names}): name those of "
            "one, as --runs='STUDY/runs/*-none-fold*'"
        )
    scored = score_entry(entries[0], None)
    first = scored.predictions[0]
    for other in scored.predictions:
        if other.ids != first.ids or not np.array_equal(other.labels, first.labels):
            raise UserError(
                "--runs: the seeds were tested on different images, so their predictions have no "
                "mean: name the runs of one --fold, or of all folds"
            )
    return OutOfFold(
        entries[0],
        first.ids,
        first.labels,
        first.groups,
        np.mean([np.exp(one) for one in scored.variants["prior_corrected"]], axis=0),
    )
