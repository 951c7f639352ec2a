"""Which images must share a split, and why: copies first, then patients and given groups.

Columns of numbers, one entry for each source file. A column of 20 million entries is large, so none
is kept in memory longer than needed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Protocol

import numpy as np

from beam_pipelines.settings.config import BuildConfig
from cxr_tfrecords import near_duplicates, splits
from cxr_tfrecords.errors import UserError

# Why an image shares a group with others, one bit for each reason.
GROUP_REASONS = {"pixels": 1, "near": 2, "group": 4}
LARGE_GROUP = 0.1  # share of all images in one group above which a warning says so
# What became of an image, index into `OUTCOME_REASONS`, the texts in sources.csv.
WRITTEN, REJECTED, COPY, CONFLICT, UNBALANCED, JOINS_SPLITS, LEAKS = range(7)
SET_ASIDE = (COPY, CONFLICT, UNBALANCED, JOINS_SPLITS, LEAKS)
OUTCOME_REASONS = (
    "",
    "",  # the inspection's own reason
    "copy of an image that is written (--dedup=drop)",
    "copies of it lie in other classes (--label_conflicts=drop)",
    "left out to balance its split (--balance_splits)",
    "it ties images of two splits together (--append)",
    "a copy of it, or its patient, is in the given test or validation split "
    "(--given_leaks=drop_from_train)",
)


class Columns(Protocol):
    """What a plan needs of the inspected files; `parts.Parts` has it."""

    def __len__(self) -> int: ...
    def numbers(self, column: str) -> np.ndarray: ...
    def digests(self, column: str) -> np.ndarray: ...
    def strings(self, column: str, rows: np.ndarray) -> list[str]: ...


@dataclasses.dataclass(frozen=True)
class ExistingPlan:
    """The leading rows of a plan that are in a data set already, and stay as they are.

    Attributes:
      outcome: uint8 [rows], see `OUTCOME_REASONS`.
      groups: uint64 [rows, 2], their groups' ids.
      shards: (split, label) -> number of shards.
    """

    outcome: np.ndarray
    groups: np.ndarray
    shards: Mapping[tuple[str, int], int]

    def __len__(self) -> int:
        return len(self.outcome)


NO_EXISTING_PLAN = ExistingPlan(np.zeros(0, np.uint8), np.zeros((0, 2), np.uint64), {})


def find_groups(
    columns: Columns, usable: np.ndarray, config: BuildConfig
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Finds the images that must share a split, and why.

    Args:
      usable: bool [rows], the files that are images.

    Returns:
      Copies and groups, int32 [rows] each (the first row of an image's set of copies, and of its
      group), and the reasons for its group, uint8 [rows], see `GROUP_REASONS`.
    """
    count = len(usable)
    reasons = np.zeros(count, np.uint8)
    if config.dedup == "off":
        alone = np.arange(count, dtype=np.int32)
        return alone, alone, reasons

    def noted(reason: str, pairs: np.ndarray) -> np.ndarray:
        reasons[pairs.ravel()] |= GROUP_REASONS[reason]
        return pairs

    # One column at a time, so that a single one is in memory. Sources that differ but become
    # one picture at the stored size would leak between splits all the same.
    pairs = [
        noted("pixels", splits.same_value_pairs(columns.digests(name), usable))
        for name in ("pixels", "stored")
    ]
    if config.near_distance >= 0:
        near = near_duplicates.near_pairs(columns.digests("near"), config.near_distance, usable)
        # Identical pixels have equal hashes too: their reason stays `pixels` alone.
        identical = splits.connect(count, *pairs)
        pairs.append(noted("near", near[identical[near[:, 0]] != identical[near[:, 1]]]))
        del identical
    copies = splits.connect(count, *pairs)
    for name in ("tie", "patient"):
        given = columns.digests(name)
        valid = given.any(axis=1)
        valid &= usable
        if valid.any():
            pairs.append(noted("group", splits.same_value_pairs(given, valid)))
    has_given_groups = len(pairs) > 2 + (config.near_distance >= 0)
    return copies, splits.connect(count, *pairs) if has_given_groups else copies, reasons


def has_ids(columns: Columns) -> bool:
    """Whether a table or a DICOM file names a patient, or the like."""
    return any(columns.digests(name).any() for name in ("tie", "patient"))


def find_label_conflicts(copies: np.ndarray, labels: np.ndarray, usable: np.ndarray) -> np.ndarray:
    """First rows of the copies of one image that lie in more than one class."""
    differs = usable & (labels != labels[copies])
    return np.unique(copies[differs])


def apply_label_conflicts(
    columns: Columns,
    copies: np.ndarray,
    conflicts: np.ndarray,
    outcome: np.ndarray,
    new: np.ndarray,
    config: BuildConfig,
) -> None:
    """Applies --label_conflicts to the new images; images written earlier stay.

    Raises:
      UserError: it is `error`, and there is one.
    """
    if not len(conflicts) or config.label_conflicts == "keep":
        return
    involved = np.isin(copies, conflicts) & (outcome == WRITTEN) & new
    conflicts = np.unique(copies[involved])
    if not len(conflicts):
        return
    if config.label_conflicts == "error":
        first = np.flatnonzero(copies == conflicts[0])[:4]
        raise UserError(
            f"{len(conflicts)} images lie in more than one class, first "
            f"{', '.join(columns.strings('filename', first))}: mend their labels, or say what to "
            "do with --label_conflicts=keep or drop; no shard was written"
        )
    outcome[involved] = CONFLICT


def apply_given_leaks(
    columns: Columns,
    groups: np.ndarray,
    given: np.ndarray,
    outcome: np.ndarray,
    new: np.ndarray,
    config: BuildConfig,
) -> np.ndarray:
    """Applies --given_leaks to the groups that lie in two given splits.

    Of such a group, the new images of the last split (test before validation before train) stay,
    and those of the others are set aside, so that the published test split stays whole.

    Args:
      given: int8 [rows], index of the given split, or -1.
      new: bool [rows], images that no data set holds yet.

    Returns:
      `given`, with -1 for the images that are set aside now.

    Raises:
      UserError: --given_leaks is `refuse`, there is such a group, and all images are new.
    """
    placed = np.flatnonzero((given >= 0) & (outcome == WRITTEN))
    last = np.full(len(groups), -1, given.dtype)
    np.maximum.at(last, groups[placed], given[placed])
    leaks = placed[(given[placed] < last[groups[placed]]) & new[placed]]
    if not len(leaks):
        return given
    if config.given_leaks == "drop_from_train":
        outcome[leaks] = LEAKS
        given = given.copy()
        given[leaks] = -1
    elif new.all():
        torn = np.unique(groups[leaks])
        members = placed[groups[placed] == torn[0]][:4]
        drop = "leave the training ones out with --given_leaks=drop_from_train, "
        raise UserError(
            f"the given splits leak: {len(torn)} groups of copies or of one patient lie in two of "
            f"them, first {', '.join(columns.strings('filename', members))}. "
            f"{'' if config.folds else drop}correct the given splits, ignore them with "
            "--splits=own, or ignore the groups with --dedup=off; no shard was written"
        )
    return given


def set_aside_copies(copies: np.ndarray, outcome: np.ndarray, new: np.ndarray) -> None:
    """--dedup=drop: of the copies of an image, only the first that is written stays."""
    written = np.flatnonzero(outcome == WRITTEN)
    first = written[np.unique(copies[written], return_index=True)[1]]
    later = new & (outcome == WRITTEN)
    later[first] = False
    outcome[later] = COPY


def warn_of_large_groups(columns: Columns, usable: np.ndarray) -> list[str]:
    """Warnings of patients or given groups that unite more than `LARGE_GROUP` of all images."""
    warnings = []
    for name, source in (("tie", "given group"), ("patient", "PatientID of DICOM files")):
        values = columns.digests(name)
        rows = np.flatnonzero(values.any(axis=1) & usable)
        if not len(rows):
            continue
        _, inverse, counts = np.unique(values[rows, 0], return_inverse=True, return_counts=True)
        largest = int(counts.argmax())
        count, total = int(counts[largest]), int(usable.sum())
        if count > max(LARGE_GROUP * total, 2):
            first = columns.strings("filename", rows[inverse == largest][:2])
            warnings.append(
                f"warning: one {source} unites {count:,} of {total:,} images (more than "
                f"{LARGE_GROUP:.0%}), such as {' and '.join(first)}: if it names nobody, empty it "
                "in the table, or use --nopatient_ids for DICOM files"
            )
    return warnings


def set_aside_joining_splits(
    groups: np.ndarray,
    given: np.ndarray,
    outcome: np.ndarray,
    existing: ExistingPlan,
    num_splits: int,
) -> np.ndarray:
    """Sets new images aside that would join groups of two splits; returns the groups without
    them.

    Args:
      given: int8 [rows], index of the split that a row has or must get, or -1.
    """
    first = len(existing)
    seen = np.zeros((len(groups), num_splits), bool)
    placed = np.flatnonzero(given >= 0)
    seen[groups[placed], given[placed]] = True
    joining = (seen.sum(axis=1) > 1)[groups]
    before = splits.connect(first, splits.same_value_pairs(existing.groups))
    alone = np.concatenate([before, np.arange(first, len(groups), dtype=np.int32)])
    outcome[first:][joining[first:] & (outcome[first:] == WRITTEN)] = JOINS_SPLITS
    return np.where(joining, alone, groups)


def make_group_keys(groups: np.ndarray, keys: np.ndarray, existing: ExistingPlan) -> np.ndarray:
    """Turns the images' keys, uint64 [rows, 2], into their groups' ids, in place: that of a
    member that was there before --append, else the smallest key."""
    rows = np.flatnonzero((np.bincount(groups, minlength=1) > 1)[groups])
    # By group, then key: the first of each run is the smallest.
    order = rows[np.lexsort((keys[rows, 1], keys[rows, 0], groups[rows]))]
    starts = np.flatnonzero(np.diff(groups[order], prepend=-1))
    lengths = np.diff(starts, append=len(order))
    keys[order] = np.repeat(keys[order[starts]], lengths, axis=0)
    if len(existing):
        # A group's number is its first row: an existing one, wherever the group has one.
        keys[: len(existing)] = existing.groups
        joined = np.flatnonzero(groups < len(existing))
        joined = joined[joined >= len(existing)]
        keys[joined] = existing.groups[groups[joined]]
    return keys
