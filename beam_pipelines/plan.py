"""Between the passes: which image goes to which split and shard. Small records, no pixels."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from beam_pipelines.config import BuildConfig
from beam_pipelines.inspection import Inspection
from cxr_tfrecords import __version__, dataset_dir, splits
from cxr_tfrecords.errors import UserError


@dataclasses.dataclass(frozen=True)
class Member:
    """One image of a shard: what the second pass needs to write it."""

    filename: str
    sha256: str
    group: str
    source_height: int
    source_width: int
    source_format: str


@dataclasses.dataclass(frozen=True)
class ShardPlan:
    """One shard: its file name, split, class and members in writing order."""

    file: str
    split: str
    label: int
    class_name: str
    members: tuple[Member, ...]

    def fingerprint(self, config: BuildConfig) -> str:
        """Hex digest of all that decides the shard's bytes."""
        content = [__version__, config.to_json(), dataclasses.astuple(self)]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()


@dataclasses.dataclass(frozen=True)
class BuildPlan:
    """The whole build, decided before the first shard is written.

    Attributes:
      class_names, class_slugs: label order.
      shards: by split, label, number.
      assignments: file name -> (split, shard file) of every image that is written.
      groups: group id -> file names, for groups of more than one image.
      label_conflicts: the ids among them whose images lie in more than one class folder.
      num_groups: split -> number of groups, single images included.
      inspections: all of them, rejected ones included, by file name.
    """

    class_names: tuple[str, ...]
    class_slugs: tuple[str, ...]
    shards: tuple[ShardPlan, ...]
    assignments: dict[str, tuple[str, str]]
    groups: dict[str, list[str]]
    label_conflicts: list[str]
    num_groups: dict[str, int]
    inspections: tuple[Inspection, ...]

    @property
    def rejected(self) -> list[Inspection]:
        return [one for one in self.inspections if one.reason]

    def counts(self) -> dict[str, dict[str, int]]:
        """split -> class name -> number of images."""
        result = {s: dict.fromkeys(self.class_names, 0) for s in splits.SPLITS}
        for shard in self.shards:
            result[shard.split][shard.class_name] += len(shard.members)
        return result


def plan_build(
    class_names: Sequence[str],
    inspections: Sequence[Inspection],
    config: BuildConfig,
    max_bad_fraction: float,
) -> BuildPlan:
    """Groups, splits and shards the images that passed inspection.

    Raises:
      UserError: too many files were rejected, or a class is left without an image in a split.
    """
    inspections = sorted(inspections, key=lambda one: one.filename)
    _check_rejected(inspections, max_bad_fraction)
    good = [one for one in inspections if not one.reason]
    group_ids = _group_ids(good)
    assigned = splits.assign_splits(
        group_ids,
        [one.label for one in good],
        method=config.split,
        test_fraction=config.test_fraction,
        validation_fraction=config.validation_fraction,
        seed=config.seed,
    )
    _check_splits(class_names, good, assigned, inspections)
    class_slugs = dataset_dir.slugs(class_names)
    shards = _plan_shards(class_names, class_slugs, good, group_ids, assigned, config)
    members: dict[str, list[int]] = collections.defaultdict(list)
    for index, group in enumerate(group_ids):
        members[group].append(index)
    several = {group: own for group, own in sorted(members.items()) if len(own) > 1}
    group_split = dict(zip(group_ids, assigned, strict=True))
    return BuildPlan(
        class_names=tuple(class_names),
        class_slugs=class_slugs,
        shards=tuple(shards),
        assignments={m.filename: (s.split, s.file) for s in shards for m in s.members},
        groups={group: [good[i].filename for i in own] for group, own in several.items()},
        label_conflicts=[g for g, own in several.items() if len({good[i].label for i in own}) > 1],
        num_groups={s: sum(v == s for v in group_split.values()) for s in splits.SPLITS},
        inspections=tuple(inspections),
    )


def manifest_members(shard: ShardPlan) -> list[str]:
    """The shard's plan as lines of JSON, for the worker that writes it."""
    return [json.dumps(dataclasses.asdict(member)) for member in shard.members]


def _group_ids(good: Sequence[Inspection]) -> list[str]:
    """A group's id is the smallest pixel digest in it: the same at every image size."""
    # The seam for near-duplicates and patient columns: each adds its key to these tuples.
    roots = splits.group_images([(one.pixel_sha256, one.stored_sha256) for one in good])
    smallest: dict[int, str] = {}
    for root, one in zip(roots, good, strict=True):
        smallest[root] = min(smallest.get(root, one.pixel_sha256), one.pixel_sha256)
    return [smallest[root] for root in roots]


def _plan_shards(
    class_names: Sequence[str],
    class_slugs: Sequence[str],
    good: Sequence[Inspection],
    group_ids: Sequence[str],
    assigned: Sequence[str],
    config: BuildConfig,
) -> list[ShardPlan]:
    pools: dict[tuple[str, int], list[int]] = collections.defaultdict(list)
    for index, (one, split) in enumerate(zip(good, assigned, strict=True)):
        pools[split, one.label].append(index)
    shards = []
    for split in splits.SPLITS:
        for label, class_name in enumerate(class_names):
            # Salted order: any one shard is a random sample of its class, on every runner.
            order = sorted(
                pools[split, label],
                key=lambda i: splits.salted_fraction(good[i].filename, config.seed, "order"),
            )
            total = config.num_shards or -(-len(order) // config.shard_size)
            total = min(total, len(order))
            for number, part in enumerate(np.array_split(order, total)):
                members = tuple(_member(good[i], group_ids[i]) for i in part)
                name = dataset_dir.shard_name(split, class_slugs[label], number, total)
                shards.append(ShardPlan(name, split, label, class_name, members))
    return shards


def _member(one: Inspection, group: str) -> Member:
    return Member(one.filename, one.sha256, group, one.height, one.width, one.format)


def _check_rejected(inspections: Sequence[Inspection], max_bad_fraction: float) -> None:
    rejected = [one for one in inspections if one.reason]
    if len(rejected) <= max_bad_fraction * len(inspections):
        return
    shown = "".join(f"\n  {one.filename}: {one.reason}" for one in rejected[:5])
    more = f"\n  … and {len(rejected) - 5} more" if len(rejected) > 5 else ""
    raise UserError(
        f"{len(rejected)} of {len(inspections)} files cannot be used, more than "
        f"--max_bad_fraction={max_bad_fraction}:{shown}{more}\n"
        "mend or remove them, or allow more with --max_bad_fraction; nothing was written"
    )


def _check_splits(
    class_names: Sequence[str],
    good: Sequence[Inspection],
    assigned: Sequence[str],
    inspections: Sequence[Inspection],
) -> None:
    found: collections.Counter[Any] = collections.Counter(
        (split, one.label) for one, split in zip(good, assigned, strict=True)
    )
    for label, name in enumerate(class_names):
        for split in splits.SPLITS:
            if not found[split, label]:
                usable = sum(one.label == label for one in good)
                files = sum(one.label == label for one in inspections)
                raise UserError(
                    f"class {name!r} has no image in the {split} split ({usable} usable of "
                    f"{files} files): add images, remove the folder, or change "
                    "--test_fraction / --validation_fraction / --seed; nothing was written"
                )
