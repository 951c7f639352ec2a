"""Between the passes: which image goes to which split and shard.

Everything is a column of numbers, one entry a source file in the order of file names: as
objects, millions of them would take ten times the memory.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from beam_pipelines.planning import grouping
from beam_pipelines.planning.grouping import (
    COPY,
    FATES,
    NOTHING_SETTLED,
    REJECTED,
    SET_ASIDE,
    TIES,
    UNBALANCED,
    WRITTEN,
    Columns,
    Settled,
)
from beam_pipelines.settings.config import BuildConfig
from cxr_tfrecords import dataset_dir, splits
from cxr_tfrecords.errors import UserError


@dataclasses.dataclass(frozen=True)
class Shard:
    """One shard: its file name, split, label and the rows of its images in writing order."""

    file: str
    split: str
    label: int
    class_name: str
    rows: np.ndarray


@dataclasses.dataclass(frozen=True)
class BuildPlan:
    """The whole build, decided before the first shard is written.

    Attributes:
      class_names, class_slugs: label order.
      labels: int32 [rows]; fate: uint8 [rows], see `FATES`.
      groups: int32 [rows], the first row of the group; ties: uint8 [rows], see `TIES`.
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
        return {
            split: {
                name: int(np.count_nonzero(written & (self.split == s) & (self.labels == label)))
                for label, name in enumerate(self.class_names)
            }
            for s, split in enumerate(splits.SPLITS)
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
    copies, groups, ties = grouping.find_groups(columns, fate == WRITTEN, config)
    fate[: len(settled)] = settled.fate
    new = np.ones(len(fate), bool)
    new[: len(settled)] = False
    conflicts = grouping.conflicting(copies, labels, fate != REJECTED)
    grouping.settle_conflicts(columns, copies, conflicts, fate, new, config)
    if config.dedup == "drop":
        fate[new & (fate == WRITTEN) & (copies != np.arange(len(fate)))] = COPY
    given = columns.numbers("split")
    if len(settled):
        groups = grouping.set_torn_aside(groups, given, fate, settled)
    keys = columns.digests("pixels")
    split = _split(columns, groups, keys, labels, fate, given, config)
    _balance(split, labels, keys, fate, config)
    class_slugs = dataset_dir.slugs(class_names)
    _check_splits(class_names, labels, split, fate)
    to_write = new & (fate == WRITTEN)
    shards = tuple(
        _plan_shards(class_names, class_slugs, labels, split, keys, to_write, config, settled)
    )
    return BuildPlan(
        class_names=tuple(class_names),
        class_slugs=class_slugs,
        labels=labels,
        fate=fate,
        groups=groups,
        ties=ties,
        split=split,
        group_keys=grouping.make_group_keys(groups, keys, settled),
        conflicts=conflicts,
        shards=shards,
        settled=len(settled),
    )


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
    if len(rows) < len(fate):
        # Groups are numbered anew: what was a group's first row may have been set aside.
        _, first, inverse = np.unique(groups[rows], return_index=True, return_inverse=True)
        groups, keys, labels = first[inverse], keys[rows], labels[rows]
        given = given[rows]
    try:
        assigned = splits.assign_splits(
            groups,
            keys,
            labels,
            method=config.split,
            test_fraction=config.test_fraction,
            validation_fraction=config.validation_fraction,
            seed=config.seed,
            fixed=given if (given >= 0).any() else None,
        )
    except splits.ContradictoryGroupsError as error:
        members = rows[groups == error.groups[0]][:4]
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
            rows = np.flatnonzero(written & (split == number) & (labels == label)).astype(np.int32)
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
