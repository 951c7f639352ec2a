"""The other data set: what a finished run can be evaluated on. Nothing here needs TensorFlow."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from cxr_tfrecords import dataset_dir
from cxr_tfrecords.dataset_dir import DatasetDir
from cxr_tfrecords.errors import UserError
from trainer.evaluation.class_map import map_labels
from trainer.external.copies import find_copies
from trainer.runs.finished_run import FinishedRun, read_kept_run


@dataclasses.dataclass(frozen=True)
class OtherData:
    """A data set as a run sees it.

    Attributes:
      data: without the shards of classes that are left out.
      split: `test`, `train`, `validation` or `all`; splits: those that it stands for.
      labels: for each class of `data`, its label in the run; None: left out.
      left_out: class -> images of the split that were left out by the class map.
      copies: ids of images that the run was trained or validated on, as exact or near copies.
      unchecked: why copies could not be looked for; empty if they were.
    """

    data: DatasetDir
    split: str
    splits: tuple[str, ...]
    labels: tuple[int | None, ...]
    left_out: dict[str, int]
    copies: frozenset[str]
    unchecked: str = ""

    def class_pairs(self, class_names: Sequence[str]) -> dict[str, str]:
        """Class there -> class of the model, of those that are not left out."""
        return {
            name: class_names[label]
            for name, label in zip(self.data.class_names, self.labels, strict=True)
            if label is not None
        }


def read_runs(paths: Sequence[str]) -> list[FinishedRun]:
    """Finished runs that can be evaluated on the same data set; a path that is named twice counts
    once.

    Raises:
      UserError: a run is not finished or has no model, or their classes or readings differ.
    """
    runs: list[FinishedRun] = []
    for path in dict.fromkeys(one.rstrip("/") for one in paths):
        run = read_kept_run(path, "model")
        first = runs[0] if runs else run
        reading = [one.dataset.get("reading", one.dataset["image_size"]) for one in (run, first)]
        masks = [one.config.mask for one in (run, first)]
        if run.class_names != first.class_names or reading[0] != reading[1] or len(set(masks)) > 1:
            raise UserError(
                f"--model: {path} has other classes, or reads images in another way, than "
                f"{first.path}: give models that were trained on the same data set, or evaluate "
                "them one by one"
            )
        runs.append(run)
    return runs


def open_other(
    runs: Sequence[FinishedRun],
    path: str,
    split: str,
    class_map: Mapping[str, str],
    parts: Sequence[FinishedRun] = (),
) -> OtherData:
    """Opens a data set for runs that have the same classes and reading.

    Args:
      split: `test`, `train`, `validation` or `all`.
      class_map: class there -> class of the model, see `class_map.parse_class_map`.
      parts: runs whose models answer together for the first of `runs`: what they were trained on
        is left out as well.

    Raises:
      UserError: it is not a data set, its images were made in another way than the run's, its
        classes do not fit, or the split has no image that the runs were not trained on.
    """
    folds = dataset_dir.read_manifest(path)["config"].get("folds", 0)
    if folds and split != "all":
        raise UserError(
            f"{path} was built with --folds={folds} and has no split {split}: give --split=all"
        )
    data = dataset_dir.load(path, 0 if folds else None)
    first = runs[0]
    _check_reading(first, data)
    data = data.showing(first.config.mask)
    labels = map_labels(data.class_names, class_map, first.class_names, "map_classes")
    splits = tuple(data.counts) if split == "all" else (split,)
    used = [label is not None for label in labels]
    left_out = {
        name: sum(data.counts[s][c] for s in splits)
        for c, name in enumerate(data.class_names)
        if not used[c]
    }
    classes = [name for name, is_used in zip(data.class_names, used, strict=True) if is_used]
    copies, unchecked = find_copies([*runs, *parts], data, splits, classes)
    data = dataclasses.replace(
        data,
        shards=tuple(shard for shard in data.shards if used[shard.label]),
        counts={
            s: tuple(n * keep for n, keep in zip(counts, used, strict=True))
            for s, counts in data.counts.items()
        },
    )
    total = sum(map(data.num_examples, splits))
    if not total:
        raise UserError(
            f"{path}: --split={split} has no image of the model's classes: name another"
        )
    if len(copies) == total:
        raise UserError(
            f"{path}: the model was trained or validated on all {total:,} images of "
            f"--split={split}, or on copies of them: name images that it has not seen"
        )
    return OtherData(data, split, splits, tuple(labels), left_out, frozenset(copies), unchecked)


def _check_reading(run: FinishedRun, data: DatasetDir) -> None:
    """Refuses images that were made in another way than those of the run."""
    wanted = {
        "image_size": run.dataset["image_size"],
        "channels": run.dataset["channels"],
        # Runs of earlier versions do not say it.
        "enhance": run.dataset.get("reading", {}).get("enhance", data.enhance),
    }
    differing = {name: value for name, value in wanted.items() if getattr(data, name) != value}
    if differing:
        there = ", ".join(f"--{name}={getattr(data, name)}" for name in differing)
        flags = " ".join(f"--{name}={value}" for name, value in differing.items())
        raise UserError(
            f"{data.path} was built with {there}, and {run.path} reads other images: build it "
            f"again from its sources with {flags}"
        )
