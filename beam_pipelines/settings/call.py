"""What one call of the build's command asks for, besides the settings that shape bytes."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from beam_pipelines.settings.config import GROUPS, INPUT, RUNS, STORED
from cxr_tfrecords import settings
from cxr_tfrecords.errors import UserError
from cxr_tfrecords.settings import setting


@dataclasses.dataclass(frozen=True)
class BuildCall:
    """What one call of the command asks for, besides the settings that shape bytes."""

    groups: ClassVar = GROUPS

    input_dir: str = setting(
        "",
        INPUT,
        "Folder with one sub-folder a class (<Class>/images/* or <Class>/*), or with folders "
        "train, val and test that hold such ones (--splits). Empty: make and use the synthetic "
        "radiographs.",
    )
    recursive: bool = setting(
        False,
        INPUT,
        "Read images at any depth below a class folder (<Class>/<patient>/*), except in folders "
        "called masks. Files that are no images by their extension (.csv, .txt, …) are passed "
        "over and counted.",
    )
    input_csv: str = setting(
        "",
        INPUT,
        "Instead of folders, a list of images (CSV, XLSX or text): columns path, label and, if "
        "wanted, split (official splits are kept), group and mask. Relative paths are below "
        "--input_dir, or the list's folder.",
    )
    path_column: str = setting(
        "",
        INPUT,
        "Column of --input_csv with the files' paths or names; its number, from 1, where there is "
        "no header. Empty: path, filename, image, Image Index, dicom_id, patientId or the like.",
    )
    label_column: str = setting(
        "",
        INPUT,
        "Column of --input_csv with the classes, or its number. Empty: label, class or Finding "
        "Labels.",
    )
    label_separator: str = setting(
        "",
        INPUT,
        "Leave out rows of --input_csv whose label holds several findings, separated by this text "
        "(such as '|'). Empty: each combination is a class, with a warning.",
    )
    group_csv: str = setting(
        "",
        INPUT,
        "CSV or XLSX file that tells which images belong together; see --group_column.",
    )
    group_column: str = setting(
        "",
        INPUT,
        "Column of --group_csv, or else of --input_csv: images with equal values never lie in two "
        "splits. Ids that name nobody (nan, unknown, anonymous, 0000) unite none. Empty: group, "
        "patient_id or subject_id.",
    )
    group_salt_file: str = setting(
        "",
        INPUT,
        "File with the secret that ids of patients are hashed with; only the hashes are stored. It "
        "is made where there is none. Keep it, because --append needs it, and pass it to nobody. "
        "Empty: ~/.config/cxr-balance/group_salt.",
    )
    max_bad_fraction: float = setting(
        0.01,
        INPUT,
        "Stop when more than this share of the files cannot be used (each is listed with its "
        "reason in sources.csv either way). 1: never stop.",
        within="[0, 1]",
    )
    synthetic_scale: float = setting(
        0.05,
        INPUT,
        "Without --input_dir: size of the synthetic set. 1.0 is the public data set's "
        "3616/6012/10192/1345 images.",
        within="[0.001, inf)",
    )
    output_dir: str = setting(
        "",
        STORED,
        "Where shards and metadata go. Empty: <input_dir>-tfrecords, or data/synthetic-tfrecords.",
    )
    append: bool = setting(
        False,
        RUNS,
        "Add the files of --input_dir or --input_csv that the data set in --output_dir does not "
        "hold yet. Old images keep their splits and bytes, copies and patients follow them; "
        "settings that are not given are those it was built with.",
    )
    overwrite: bool = setting(False, RUNS, "Start again, replacing the build in --output_dir.")
    resume: bool = setting(
        True,
        RUNS,
        "Go on with an unfinished build of the same flags; --noresume refuses one that has written "
        "shards.",
    )
    stats: bool = setting(
        True,
        RUNS,
        "Make the statistics page, stats.html. --nostats saves some 2 CPU seconds; `python -m "
        "cxr_tfrecords.stats DATA` makes it later.",
    )
    worker_threads: int = setting(
        0,
        RUNS,
        "Threads in a worker. 0: DirectRunner uses all cores, by threads or, from 3 cores and "
        "10,000 files or 500 MB on, by a process for each core; another runner's workers have 1.",
        within="[0, inf)",
    )

    def __post_init__(self) -> None:
        settings.check(self)
        if self.append and self.overwrite:
            raise UserError("--append and --overwrite exclude each other: give one of them")
        if self.recursive and self.input_csv:
            raise UserError("--recursive reads folders, --input_csv a list: leave one of them out")
        if self.append and not (self.input_dir or self.input_csv):
            raise UserError("--append needs --input_dir or --input_csv, the files to add")
