"""A dataset directory: shards by split and class, metadata for TFDS, and the manifest.

    DATA/
      cxr-train_viral_pneumonia.tfrecord-00000-of-00004   one set of shards per split and class
      dataset_info.json, features.json, …                  metadata that TFDS reads
      manifest.json                                        sources, settings, counts, shards
      sources.csv                                          each source file: its shard, or why not
      stats.html, stats.json                               the statistics page (see `stats`)
      left_out.tfrecord                                    pictures for that page, of images that no
                                                           shard holds; absent if there are none

`load` reads only the manifest and the sizes of the files: counts never need a shard to be read.
"""

from __future__ import annotations

import dataclasses
import math
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cxr_tfrecords import files, splits
from cxr_tfrecords.checks.manifest import find_manifest_problem
from cxr_tfrecords.errors import UserError
from cxr_tfrecords.reading import Reading
from cxr_tfrecords.splits import SPLITS, TEST, TRAIN, VALIDATION

NAME = "cxr"
FORMAT = "cxr-tfrecords/1"
MANIFEST = "manifest.json"
SOURCES = "sources.csv"
LEFT_OUT = "left_out.tfrecord"
SCRATCH = ".build"  # folder of a build that is not finished, see beam_pipelines.running.workdir
# sources.csv has one row for each source file. `shard` is empty if the image was not written, and
# `reason` says why. `pixel_steps` is what was done to its pixels, and `warning` why to look at it.
# `group` is the same for images that must be in one split, and `tied_by` says why. `given_group`
# (of an input table) and `patient` (of a DICOM file) are salted hashes.
SOURCE_COLUMNS = (
    *("class", "split", "shard", "filename", "num_bytes", "sha256", "height", "width", "format"),
    *("mode", "pixel_steps", "pixel_digest", "stored_digest", "near_hash", "group", "tied_by"),
    *("given_group", "patient", "warning", "reason"),
)


@dataclasses.dataclass(frozen=True)
class Shard:
    """One TFRecord file, all of one split and one class.

    Attributes:
      path, label: full path; class index.
      split: `train`, `validation` or `test`; `fold0`, … in what `list_shards` gives.
      num_examples, num_bytes: as written.
      digest: hex SHA-256 over the records' bytes in order.
    """

    path: str
    split: str
    label: int
    num_examples: int
    num_bytes: int = 0
    digest: str = ""


@dataclasses.dataclass(frozen=True)
class DatasetDir:
    """The metadata of a dataset directory.

    Attributes:
      path: the directory.
      class_names: names as the user wrote them; a label is an index into them.
      class_slugs: their form in names of files and of TFDS splits.
      image_size: pixels of a side; images are square. channels: 1 (gray) or 3 (RGB).
      encoding: `png`, `raw` or `jpeg`. enhance: contrast enhancement, see `enhance`.
      counts: split -> number of examples of each class.
      fingerprint: hex digest of all records and of how to read them.
      mean, std: per channel, over the training split, in pixel units 0..255.
      split_unit: the unit of the split, in words: images of one unit never lie in two splits.
      balanced_splits: splits in which all classes were cut to one size.
      has_masks: whether records hold lung masks.
      mask: the part of an image that is read: all (`none`), only `lungs` or only `background`.
      shards: sorted by split (train, validation, test), label, fold and number.
      folds: number of folds that it was built with; 0: none.
      fold: the fold that is the test split; the next one is validation, the others are training.
      label_map: stored label -> label here, -1 for a class that is left out, where classes were
        chosen (`trainer.settings.chosen_classes`); empty: labels are those of the records.
      pixel_rules: version of the rules that its files were decoded by, see `decoding.rules`.
    """

    path: str
    class_names: tuple[str, ...]
    class_slugs: tuple[str, ...]
    image_size: int
    channels: int
    encoding: str
    counts: dict[str, tuple[int, ...]]
    fingerprint: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    shards: tuple[Shard, ...]
    split_unit: str = ""
    balanced_splits: tuple[str, ...] = ()
    has_masks: bool = False
    mask: str = "none"
    folds: int = 0
    fold: int | None = None
    enhance: str = "none"
    label_map: tuple[int, ...] = ()
    pixel_rules: int = 1

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def reading(self) -> Reading:
        """How the images were made from their files."""
        return Reading(self.image_size, self.channels, self.enhance, self.encoding)

    def num_examples(self, split: str) -> int:
        return sum(self.counts[split])

    def showing(self, mask: str) -> DatasetDir:
        """The same data set, read with another `mask`.

        Raises:
          UserError: its records hold no masks.
        """
        if mask != "none" and not self.has_masks:
            raise UserError(
                f"--mask={mask} cannot be used: {self.path} holds no lung masks: build it with "
                "--with_masks from a folder that has them, or leave --mask out"
            )
        return dataclasses.replace(self, mask=mask)

    def split_shards(self, split: str, label: int | None = None) -> tuple[Shard, ...]:
        """Shards of a split, or of one class of it, sorted by label, then number."""
        return tuple(s for s in self.shards if s.split == split and label in (None, s.label))


def shard_name(split: str, slug: str, number: int, total: int) -> str:
    """File name of a shard, in the pattern that TFDS expects."""
    return f"{NAME}-{split}_{slug}.tfrecord-{number:05d}-of-{total:05d}"


def read_manifest(path: str) -> dict[str, Any]:
    """Returns the manifest of a finished build.

    Raises:
      UserError: there is no such directory, or no manifest, or it cannot be read, or it is not
        what a build has written; the message names key and value.
    """
    file_name = files.join(path, MANIFEST)
    with files.explained(path, "data_dir"):
        if not files.exists(file_name):
            raise UserError(_without_manifest(path))
    remedy = "restore it from a copy, or build again with --overwrite"
    manifest = files.read_named_json(file_name, remedy)
    manifest_format = manifest.get("format") if isinstance(manifest, dict) else None
    if manifest_format != FORMAT:
        raise UserError(
            f"{file_name} has format {manifest_format!r}, but this version reads only {FORMAT!r}: "
            "build again with --overwrite, or install the version that built it"
        )
    problem = find_manifest_problem(manifest, splits.split_names)
    if problem:
        raise UserError(f"{file_name} was changed since its build: {problem}; {remedy}")
    return manifest


def is_data_set(path: str) -> bool:
    """Whether a folder is what a build has made or begun, and not a folder of images."""
    return any(files.exists(files.join(path, name)) for name in (SCRATCH, "dataset_info.json"))


def refuse_data_set(path: str, flag: str) -> None:
    """Refuses a data set where results are to be written, which would mix with its files: no build
    could go on there.

    Args:
      flag: name of the flag that gave `path`, for the message.

    Raises:
      UserError: it is one.
    """
    if is_data_set(path) or files.exists(files.join(path, MANIFEST)):
        raise UserError(f"--{flag}={path} is a data set: name another folder for the results")


def _without_manifest(path: str) -> str:
    """Why a path is no data set, and what to do, whatever command it was given to."""
    if not files.exists(path):
        return f"{path} does not exist: name the --output_dir of a finished build"
    names = files.names(path)
    if SCRATCH in names or any(".tfrecord-" in name for name in names):
        return (
            f"{path} holds a build that is not finished ({MANIFEST} is missing): run the command "
            "that built it again, and it goes on"
        )
    advice = f"{path} is not a data set ({MANIFEST} is missing): name the --output_dir of a build"
    if names:
        folders = [f"--input_dir={path}", f"--output_dir={path.rstrip('/')}-tfrecords"]
        command = shlex.join(["python", "-m", "beam_pipelines.build", *folders])
        advice += f", or build one from its images: {command}"
    return advice


def split_names(manifest: Mapping[str, Any]) -> tuple[str, ...]:
    """train, validation and test, or the folds that a data set was built with."""
    return splits.split_names(manifest["config"].get("folds", 0))


def list_shards(path: str, manifest: Mapping[str, Any]) -> list[Shard]:
    """The shards of a dataset directory, which are checked to be there.

    Raises:
      UserError: a shard is missing or has another size.
    """
    sizes, shards = files.sizes(path), []
    for entry in manifest["shards"]:
        size, shard_path = sizes.get(entry["file"]), files.join(path, entry["file"])
        if size != entry["num_bytes"]:
            state = "is missing" if size is None else f"has {size} bytes"
            raise UserError(
                f"shard {shard_path} {state}, expected {entry['num_bytes']} bytes: run the build "
                "again to repair it, or this command if the data set grew meanwhile (--append)"
            )
        label = manifest["class_names"].index(entry["class"])
        written = entry["num_examples"], entry["num_bytes"], entry["digest"]
        shards.append(Shard(shard_path, entry["split"], label, *written))
    return shards


def load(path: str, fold: int | None = None) -> DatasetDir:
    """Loads a dataset directory's metadata and checks that its shards are there.

    Args:
      fold: for a data set with folds, and only there: the one that is the test split. The next
        fold (after the last: the first) is validation, the others are training.

    Raises:
      UserError: the build is not finished, a shard is missing or has another size, or `fold` is
        not one of the data set's folds.
    """
    manifest = read_manifest(path)
    names, shards = tuple(manifest["class_names"]), list_shards(path, manifest)
    counts = {s: np.array([manifest["counts"][s][n] for n in names]) for s in split_names(manifest)}
    moments = manifest["pixels"]
    folds = _splits_of_folds(path, manifest["config"].get("folds", 0), fold)
    if folds:
        split_of = {f"fold{k}": split for split, members in folds.items() for k in members}
        shards = [dataclasses.replace(s, split=split_of[s.split]) for s in shards]
        shards.sort(key=lambda shard: (SPLITS.index(shard.split), shard.label))
        counts = {
            split: np.sum([counts[f"fold{k}"] for k in members], axis=0)
            for split, members in folds.items()
        }
        moments = pixel_moments([moments["by_fold"][f"fold{k}"] for k in folds[TRAIN]])
    return DatasetDir(
        path=path,
        class_names=names,
        class_slugs=tuple(manifest["class_slugs"]),
        image_size=manifest["image"]["size"],
        channels=manifest["image"]["channels"],
        encoding=manifest["image"]["encoding"],
        counts={split: tuple(by_class.tolist()) for split, by_class in counts.items()},
        fingerprint=manifest["fingerprint"],
        mean=tuple(moments["mean"]),
        std=tuple(moments["std"]),
        shards=tuple(shards),
        split_unit=manifest["split_proof"]["unit"],
        balanced_splits=tuple(manifest["config"]["balance_splits"]),
        has_masks=bool(manifest["image"].get("mask")),
        folds=manifest["config"].get("folds", 0),
        fold=fold,
        enhance=manifest["config"].get("enhance", "none"),
        pixel_rules=manifest.get("pixel_rules", 1),
    )


def _splits_of_folds(path: str, folds: int, fold: int | None) -> dict[str, list[int]]:
    """Split -> numbers of its folds; empty for a data set without folds."""
    if not folds and fold is not None:
        raise UserError(
            f"--fold={fold}: {path} has no folds: leave --fold out, or build a data set with "
            "--folds"
        )
    if folds and (fold is None or not 0 <= fold < folds):
        given = "no --fold is given" if fold is None else f"--fold={fold} is not one of them"
        raise UserError(
            f"{path} was built with --folds={folds}, and {given}: choose the test fold with "
            f"--fold, from 0 to {folds - 1}"
        )
    if fold is None:
        return {}
    after = (fold + 1) % folds
    rest = [number for number in range(folds) if number not in (fold, after)]
    return {TRAIN: rest, VALIDATION: [after], TEST: [fold]}


def pixel_moments(parts: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    """`mean` and `std` of each channel, in pixel units 0..255, rounded to 6 decimals.

    Args:
      parts: disjoint sets of images: `count` of their pixels, and for each channel the `sums` and
        `sums_of_squares`, all whole numbers.
    """
    pixels = sum(part["count"] for part in parts)
    mean, std = [], []
    for channel in range(len(parts[0]["sums"])):
        total, square = (
            sum(part[name][channel] for part in parts) for name in ("sums", "sums_of_squares")
        )
        # Python's integers: the product passes 2^63 at a few million images.
        variance = (square * pixels - total * total) / pixels**2
        mean.append(round(total / pixels, 6))
        std.append(round(math.sqrt(variance), 6))
    return {"mean": mean, "std": std}
