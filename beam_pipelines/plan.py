"""Between the passes: which image goes to which split and shard.

Everything is a column of numbers, one entry a source file in the order of file names: as
objects, millions of them would take ten times the memory.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np

from beam_pipelines.config import BuildConfig
from cxr_tfrecords import dataset_dir, near_duplicates, splits
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
class Shard:
    """One shard: its file name, split, label and the rows of its images in writing order."""

    file: str
    split: str
    label: int
    class_name: str
    rows: np.ndarray


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


@dataclasses.dataclass(frozen=True)
class BuildPlan:
    """The whole build, decided before the first shard is written.

    Attributes:
      class_names, class_slugs: label order.
      labels: int32 [rows]; fate: uint8 [rows], see `FATES`.
      groups: int64 [rows], the first row of the group; ties: uint8 [rows], see `TIES`.
      split: uint8 [rows], index into splits.SPLITS, where the fate is WRITTEN.
      group_keys: uint64 [rows, 2], the group's id.
      conflicts: int64, groups whose copies lie in several classes.
      shards: to be written, by split, label, number.
      settled: number of leading rows that a data set had before, see `Settled`.
    """

    class_names: tuple[str, ...]
    class_slugs: tuple[str, ...]
    labels: np.ndarray
    fate: np.ndarray
    groups: np.ndarray
    ties: np.ndarray
    split: np.ndarray
    group_keys: np.ndarray
    conflicts: np.ndarray
    shards: tuple[Shard, ...]
    settled: int = 0

    def counts(self) -> dict[str, dict[str, int]]:
        """split -> class name -> number of images, the settled ones included."""
        written = self.fate == WRITTEN
        width = len(self.class_names)
        cells = self.split[written].astype(np.int64) * width + self.labels[written]
        table = np.bincount(cells, minlength=len(splits.SPLITS) * width).reshape(-1, width)
        return {
            split: dict(zip(self.class_names, row.tolist(), strict=True))
            for split, row in zip(splits.SPLITS, table, strict=True)
        }

    def group_id(self, row: int) -> str:
        """32 hex digits, the same for all images that must share a split."""
        return self.group_keys[row].tobytes().hex()

    def tied_by(self, row: int) -> str:
        """`pixels+near`: why the image shares its group; empty where it is alone."""
        return "+".join(name for name, bit in TIES.items() if self.ties[row] & bit)


def plan_build(
    class_names: Sequence[str],
    columns: Columns,
    config: BuildConfig,
    max_bad_fraction: float,
    settled: Settled = NOTHING_SETTLED,
) -> BuildPlan:
    """Groups, splits and shards the images that passed inspection.

    Args:
      settled: of the first `len(settled)` rows of the columns.

    Raises:
      UserError: too many files were rejected, copies contradict each other, or a class is left
        without an image in a split.
    """
    labels = columns.numbers("label")
    fate = np.where(columns.numbers("length") > 0, WRITTEN, REJECTED).astype(np.uint8)
    _check_rejected(columns, fate, max_bad_fraction, len(settled))
    copies, groups, ties = _find_groups(columns, fate == WRITTEN, config)
    fate[: len(settled)] = settled.fate
    new = np.arange(len(fate)) >= len(settled)
    conflicts = _conflicting(copies, labels, fate != REJECTED)
    _settle_conflicts(columns, copies, conflicts, fate, new, config)
    if config.dedup == "drop":
        fate[new & (fate == WRITTEN) & (copies != np.arange(len(fate)))] = COPY
    given = columns.numbers("split")
    if len(settled):
        groups = _set_torn_aside(groups, given, fate, settled)
    keys = columns.digests("pixels")
    split = _split(columns, groups, keys, labels, fate, given, config)
    _balance(split, labels, keys, fate, config)
    class_slugs = dataset_dir.slugs(class_names)
    _check_splits(class_names, labels, split, fate)
    to_write = new & (fate == WRITTEN)
    shards = _plan_shards(class_names, class_slugs, labels, split, keys, to_write, config, settled)
    return BuildPlan(
        class_names=tuple(class_names),
        class_slugs=class_slugs,
        labels=labels,
        fate=fate,
        groups=groups,
        ties=ties,
        split=split,
        group_keys=_group_keys(groups, keys, settled),
        conflicts=conflicts,
        shards=tuple(shards),
        settled=len(settled),
    )


def _find_groups(
    columns: Columns, usable: np.ndarray, config: BuildConfig
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Copies and groups, int64 [rows] each (the first row of its component), and why."""
    count = len(usable)
    ties = np.zeros(count, np.uint8)
    if config.dedup == "off":
        alone = np.arange(count)
        return alone, alone.copy(), ties

    def tie(kind: str, pairs: np.ndarray) -> np.ndarray:
        ties[pairs.ravel()] |= TIES[kind]
        return pairs

    # One column at a time, so that a single one is in memory. Sources that differ but become
    # one picture at the stored size would leak between splits all the same.
    pairs = [
        tie("pixels", splits.same_value_pairs(columns.digests(name), valid=usable))
        for name in ("pixels", "stored")
    ]
    if config.near_distance >= 0:
        rows = np.flatnonzero(usable)
        hashes = columns.digests("near")[rows]
        near = rows[near_duplicates.near_pairs(hashes, config.near_distance)]
        del hashes
        # Identical pixels have equal hashes too: they are told as what they are.
        known = splits.connect(count, *pairs)
        pairs.append(tie("near", near[known[near[:, 0]] != known[near[:, 1]]]))
    copies = splits.connect(count, *pairs)
    for name in ("tie", "patient"):
        given = columns.digests(name)
        same = splits.same_value_pairs(given, valid=usable & given.any(axis=1))
        pairs.append(tie("group", same))
    return copies, splits.connect(count, *pairs), ties


def _conflicting(copies: np.ndarray, labels: np.ndarray, usable: np.ndarray) -> np.ndarray:
    """First rows of the copies of one image that lie in more than one class."""
    differs = usable & (labels != labels[copies])
    return np.unique(copies[differs])


def _settle_conflicts(
    columns: Columns,
    copies: np.ndarray,
    conflicts: np.ndarray,
    fate: np.ndarray,
    new: np.ndarray,
    config: BuildConfig,
) -> None:
    """Applies --label_conflicts to the new images; what is settled stays."""
    involved = np.isin(copies, conflicts) & (fate == WRITTEN) & new
    conflicts = np.unique(copies[involved])
    if not len(conflicts) or config.label_conflicts == "keep":
        return
    if config.label_conflicts == "error":
        first = np.flatnonzero(copies == conflicts[0])[:4]
        raise UserError(
            f"{len(conflicts)} images lie in more than one class, first "
            f"{', '.join(columns.strings('filename', first))}: mend their labels, or say what to "
            "do with --label_conflicts=keep or drop; nothing was written"
        )
    fate[involved] = CONFLICT


def _set_torn_aside(
    groups: np.ndarray, given: np.ndarray, fate: np.ndarray, settled: Settled
) -> np.ndarray:
    """Sets new images aside that tie groups of two splits together; returns the groups without
    them. `given`: index of the split that a row has or must get, or -1."""
    seen = np.zeros((len(groups), len(splits.SPLITS)), bool)
    placed = np.flatnonzero(given >= 0)
    seen[groups[placed], given[placed]] = True
    torn = (seen.sum(axis=1) > 1)[groups]
    before = splits.connect(len(settled), splits.same_value_pairs(settled.groups))
    alone = np.concatenate([before, np.arange(len(settled), len(groups))])
    fate[len(settled) :][torn[len(settled) :] & (fate[len(settled) :] == WRITTEN)] = TORN
    return np.where(torn, alone, groups)


def _split(
    columns: Columns,
    groups: np.ndarray,
    keys: np.ndarray,
    labels: np.ndarray,
    fate: np.ndarray,
    given: np.ndarray,
    config: BuildConfig,
) -> np.ndarray:
    """uint8 [rows], index into splits.SPLITS; of no meaning where the fate is not WRITTEN."""
    rows = np.flatnonzero(fate == WRITTEN)
    given = given[rows]
    # Groups are numbered anew: what was a group's first row may have been set aside.
    _, first, inverse = np.unique(groups[rows], return_index=True, return_inverse=True)
    try:
        assigned = splits.assign_splits(
            first[inverse],
            keys[rows],
            labels[rows],
            method=config.split,
            test_fraction=config.test_fraction,
            validation_fraction=config.validation_fraction,
            seed=config.seed,
            fixed=given if (given >= 0).any() else None,
        )
    except splits.ContradictoryGroupsError as error:
        members = rows[first[inverse] == error.groups[0]][:4]
        raise UserError(
            f"the given splits leak: {len(error.groups)} groups of copies or of one patient lie in "
            f"two of them, first {', '.join(columns.strings('filename', members))}. Mend the "
            "column `split`, or leave the groups out of account with --dedup=off; nothing was "
            "written"
        ) from error
    split = np.zeros(len(fate), np.uint8)
    split[rows] = assigned
    return split


def _balance(
    split: np.ndarray, labels: np.ndarray, keys: np.ndarray, fate: np.ndarray, config: BuildConfig
) -> None:
    """Cuts every class of the chosen splits to the smallest, by salted order."""
    for name in config.balance_splits:
        here = np.flatnonzero((fate == WRITTEN) & (split == splits.SPLITS.index(name)))
        counts = np.bincount(labels[here], minlength=int(labels.max()) + 1)
        order = here[np.argsort(splits.salted(keys[here], config.seed, "balance"), kind="stable")]
        for label in np.flatnonzero(counts):
            fate[order[labels[order] == label][counts.min() :]] = UNBALANCED


def _group_keys(groups: np.ndarray, keys: np.ndarray, settled: Settled) -> np.ndarray:
    """uint64 [rows, 2], ids of groups: that of a settled member, else the smallest key."""
    result = keys[_smallest_member(groups, keys)]
    if len(settled):
        result[: len(settled)] = settled.groups
        # A group's number is its first row's: a settled one, wherever it has one.
        joined = groups < len(settled)
        result[joined] = result[groups[joined]]
        result[: len(settled)] = settled.groups
    return result


def _smallest_member(groups: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """int64 [rows], for each the row of its group with the smallest key."""
    result = groups.copy()
    tied = np.flatnonzero(np.bincount(groups, minlength=len(groups))[groups] > 1)
    # By group, then key: the first of each run is the smallest.
    order = tied[np.lexsort((keys[tied, 1], keys[tied, 0], groups[tied]))]
    starts = np.flatnonzero(np.diff(groups[order], prepend=-1))
    lengths = np.diff(starts, append=len(order))
    result[order] = np.repeat(order[starts], lengths)
    return result


def _plan_shards(
    class_names: Sequence[str],
    class_slugs: Sequence[str],
    labels: np.ndarray,
    split: np.ndarray,
    keys: np.ndarray,
    written: np.ndarray,
    config: BuildConfig,
    settled: Settled,
) -> Iterator[Shard]:
    for number, name in enumerate(splits.SPLITS):
        for label, class_name in enumerate(class_names):
            rows = np.flatnonzero(written & (split == number) & (labels == label))
            # Salted order: any one shard is a random sample of its class, on every runner.
            order = np.argsort(splits.salted(keys[rows], config.seed, "order"), kind="stable")
            rows = rows[order]
            total = config.num_shards or -(-len(rows) // config.shard_size)
            total = min(total, len(rows))
            if not total:
                continue
            first = settled.shards.get((name, label), 0)
            for shard, part in enumerate(np.array_split(rows, total), start=first):
                file = dataset_dir.shard_name(name, class_slugs[label], shard, first + total)
                yield Shard(file, name, label, class_name, part)


def _check_rejected(
    columns: Columns, fate: np.ndarray, max_bad_fraction: float, settled: int
) -> None:
    rejected = np.flatnonzero(fate[settled:] == REJECTED) + settled
    count = len(fate) - settled
    if len(rejected) <= max_bad_fraction * count:
        return
    names, reasons = (columns.strings(c, rejected[:5]) for c in ("filename", "reason"))
    shown = "".join(f"\n  {n}: {r}" for n, r in zip(names, reasons, strict=True))
    more = f"\n  … and {len(rejected) - 5} more" if len(rejected) > 5 else ""
    raise UserError(
        f"{len(rejected)} of {count} files cannot be used, more than "
        f"--max_bad_fraction={max_bad_fraction}:{shown}{more}\n"
        "mend or remove them, or allow more with --max_bad_fraction; nothing was written"
    )


def _check_splits(
    class_names: Sequence[str], labels: np.ndarray, split: np.ndarray, fate: np.ndarray
) -> None:
    written = fate == WRITTEN
    for label, name in enumerate(class_names):
        for number, split_name in enumerate(splits.SPLITS):
            own = labels == label
            if not (written & own & (split == number)).any():
                raise UserError(
                    f"class {name!r} has no image in the {split_name} split "
                    f"({(written & own).sum()} usable of {own.sum()} files): add images, remove "
                    "the folder, or change --test_fraction / --validation_fraction / --seed; "
                    "nothing was written"
                )


def describe_fates(plan: BuildPlan) -> dict[str, int]:
    """Reason -> number of images that are whole but set aside."""
    counts = {FATES[f]: int((plan.fate == f).sum()) for f in SET_ASIDE}
    return {reason: count for reason, count in counts.items() if count}
