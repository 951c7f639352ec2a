"""What a plan refuses: too many files that cannot be used, a class without an image in a split."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence

import numpy as np

from beam_pipelines.planning.grouping import (
    GROUP_REASONS,
    OUTCOME_REASONS,
    REJECTED,
    WRITTEN,
    Columns,
)
from beam_pipelines.settings.config import BuildConfig
from cxr_tfrecords.errors import UserError


def sufficient_fraction(rejected: int, count: int) -> float:
    """The smallest --max_bad_fraction of two digits that lets `rejected` of `count` files pass."""
    percents = range(100 * rejected // count, 100)
    return next((p / 100 for p in percents if rejected <= p / 100 * count), 1.0)


def check_rejected(
    columns: Columns, outcome: np.ndarray, max_bad_fraction: float, num_existing: int
) -> None:
    """Raises UserError where too many of the new files cannot be used."""
    rejected = np.flatnonzero(outcome[num_existing:] == REJECTED) + num_existing
    count = len(outcome) - num_existing
    if len(rejected) <= max_bad_fraction * count:
        return
    names, reasons = (columns.strings(c, rejected[:5]) for c in ("filename", "reason"))
    shown = "".join(f"\n  {n}: {r}" for n, r in zip(names, reasons, strict=True))
    more = f"\n  … and {len(rejected) - 5} more" if len(rejected) > 5 else ""
    remedy = "correct or remove them"
    if all(os.strerror(errno.ENOENT) in reason for reason in reasons):
        remedy = "the paths in a list of images start at --input_dir: correct it or the list"
    if len(rejected) < count:  # else nothing would be left
        fraction = sufficient_fraction(len(rejected), count)
        remedy += f", or leave them out with --max_bad_fraction={fraction}"
    raise UserError(
        f"{len(rejected)} of {count} files cannot be used, more than "
        f"--max_bad_fraction={max_bad_fraction}:{shown}{more}\n{remedy}; no shard was written"
    )


def check_usable(
    class_names: Sequence[str], columns: Columns, labels: np.ndarray, outcome: np.ndarray
) -> None:
    """Raises UserError where no file of a class can be written."""
    for label, name in enumerate(class_names):
        rows = np.flatnonzero(labels == label)
        if (outcome[rows] == WRITTEN).any():
            continue
        shown = ""
        if len(rows):
            (file,), (reason,) = (columns.strings(c, rows[:1]) for c in ("filename", "reason"))
            shown = f", such as {file} ({OUTCOME_REASONS[outcome[rows[0]]] or reason})"
        raise UserError(
            f"class {name!r}: none of its {len(rows)} files can be used{shown}: correct them, or "
            "remove the class; no shard was written"
        )


def check_splits(
    class_names: Sequence[str],
    labels: np.ndarray,
    split: np.ndarray,
    outcome: np.ndarray,
    groups: np.ndarray,
    group_reasons: np.ndarray,
    given: np.ndarray,
    config: BuildConfig,
    notes: Sequence[str],
) -> None:
    """Raises UserError where a class has no image in one of the splits."""
    written = outcome == WRITTEN
    flags = "--folds" if config.folds else "--test_fraction, --validation_fraction"
    remedy = f"add images, remove the class, or change {flags} or --seed"
    if (given[written] >= 0).all():
        remedy = "the given splits decide: correct them, or ignore them with --splits=own"
    for label, name in enumerate(class_names):
        for number, split_name in enumerate(config.split_names):
            of_class = labels == label
            usable = written & of_class
            if not (usable & (split == number)).any():
                united = _describe_groups(groups[usable], group_reasons[usable])
                raise UserError(
                    f"class {name!r} has no image in the {split_name} split "
                    f"({usable.sum()} usable of {of_class.sum()} files{united}): {remedy}; "
                    + "\n".join(["no shard was written", *notes])
                )


def _describe_groups(groups: np.ndarray, reasons: np.ndarray) -> str:
    """How few groups a class's images form, which are never divided; '' if all are alone."""
    count = len(np.unique(groups))
    if count == len(groups):
        return ""
    kind = "copies or of patients" if (reasons & GROUP_REASONS["group"]).any() else "copies"
    return f"; its {len(groups)} images form {count} group{'s' * (count > 1)} of {kind}"
