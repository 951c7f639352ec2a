"""Between the passes: which image goes to which split and shard.

Everything is a column of numbers, one entry for each source file in the order of file names:
millions of objects would take ten times the memory.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from beam_pipelines.planning import grouping, plan_checks
from beam_pipelines.planning.grouping import (
    GROUP_REASONS,
    NO_EXISTING_PLAN,
    OUTCOME_REASONS,
    REJECTED,
    SET_ASIDE,
    UNBALANCED,
    WRITTEN,
    Columns,
    ExistingPlan,
)
from beam_pipelines.settings.config import BuildConfig
from cxr_tfrecords import dataset_dir, splits, tfds_metadata


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
      labels: int32 [rows]; outcome: uint8 [rows], see `OUTCOME_REASONS`.
      groups: int32 [rows], the first row of the group; group_reasons:
        uint8 [rows], see `GROUP_REASONS`.
      split_names: train, validation, test, or the folds.
      split: uint8 [rows], index into `split_names`, where the outcome is WRITTEN.
      group_keys: uint64 [rows, 2], the group's id.
      conflicts: int64, groups whose copies lie in several classes.
      shards: to be written, by split, label, number.
      published: int8 [rows], index of the given split, or -1.
      notes: what the user should know of the plan.
      num_existing: number of leading rows that a data set had before, see `ExistingPlan`.
    """

    class_names: tuple[str, ...]
    class_slugs: tuple[str, ...]
    split_names: tuple[str, ...]
    labels: np.ndarray
    outcome: np.ndarray
    groups: np.ndarray
    group_reasons: np.ndarray
    split: np.ndarray
    group_keys: np.ndarray
    conflicts: np.ndarray
    shards: tuple[Shard, ...]
    published: np.ndarray
    notes: tuple[str, ...] = ()
    num_existing: int = 0

    def counts(self) -> dict[str, dict[str, int]]:
        """split -> class name -> number of images, those written before --append included."""
        written = self.outcome == WRITTEN
        return {
            split: {
                name: int(np.count_nonzero(written & (self.split == s) & (self.labels == label)))
                for label, name in enumerate(self.class_names)
            }
            for s, split in enumerate(self.split_names)
        }

    def group_id(self, row: int) -> str:
        """32 hex digits, the same for all images that must share a split."""
        return self.group_keys[row].tobytes().hex()

    def tied_by(self, row: int) -> str:
        """`pixels+near`: why the image shares its group; empty where it is alone."""
        return "+".join(
            name for name, bit in GROUP_REASONS.items() if self.group_reasons[row] & bit
        )


def plan_build(
    class_names: Sequence[str],
    columns: Columns,
    config: BuildConfig,
    max_bad_fraction: float,
    existing: ExistingPlan = NO_EXISTING_PLAN,
) -> BuildPlan:
    """Groups, splits and shards the images that passed inspection.

    Args:
      existing: plan of the first `len(existing)` rows of the columns, which stays as it is.

    Raises:
      UserError: too many files were rejected, copies contradict each other, or a class is left
        without an image in a split.
    """
    labels = columns.numbers("label")
    outcome = np.where(columns.numbers("length") > 0, WRITTEN, REJECTED).astype(np.uint8)
    plan_checks.check_rejected(columns, outcome, max_bad_fraction, len(existing))
    copies, groups, reasons = grouping.find_groups(columns, outcome == WRITTEN, config)
    notes = (
        [] if config.dedup == "off" else grouping.warn_of_large_groups(columns, outcome == WRITTEN)
    )
    outcome[: len(existing)] = existing.outcome
    new = np.ones(len(outcome), bool)
    new[: len(existing)] = False
    conflicts = grouping.find_label_conflicts(copies, labels, outcome != REJECTED)
    grouping.apply_label_conflicts(columns, copies, conflicts, outcome, new, config)
    published = columns.numbers("split")
    given = grouping.apply_given_leaks(columns, groups, published, outcome, new, config)
    if config.dedup == "drop":
        grouping.set_aside_copies(copies, outcome, new)
    if len(existing):
        groups = grouping.set_aside_joining_splits(
            groups, given, outcome, existing, len(config.split_names)
        )
    plan_checks.check_usable(class_names, columns, labels, outcome)
    keys = columns.digests("pixels")
    split, more = _split(groups, keys, labels, outcome, given, config)
    notes += more
    _balance(split, labels, keys, outcome, config)
    class_slugs = tfds_metadata.slugs(class_names)
    plan_checks.check_splits(
        class_names, labels, split, outcome, groups, reasons, given, config, notes
    )
    to_write = new & (outcome == WRITTEN)
    shards = tuple(
        _plan_shards(class_names, class_slugs, labels, split, keys, to_write, config, existing)
    )
    return BuildPlan(
        class_names=tuple(class_names),
        class_slugs=class_slugs,
        split_names=config.split_names,
        labels=labels,
        outcome=outcome,
        groups=groups,
        group_reasons=reasons,
        split=split,
        group_keys=grouping.make_group_keys(groups, keys, existing),
        conflicts=conflicts,
        shards=shards,
        published=published,
        notes=tuple(notes),
        num_existing=len(existing),
    )


def _split(
    groups: np.ndarray,
    keys: np.ndarray,
    labels: np.ndarray,
    outcome: np.ndarray,
    given: np.ndarray,
    config: BuildConfig,
) -> tuple[np.ndarray, list[str]]:
    """uint8 [rows], index into config.split_names, valid where the outcome is WRITTEN; and notes.

    Where all images have a given split and none has validation, it is taken from train.
    """
    rows = np.flatnonzero(outcome == WRITTEN)
    if len(rows) < len(outcome):
        # Groups are numbered again: a group's first row may have been set aside.
        _, first, inverse = np.unique(groups[rows], return_index=True, return_inverse=True)
        groups, keys, labels = first[inverse], keys[rows], labels[rows]
        given = given[rows]
    draw: dict[str, Any] = {
        "method": config.split,
        "validation_fraction": config.validation_fraction,
        "seed": config.seed,
    }
    fixed = given if (given >= 0).any() else None
    assigned = splits.assign_splits(
        groups,
        keys,
        labels,
        test_fraction=config.test_fraction,
        fixed=fixed,
        folds=config.folds,
        **draw,
    )
    notes = []
    train, validation = (splits.SPLITS.index(name) for name in (splits.TRAIN, splits.VALIDATION))
    if not config.folds and (given >= 0).all() and not (given == validation).any():
        part = np.flatnonzero(assigned == train)
        assigned[part] = splits.assign_splits(
            groups[part], keys[part], labels[part], test_fraction=0.0, **draw
        )
        count = int((assigned == validation).sum())
        notes.append(
            f"the given splits have no validation: {count:,} of {len(part):,} training images, "
            f"whole groups, became validation (--validation_fraction={config.validation_fraction})"
        )
    split = np.zeros(len(outcome), np.uint8)
    split[rows] = assigned
    return split, notes


def _balance(
    split: np.ndarray,
    labels: np.ndarray,
    keys: np.ndarray,
    outcome: np.ndarray,
    config: BuildConfig,
) -> None:
    """Cuts every class of the chosen splits to the smallest, by salted order."""
    for name in config.balance_splits:
        rows = np.flatnonzero((outcome == WRITTEN) & (split == splits.SPLITS.index(name)))
        counts = np.bincount(labels[rows], minlength=int(labels.max()) + 1)
        order = rows[np.argsort(splits.salted(keys[rows], config.seed, "balance"), kind="stable")]
        for label in np.flatnonzero(counts):
            outcome[order[labels[order] == label][counts.min() :]] = UNBALANCED


def _plan_shards(
    class_names: Sequence[str],
    class_slugs: Sequence[str],
    labels: np.ndarray,
    split: np.ndarray,
    keys: np.ndarray,
    written: np.ndarray,
    config: BuildConfig,
    existing: ExistingPlan,
) -> Iterator[Shard]:
    for number, name in enumerate(config.split_names):
        for label, class_name in enumerate(class_names):
            rows = np.flatnonzero(written & (split == number) & (labels == label)).astype(np.int32)
            # Salted order: any one shard is a random sample of its class, on every runner.
            order = np.argsort(splits.salted(keys[rows], config.seed, "order"), kind="stable")
            rows = rows[order]
            total = config.num_shards or -(-len(rows) // config.shard_size)
            total = min(total, len(rows))
            if not total:
                continue
            first = existing.shards.get((name, label), 0)
            for shard, part in enumerate(np.array_split(rows, total), start=first):
                file = dataset_dir.shard_name(name, class_slugs[label], shard, first + total)
                yield Shard(file, name, label, class_name, part)


def describe_set_aside(plan: BuildPlan) -> dict[str, int]:
    """Reason -> number of images that are whole but set aside."""
    counts = {OUTCOME_REASONS[f]: int((plan.outcome == f).sum()) for f in SET_ASIDE}
    return {reason: count for reason, count in counts.items() if count}
