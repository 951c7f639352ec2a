"""A data set with only some of its classes, or with several classes as one, from the same shards.

This is done once, where a data set is opened: what reads a `DatasetDir` knows nothing of it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence

from cxr_tfrecords.dataset_dir import DatasetDir
from cxr_tfrecords.errors import UserError
from cxr_tfrecords.pages.class_lists import check_known, few
from cxr_tfrecords.splits import SPLITS
from trainer.evaluation.class_map import map_names, parse_class_map

# (class of the data set, class of the run), once for each class that is mapped.
ClassMap = Sequence[tuple[str, str]]


def parse_map_classes(items: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """`["Viral Pneumonia:Pneumonia"]` to `(("Viral Pneumonia", "Pneumonia"),)`.

    Raises:
      UserError: an item is not FROM:TO, or a class is named twice.
    """
    return tuple(parse_class_map(items, "map_classes").items())


def choose_classes(data: DatasetDir, classes: Sequence[str], class_map: ClassMap) -> DatasetDir:
    """The data set as if it had been built with these classes: names, counts, shards and labels.

    Splits stay as they are, so images of one group are still in one split. Classes keep the data
    set's order; one that is made of several stands where the first of these stood. `mean` and `std`
    stay those of all classes.

    Args:
      data: with the classes that it was built with.
      classes: those that stay, by their names after `class_map`, in any order; empty: all.
      class_map: an empty second name leaves the class out.

    Raises:
      UserError: a class is unknown, or fewer than two are left.
    """
    names = map_names(data.class_names, dict(class_map), "map_classes")
    there = [name for name in dict.fromkeys(names) if name]
    check_known(classes, there, "classes", after=" after --map_classes" if class_map else "")
    kept = [name for name in there if not classes or name in classes]
    if len(kept) < 2:
        raise UserError(
            f"{describe(classes, class_map)} leaves {', '.join(kept) or 'no class'}, and a "
            f"classifier needs at least 2 classes: the data set has {few(data.class_names)}"
        )
    if kept == list(data.class_names) == names:
        return data
    label_map = tuple(kept.index(name) if name in kept else -1 for name in names)
    shards = (
        dataclasses.replace(shard, label=label_map[shard.label])
        for shard in data.shards
        if label_map[shard.label] >= 0
    )
    return dataclasses.replace(
        data,
        class_names=tuple(kept),
        class_slugs=tuple(data.class_slugs[names.index(name)] for name in kept),
        counts={
            split: tuple(
                sum(n for n, here in zip(counts, label_map, strict=True) if here == label)
                for label in range(len(kept))
            )
            for split, counts in data.counts.items()
        },
        fingerprint=_fingerprint(data.fingerprint, kept, label_map),
        shards=tuple(sorted(shards, key=lambda s: (SPLITS.index(s.split), s.label))),
        label_map=label_map,
    )


def describe(classes: Sequence[str], class_map: ClassMap) -> str:
    """The flags that give these classes, for messages and pages; empty if there are none."""
    flags = []
    if class_map:
        flags.append("--map_classes=" + ",".join(f"{old}:{new}" for old, new in class_map))
    if classes:
        flags.append("--classes=" + ",".join(classes))
    return " ".join(flags)


def _fingerprint(of_all: str, names: Sequence[str], label_map: Sequence[int]) -> str:
    """Another one than the data set's, so that nothing takes the one for the other."""
    return hashlib.sha256(json.dumps([of_all, names, label_map]).encode()).hexdigest()
