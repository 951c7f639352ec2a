"""The settings of a build: what shapes its bytes, and what a call of the command asks for."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Any, ClassVar

from cxr_tfrecords import __version__, enhance, images, near_duplicates, settings, splits
from cxr_tfrecords.decoding import rules
from cxr_tfrecords.errors import UserError
from cxr_tfrecords.settings import setting

# Settings that decide what the first pass makes of a file; the others only move its record.
_INSPECTION = (
    *("image_size", "encoding", "channels", "enhance", "max_pixels", "with_masks"),
    *("patient_ids", "salt_id"),
)
_INPUT = "Input"
_STORED = "What is stored"
_SPLIT = "The split"
_RUNS = "How it runs"
_GROUPS = (_INPUT, _STORED, _SPLIT, _RUNS)


@dataclasses.dataclass(frozen=True)
class BuildConfig:
    """The settings that a finished directory must match to be resumed.

    Runner, worker and thread counts are left out on purpose: they never change a byte.

    Attributes:
      salt_id: tells another `--group_salt` without telling the salt. It has no flag of its own.

    Raises:
      UserError: a value is not allowed; it names flag and value.
    """

    groups: ClassVar = _GROUPS

    image_size: int = setting(
        224, _STORED, "Side of the stored images, in pixels. They are square.", within="[1, inf)"
    )
    encoding: str = setting(
        "png",
        _STORED,
        "png: lossless, small. raw: uncompressed bytes, fastest to read. jpeg: quality 95, lossy.",
        choices=("png", "raw", "jpeg"),
    )
    channels: int = setting(1, _STORED, "1: gray. 3: RGB.", choices=(1, 3))
    enhance: str = setting(
        "none",
        _STORED,
        "Contrast enhancement after resizing (Rahman et al. 2021). clahe: adaptive histogram "
        "equalisation. histogram: the global one. gamma: 0.5, lifts dark regions. complement: "
        "255 - x.",
        choices=enhance.METHODS,
    )
    with_masks: bool = setting(
        False, _INPUT, "Store each image's lung mask, the file of its name in <Class>/masks."
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
    balance_splits: tuple[str, ...] = setting(
        (),
        _SPLIT,
        "validation, test or both: cut their classes to the smallest. The evaluation then does not "
        "show natural prevalence; the metadata say so. Empty: natural.",
        parse=tuple,
    )
    patient_ids: bool = setting(
        True,
        _INPUT,
        "Unite DICOM images of one PatientID, which is stored as a salted hash only.",
    )
    salt_id: str = ""
    num_shards: int = setting(
        0,
        _STORED,
        "Shards of each split and class. 0: as many as --shard_size asks.",
        within="[0, inf)",
    )
    shard_size: int = setting(1024, _STORED, "Images in a shard, at most.", within="[1, inf)")
    max_pixels: int = setting(
        images.DEFAULT_MAX_PIXELS,
        _INPUT,
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

    def differences(self, other: Mapping[str, Any]) -> list[str]:
        """Lines `--flag: theirs -> ours` for each setting that differs from another build's."""
        ours = self.to_json()
        other = {"folds": 0, "given_leaks": "refuse", **other}  # older builds do not name them
        shown = {"salt_id": "group_salt"}
        return [
            f"--{shown.get(name, name)}: {other.get(name, 'absent')} -> {ours.get(name, 'absent')}"
            for name in sorted(ours.keys() | other.keys())
            if ours.get(name) != other.get(name)
        ]


@dataclasses.dataclass(frozen=True)
class BuildCall:
    """What one call of the command asks for, besides the settings that shape bytes."""

    groups: ClassVar = _GROUPS

    input_dir: str = setting(
        "",
        _INPUT,
        "Folder with one sub-folder a class (<Class>/images/* or <Class>/*). Empty: make and use "
        "the synthetic radiographs.",
    )
    input_csv: str = setting(
        "",
        _INPUT,
        "Instead of folders, a list of images (CSV, XLSX or text): columns path, label and, if "
        "wanted, split (official splits are kept), group and mask. Relative paths are below "
        "--input_dir, or the list's folder.",
    )
    path_column: str = setting(
        "",
        _INPUT,
        "Column of --input_csv with the files' paths or names; its number, from 1, where there is "
        "no header. Empty: path, filename, image, Image Index, dicom_id, patientId or the like.",
    )
    label_column: str = setting(
        "",
        _INPUT,
        "Column of --input_csv with the classes, or its number. Empty: label, class or Finding "
        "Labels.",
    )
    label_separator: str = setting(
        "",
        _INPUT,
        "Leave out rows of --input_csv whose label holds several findings, separated by this text "
        "(such as '|'). Empty: each combination is a class, with a warning.",
    )
    group_csv: str = setting(
        "",
        _INPUT,
        "CSV or XLSX file that tells which images belong together; see --group_column.",
    )
    group_column: str = setting(
        "",
        _INPUT,
        "Column of --group_csv, or else of --input_csv: images with equal values never lie in two "
        "splits. Ids that name nobody (nan, unknown, anonymous, 0000) unite none. Empty: group, "
        "patient_id or subject_id.",
    )
    group_salt: str = setting(
        "",
        _INPUT,
        "Secret that patient ids are hashed with; only the hash is stored. Without one, whoever "
        "knows all possible ids can find them again.",
    )
    max_bad_fraction: float = setting(
        0.01,
        _INPUT,
        "Stop when more than this share of the files cannot be used (each is listed with its "
        "reason in sources.csv either way). 1: never stop.",
        within="[0, 1]",
    )
    synthetic_scale: float = setting(
        0.05,
        _INPUT,
        "Without --input_dir: size of the synthetic set. 1.0 is the public data set's "
        "3616/6012/10192/1345 images.",
        within="[0.001, inf)",
    )
    output_dir: str = setting(
        "",
        _STORED,
        "Where shards and metadata go. Empty: <input_dir>-tfrecords, or data/synthetic-tfrecords.",
    )
    append: bool = setting(
        False,
        _RUNS,
        "Add the files of --input_dir or --input_csv that the data set in --output_dir does not "
        "hold yet. Old images keep their splits and bytes, copies and patients follow them; "
        "settings that are not given are those it was built with.",
    )
    overwrite: bool = setting(False, _RUNS, "Start again, replacing the build in --output_dir.")
    resume: bool = setting(
        True,
        _RUNS,
        "Go on with an unfinished build of the same flags; --noresume refuses one.",
    )
    stats: bool = setting(
        True,
        _RUNS,
        "Make the statistics page, stats.html. --nostats saves some 2 CPU seconds; `python -m "
        "cxr_tfrecords.stats DATA` makes it later.",
    )
    worker_threads: int = setting(
        0,
        _RUNS,
        "Threads in a worker. 0: all cores for DirectRunner, else 1.",
        within="[0, inf)",
    )

    def __post_init__(self) -> None:
        settings.check(self)
        if self.append and self.overwrite:
            raise UserError("--append and --overwrite exclude each other: give one of them")
        if self.append and not (self.input_dir or self.input_csv):
            raise UserError("--append needs --input_dir or --input_csv, the files to add")


def salt_id(salt: str) -> str:
    """Six hex digits that tell one salt from another."""
    return hashlib.blake2b(salt.encode(), digest_size=3, person=b"cxr-salt-id").hexdigest()
