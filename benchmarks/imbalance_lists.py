"""Lists of images with another class ratio in training and validation, and the same test split."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence

from cxr_tfrecords import files, splits
from cxr_tfrecords.errors import UserError


@dataclasses.dataclass(frozen=True)
class Image:
    """One line of a list: a path, a class, and where known the group and the split."""

    path: str
    label: str
    group: str = ""
    split: str = ""


def read_list(path: str, where: str, group_column: str, given_split: bool) -> list[Image]:
    """Images of a CSV file with the columns path and label.

    Args:
      where: COLUMN=VALUE, the rows to use; empty: all.
      group_column: column of the groups; it may be missing if it is `group`.
      given_split: take the column `split` too.

    Raises:
      UserError: a column is missing or no row is left.
    """
    with files.open_file(path, "r") as file:
        rows = list(csv.DictReader(file))
    column, _, value = where.partition("=")
    needed = {"path", "label"} | ({column} if where else set())
    needed |= {group_column} - {"group"} | ({"split"} if given_split else set())
    missing = needed - set(rows[0] if rows else ())
    if missing:
        raise UserError(f"--input_csv={path} needs the columns {', '.join(sorted(missing))}")
    images = [
        Image(
            row["path"],
            row["label"],
            row.get(group_column) or "",
            row["split"] if given_split else "",
        )
        for row in rows
        if not where or row[column] == value
    ]
    if not images:
        raise UserError(f"--input_csv={path} has no row with --where={where}: name another value")
    return images


def write_list(path: str, images: Sequence[Image]) -> None:
    """Writes a list for `beam_pipelines.build --input_csv`."""
    rows = [dataclasses.astuple(image) for image in images]
    with files.replacing(path) as temporary, files.open_file(temporary, "w") as file:
        table = [("path", "label", "group", "split"), *rows]
        csv.writer(file, lineterminator="\n").writerows(table)


def read_built(path: str) -> list[Image]:
    """The images that a build has written, with their groups and splits, from its sources.csv."""
    with files.open_file(path, "r") as file:
        return [
            Image(row["filename"], row["class"], row["group"], row["split"])
            for row in csv.DictReader(file)
            if row["shard"]
        ]


def rare_class(images: Sequence[Image], name: str) -> str:
    """The class called `name`; if that is empty, the smallest one."""
    counts = Counter(image.label for image in images)
    if name and name not in counts:
        raise UserError(f"--rare_class={name} is not one of {', '.join(sorted(counts))}")
    return name or min(sorted(counts), key=counts.__getitem__)


def with_ratio(images: Sequence[Image], rare: str, ratio: float) -> list[Image]:
    """Leaves out images of one class until the largest other class has `ratio` times as many.

    This is done in training and validation, each by itself. Whole groups are left out, so the
    rare class has less than one group below its target; it has more where one group, which always
    stays, or groups that also hold other classes are larger than the target. A class that is
    below its target already stays as it is. A larger ratio keeps a subset of a smaller one.
    """
    left_out: set[str] = set()
    for split in (splits.TRAIN, splits.VALIDATION):
        part = [image for image in images if image.split == split]
        others = Counter(image.label for image in part if image.label != rare)
        if not others:
            raise UserError(f"the {split} split has no class but {rare}: give more images")
        left_out |= _groups_left_out(part, rare, max(others.values()) / ratio)
    return [image for image in images if image.group not in left_out]


def _groups_left_out(part: Sequence[Image], rare: str, target: float) -> set[str]:
    labels: dict[str, list[str]] = defaultdict(list)
    for image in part:
        labels[image.group].append(image.label)
    pure = [group for group, names in labels.items() if set(names) == {rare}]
    count = sum(names.count(rare) for names in labels.values() if set(names) != {rare})
    # The order depends on nothing but the groups' names: any machine leaves out the same images.
    pure.sort(key=lambda group: hashlib.blake2b(group.encode()).digest())
    for index, group in enumerate(pure):
        size = len(labels[group])
        if count and count + size > target:
            return set(pure[index:])
        count += size
    return set()
