"""The settings that shape the bytes of a build; `call` has the others."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from cxr_tfrecords import __version__, enhance, images, near_duplicates, settings, splits
from cxr_tfrecords.decoding import rules
from cxr_tfrecords.errors import UserError
from cxr_tfrecords.settings import setting

# Settings that decide what the first pass makes of a file; the others only move its record.
_INSPECTION = (
    *("image_size", "encoding", "channels", "enhance", "max_pixels", "with_masks"),
    *("patient_ids", "salt_id", "anonymize_names"),
)
INPUT = "Input"
STORED = "What is stored"
_SPLIT = "The split"
RUNS = "How it runs"
GROUPS = (INPUT, STORED, _SPLIT, RUNS)


@dataclasses.dataclass(frozen=True)
class BuildConfig:
    """The settings that a finished directory must match to be resumed.

    Runner, worker and thread counts are left out on purpose: they never change a byte.

    Attributes:
      salt_id: of the secret in `--group_salt_file`; empty: no ids are hashed. It has no flag.

    Raises:
      UserError: a value is not allowed; it names flag and value.
    """

    groups: ClassVar = GROUPS

    image_size: int = setting(
        224, STORED, "Side of the stored images, in pixels. They are square.", within="[1, inf)"
    )
    encoding: str = setting(
        "png",
        STORED,
        "png: lossless, small. raw: uncompressed bytes, fastest to read. jpeg: quality 95, lossy.",
        choices=("png", "raw", "jpeg"),
    )
    channels: int = setting(1, STORED, "1: gray. 3: RGB.", choices=(1, 3))
    enhance: str = setting(
        "none",
        STORED,
        "Contrast enhancement after resizing (Rahman et al. 2021). clahe: adaptive histogram "
        "equalisation. histogram: the global one. gamma: 0.5, lifts dark regions. complement: "
        "255 - x. bcet: a parabola to the full range and a mean of 110.",
        choices=enhance.METHODS,
    )
    with_masks: bool = setting(
        False, INPUT, "Store each image's lung mask, the file of its name in <Class>/masks."
    )
    test_fraction: float = setting(
        0.2, _SPLIT, "Share of all images for the test split.", within="(0, 1)"
    )
    validation_fraction: float = setting(
        0.2, _SPLIT, "Share of the rest for the validation split.", within="(0, 1)"
    )
    folds: int = setting(
        0,
        _SPLIT,
        "Instead of training, validation and test, write this number of folds (3 or more) for "
        "cross-validation; trainer.main --fold chooses one as the test split. 0: no folds.",
        within=f"[0, {splits.MAX_FOLDS}]",
    )
    split: str = setting(
        "stratified",
        _SPLIT,
        "stratified: each class in proportion, exact counts. hash: by salted hash, so that images "
        "added later never move one between splits. Either way copies stay in one split.",
        choices=("stratified", "hash"),
    )
    seed: int = setting(0, _SPLIT, "Another seed gives another split and order.")
    dedup: str = setting(
        "keep",
        _SPLIT,
        "Copies of an image. keep: in one split. drop: only the first is written. off: look for "
        "none, nor for patients: splits may leak, and the manifest says so.",
        choices=("keep", "drop", "off"),
    )
    near_distance: int = setting(
        near_duplicates.DEFAULT_MAX_DISTANCE,
        _SPLIT,
        "Images whose 256-bit perceptual hashes differ in at most this number of bits are copies. "
        "-1: only identical pixels are.",
        within="[-1, 64]",
    )
    label_conflicts: str = setting(
        "keep",
        _SPLIT,
        "Copies that lie in several classes. keep: in one split, reported. drop: write none of "
        "them. error: stop.",
        choices=("keep", "drop", "error"),
    )
    given_leaks: str = setting(
        "refuse",
        _SPLIT,
        "Copies, or images of one patient, that lie in two of the splits that are given. refuse: "
        "stop. drop_from_train: leave them out of train (out of validation, where test has them), "
        "so that the test split stays as published.",
        choices=("refuse", "drop_from_train"),
    )
    splits: str = setting(
        "",
        _SPLIT,
        "given: the splits that folders (train/<Class>/*, val/<Class>/*, test/<Class>/*) or the "
        "column split of --input_csv give. own: ignore them, take all images together and split "
        "them anew. Empty: given, where all folders are called as splits are, or the list has the "
        "column.",
        choices=("", "given", "own"),
        hint="--test_fraction and --validation_fraction set the shares",
    )
    balance_splits: tuple[str, ...] = setting(
        (),
        _SPLIT,
        "validation, test or both: cut their classes to the smallest. The evaluation then does not "
        "show natural prevalence; the metadata say so. Empty: natural.",
        parse=tuple,
    )
    patient_ids: bool = setting(
        True,
        INPUT,
        "Unite DICOM images of one PatientID, which is stored as a hash only (--group_salt_file).",
    )
    salt_id: str = ""
    anonymize_names: bool = setting(
        False,
        STORED,
        "Store hashes in place of file names, made with the secret in --group_salt_file. Tables "
        "that name files then fit no longer (docs/build.md).",
    )
    num_shards: int = setting(
        0,
        STORED,
        "Shards of each split and class. 0: as many as --shard_size asks.",
        within="[0, inf)",
    )
    shard_size: int = setting(1024, STORED, "Images in a shard, at most.", within="[1, inf)")
    max_pixels: int = setting(
        images.DEFAULT_MAX_PIXELS,
        INPUT,
        "Larger sources are rejected before decoding.",
        within="[1, inf)",
    )

    def __post_init__(self) -> None:
        settings.check(self)
        if self.folds:
            self._check_folds()
        wrong = set(self.balance_splits) - set(splits.SPLITS)
        if wrong or splits.TRAIN in self.balance_splits:
            raise UserError(
                f"--balance_splits={','.join(self.balance_splits)} can hold validation and test; "
                "the training stream is balanced when training (trainer.main --sampler)"
            )

    def _check_folds(self) -> None:
        if self.folds < 3:
            raise UserError(
                f"--folds={self.folds}: at least 3 are needed, one to test, one to validate and "
                "one to train on"
            )
        for name in ("test_fraction", "validation_fraction", "balance_splits", "given_leaks"):
            if getattr(self, name) != getattr(BuildConfig, name):
                raise UserError(
                    f"--{name} shapes splits that --folds={self.folds} does not make (all folds "
                    "are of one size and at natural prevalence): leave one of the two out"
                )

    @property
    def split_names(self) -> tuple[str, ...]:
        return splits.split_names(self.folds)

    def to_json(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "balance_splits": list(self.balance_splits)}

    def inspection_settings(self) -> dict[str, Any]:
        """The settings that change the records of the first pass, and the software's versions."""
        versions = {"version": __version__, "pixel_rules": rules.VERSION}
        return {**versions, **{name: getattr(self, name) for name in _INSPECTION}}

    def inspects_as(self, other: Mapping[str, Any]) -> bool:
        """Whether the first pass of another build gives the same records."""
        return all(getattr(self, name) == other.get(name) for name in _INSPECTION)

    def differences(self, other: Mapping[str, Any]) -> list[str]:
        """Lines `--flag: theirs -> ours` for each setting that differs from another build's.

        Not `splits`: what it makes of the sources is compared with their list.
        """
        ours = self.to_json()
        # Older builds do not name these.
        other = {"folds": 0, "given_leaks": "refuse", "anonymize_names": False, **other}
        shown = {"salt_id": "group_salt_file"}
        skipped = {"splits"}
        if not (ours["salt_id"] and other.get("salt_id")):
            skipped.add("salt_id")  # where no ids are hashed, any secret will do
        return [
            f"--{shown.get(name, name)}: {other.get(name, 'absent')} -> {ours.get(name, 'absent')}"
            for name in sorted((ours.keys() | other.keys()) - skipped)
            if ours.get(name) != other.get(name)
        ]
