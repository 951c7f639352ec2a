"""Which images belong together, and why: copies, then whatever else must share a split.

Columns of numbers, one entry a source file; of 20 million images each costs what its type says
times 20 million, so no column is held longer than it is needed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Protocol

import numpy as np

from beam_pipelines.settings.config import BuildConfig
from cxr_tfrecords import near_duplicates, splits
from cxr_tfrecords.errors import UserError

# Why an image is tied to others, as bits.
TIES = {"pixels": 1, "near": 2, "group": 4}
# What became of an image, index into `FATES`; the first two are the common ones.
WRITTEN, REJECTED, COPY, CONFLICT, UNBALANCED, TORN = range(6)
SET_ASIDE = (COPY, CONFLICT, UNBALANCED, TORN)
FATES = (
    "",
    "",  # the inspection's own reason
    "copy of an image that is written (--dedup=drop)",
    "copies of it lie in other classes (--label_conflicts=drop)",
    "left out to balance its split (--balance_splits)",
    "it ties images of two splits together (--append)",
)


class Columns(Protocol):
    """What a plan needs of the inspected files; `parts.Parts` has it."""

    def __len__(self) -> int: ...
    def numbers(self, column: str) -> np.ndarray: ...
    def digests(self, column: str) -> np.ndarray: ...
    def strings(self, column: str, rows: np.ndarray) -> list[str]: ...


@dataclasses.dataclass(frozen=True)
class Settled:
    """The leading rows of a plan that are in a data set already, and stay as they are.

    Attributes:
      fate: uint8 [rows], see `FATES`.
      groups: uint64 [rows, 2], their groups' ids.
      shards: (split, label) -> number of shards.
    """

    fate: np.ndarray
    groups: np.ndarray
    shards: Mapping[tuple[str, int], int]

    def __len__(self) -> int:
        return len(self.fate)


NOTHING_SETTLED = Settled(np.zeros(0, np.uint8), np.zeros((0, 2), np.uint64), {})


def find_groups(
    columns: Columns, usable: np.ndarray, config: BuildConfig
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Finds what ties images together.

    Args:
      usable: bool [rows], the files that are images.

    Returns:
      Copies and groups, int32 [rows] each (the first row of its component), and ties, uint8
      [rows], see `TIES`.
    """
    count = len(usable)
    ties = np.zeros(count, np.uint8)
    if config.dedup == "off":
        alone = np.arange(count, dtype=np.int32)
        return alone, alone, ties

    def tie(kind: str, pairs: np.ndarray) -> np.ndarray:
        ties[pairs.ravel()] |= TIES[kind]
        return pairs

    # One column at a time, so that a single one is in memory. Sources that differ but become
    # one picture at the stored size would leak between splits all the same.
    pairs = [
        tie("pixels", splits.same_value_pairs(columns.digests(name), usable))
        for name in ("pixels", "stored")
    ]
    if config.near_distance >= 0:
        near = near_duplicates.near_pairs(columns.digests("near"), config.near_distance, usable)
        # Identical pixels have equal hashes too: they are told as what they are.
        known = splits.connect(count, *pairs)
        pairs.append(tie("near", near[known[near[:, 0]] != known[near[:, 1]]]))
        del known
    copies = splits.connect(count, *pairs)
    for name in ("tie", "patient"):
        given = columns.digests(name)
        valid = given.any(axis=1)
        valid &= usable
        if valid.any():
            pairs.append(tie("group", splits.same_value_pairs(given, valid)))
    grown = len(pairs) > 2 + (config.near_distance >= 0)
    return copies, splits.connect(count, *pairs) if grown else copies, ties


def conflicting(copies: np.ndarray, labels: np.ndarray, usable: np.ndarray) -> np.ndarray:
    """First rows of the copies of one image that lie in more than one class."""
    differs = usable & (labels != labels[copies])
    return np.unique(copies[differs])


def settle_conflicts(
    columns: Columns,
    copies: np.ndarray,
    conflicts: np.ndarray,
    fate: np.ndarray,
    new: np.ndarray,
    config: BuildConfig,
) -> None:
    """Applies --label_conflicts to the new images; what is settled stays.

    Raises:
      UserError: it is `error`, and there is one.
    """
    if not len(conflicts) or config.label_conflicts == "keep":
        return
    involved = np.isin(copies, conflicts) & (fate == WRITTEN) & new
    conflicts = np.unique(copies[involved])
    if not len(conflicts):
        return
    if config.label_conflicts == "error":
        first = np.flatnonzero(copies == conflicts[0])[:4]
        raise UserError(
            f"{len(conflicts)} images lie in more than one class, first "
            f"{', '.join(columns.strings('filename', first))}: mend their labels, or say what to "
            "do with --label_conflicts=keep or drop; nothing was written"
        )
    fate[involved] = CONFLICT


def set_torn_aside(
    groups: np.ndarray, given: np.ndarray, fate: np.ndarray, settled: Settled
) -> np.ndarray:
    """Sets new images aside that tie groups of two splits together; returns the groups without
    them.

    Args:
      given: int8 [rows], index of the split that a row has or must get, or -1.
    """
    first = len(settled)
    seen = np.zeros((len(groups), len(splits.SPLITS)), bool)
    placed = np.flatnonzero(given >= 0)
    seen[groups[placed], given[placed]] = True
    torn = (seen.sum(axis=1) > 1)[groups]
    before = splits.connect(first, splits.same_value_pairs(settled.groups))
    alone = np.concatenate([before, np.arange(first, len(groups), dtype=np.int32)])
    fate[first:][torn[first:] & (fate[first:] == WRITTEN)] = TORN
    return np.where(torn, alone, groups)


def make_group_keys(groups: np.ndarray, keys: np.ndarray, settled: Settled) -> np.ndarray:
    """Turns the images' keys, uint64 [rows, 2], into their groups' ids, in place: that of a
    settled member, else the smallest key."""
    tied = np.flatnonzero((np.bincount(groups, minlength=1) > 1)[groups])
    # By group, then key: the first of each run is the smallest.
    order = tied[np.lexsort((keys[tied, 1], keys[tied, 0], groups[tied]))]
    starts = np.flatnonzero(np.diff(groups[order], prepend=-1))
    lengths = np.diff(starts, append=len(order))
    keys[order] = np.repeat(keys[order[starts]], lengths, axis=0)
    if len(settled):
        # A group's number is its first row's: a settled one, wherever it has one.
        keys[: len(settled)] = settled.groups
        joined = np.flatnonzero(groups < len(settled))
        joined = joined[joined >= len(settled)]
        keys[joined] = settled.groups[groups[joined]]
    return keys
