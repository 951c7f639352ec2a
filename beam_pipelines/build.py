"""Turns a folder of radiographs, one sub-folder a class, into TFRecord shards.

  python -m beam_pipelines.build --runner=DirectRunner --input_dir=DIR --output_dir=DATA

Without --input_dir it first makes, and then uses, the embedded synthetic radiographs. PNG, JPEG
and DICOM files are read, each decoded once; then copies (identical pixels, near-duplicates, one
patient) are found and united, groups of them are split, and each shard is written whole. Copies
of one radiograph never lie in two splits.

A build that was interrupted goes on where it stopped; a finished one is left alone. Flags that
are not listed here go to Apache Beam: --runner=DataflowRunner --project=… --setup_file=./setup.py,
--direct_num_workers=…, and all the others (launch/ has a script for each runner).
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from absl import flags, logging

from cxr_tfrecords.errors import UserError, run_main

if TYPE_CHECKING:
    from beam_pipelines.inputs.sources import Sources
    from beam_pipelines.settings.config import BuildConfig

FLAGS = flags.FLAGS
DEFAULT_OUTPUT = "data/synthetic-tfrecords"

# Input
flags.DEFINE_string(
    "input_dir",
    "",
    "Folder with one sub-folder a class (<Class>/images/* or <Class>/*). "
    "Empty: make and use the synthetic radiographs.",
)
flags.DEFINE_string(
    "input_csv",
    "",
    "Instead of folders, a list of images: columns path, label and, if wanted, split (official "
    "splits are kept), group and mask. Paths are relative to --input_dir, or to the list.",
)
flags.DEFINE_string(
    "group_csv",
    "",
    "CSV or XLSX file that tells which images belong together; see --group_column.",
)
flags.DEFINE_string(
    "group_column",
    "patient_id",
    "Column of --group_csv: images with equal values never lie in two splits.",
)
flags.DEFINE_string(
    "group_salt",
    "",
    "Secret that patient ids are hashed with; only the hash is stored. Without one, whoever "
    "knows all possible ids can find them again.",
)
flags.DEFINE_bool(
    "patient_ids",
    True,
    "Unite DICOM images of one PatientID, which is stored as a salted hash only.",
)
flags.DEFINE_bool(
    "with_masks", False, "Store each image's lung mask, the file of its name in <Class>/masks."
)
flags.DEFINE_integer(
    "max_pixels", 64_000_000, "Larger sources are rejected before decoding.", lower_bound=1
)
flags.DEFINE_float(
    "max_bad_fraction",
    0.01,
    "Stop when more than this share of the files cannot be used (each is listed with its reason "
    "in sources.csv either way). 1: never stop.",
    lower_bound=0,
    upper_bound=1,
)
flags.DEFINE_float(
    "synthetic_scale",
    0.05,
    "Without --input_dir: size of the synthetic set. 1.0 is the public data set's "
    "3616/6012/10192/1345 images.",
    lower_bound=0.001,
)
# What is stored
flags.DEFINE_string(
    "output_dir",
    "",
    "Where shards and metadata go. Empty: <input_dir>-tfrecords, or data/synthetic-tfrecords.",
)
flags.DEFINE_integer("image_size", 224, "Side of the stored images, in pixels.", lower_bound=1)
flags.DEFINE_enum(
    "encoding",
    "png",
    ["png", "raw", "jpeg"],
    "png: lossless, small. raw: uncompressed bytes, fastest to read. jpeg: quality 95, lossy.",
)
flags.DEFINE_enum("channels", "1", ["1", "3"], "1: gray. 3: RGB.")
flags.DEFINE_enum(
    "enhance",
    "none",
    ["none", "clahe", "histogram", "gamma", "complement"],
    "Contrast enhancement after resizing (Rahman et al. 2021). clahe: adaptive histogram "
    "equalisation. histogram: the global one. gamma: 0.5, lifts dark regions. complement: 255 - x.",
)
flags.DEFINE_integer(
    "num_shards",
    0,
    "Shards of each split and class. 0: as many as --shard_size asks.",
    lower_bound=0,
)
flags.DEFINE_integer("shard_size", 1024, "Images in a shard, at most.", lower_bound=1)
# The split
flags.DEFINE_float("test_fraction", 0.2, "Share of all images for the test split.")
flags.DEFINE_float("validation_fraction", 0.2, "Share of the rest for the validation split.")
flags.DEFINE_enum(
    "split",
    "stratified",
    ["stratified", "hash"],
    "stratified: each class in proportion, exact counts. hash: by salted hash, so that images "
    "added later never move one between splits. Either way copies stay in one split.",
)
flags.DEFINE_integer("seed", 0, "Another seed gives another split and order.")
flags.DEFINE_enum(
    "dedup",
    "keep",
    ["keep", "drop", "off"],
    "Copies of an image. keep: in one split. drop: only the first is written. off: look for none, "
    "nor for patients: splits may leak, and the manifest says so.",
)
flags.DEFINE_integer(
    "near_distance",
    None,
    "Images whose 256-bit perceptual hashes differ in at most so many bits are copies (default: "
    "16). -1: only identical pixels are.",
)
flags.DEFINE_enum(
    "label_conflicts",
    "keep",
    ["keep", "drop", "error"],
    "Copies that lie in several classes. keep: in one split, reported. drop: write none of them. "
    "error: stop.",
)
flags.DEFINE_list(
    "balance_splits",
    [],
    "validation, test or both: cut their classes to the smallest. The evaluation then does not "
    "show natural prevalence; the metadata say so. Empty: natural.",
)
# How it runs
flags.DEFINE_bool(
    "append",
    False,
    "Add the files of --input_dir or --input_csv that the data set in --output_dir does not hold "
    "yet. Old images keep their splits and bytes, copies and patients follow them; settings that "
    "are not given are those it was built with.",
)
flags.DEFINE_bool("overwrite", False, "Start again, replacing the build in --output_dir.")
flags.DEFINE_bool(
    "resume", True, "Go on with an unfinished build of the same flags; --noresume refuses one."
)
flags.DEFINE_bool(
    "stats",
    True,
    "Make the statistics page, stats.html. --nostats saves some 2 CPU seconds; "
    "`python -m cxr_tfrecords.stats DATA` makes it later.",
)
flags.DEFINE_integer(
    "worker_threads", 0, "Threads in a worker. 0: all cores for DirectRunner, else 1."
)


def main(argv: list[str]) -> None:
    logging.set_verbosity(logging.ERROR)  # Beam's import notes which optional parts are absent
    # Imported late: --help and a mistyped value of a flag answer at once.
    from beam_pipelines import append, job, summary
    from beam_pipelines.settings import beam_flags

    options = beam_flags.parse(argv[1:], list(FLAGS))
    if not beam_flags.runs_locally(options):
        logging.set_verbosity(logging.INFO)  # a remote runner tells its job's address and state
    given = (FLAGS.input_dir or FLAGS.input_csv.removesuffix(".csv")).rstrip("/")
    output_dir = FLAGS.output_dir or (f"{given}-tfrecords" if given else DEFAULT_OUTPUT)
    before = _read_before(output_dir) if FLAGS.append else None
    config = config_from_flags(before["config"] if before else {})
    sources = _find_sources(config, before["class_names"] if before else ())
    print(summary.describe_sources(sources), flush=True)
    started = time.monotonic()
    settings: dict[str, Any] = {
        "max_bad_fraction": FLAGS.max_bad_fraction,
        "threads": FLAGS.worker_threads,
        "salt": FLAGS.group_salt,
    }
    if FLAGS.append:
        result = append.append(sources, output_dir, config, options, **settings)
    else:
        result = job.build(
            sources,
            output_dir,
            config,
            options,
            overwrite=FLAGS.overwrite,
            resume=FLAGS.resume,
            page=FLAGS.stats,
            **settings,
        )
    print(summary.describe_build(result, output_dir, time.monotonic() - started))


def _read_before(output_dir: str) -> dict[str, Any]:
    """The manifest of the data set that is appended to."""
    from cxr_tfrecords import dataset_dir

    if FLAGS.overwrite:
        raise UserError("--append and --overwrite exclude each other")
    if not (FLAGS.input_dir or FLAGS.input_csv):
        raise UserError("--append needs --input_dir or --input_csv, the files to add")
    return dataset_dir.read_manifest(output_dir)


def config_from_flags(built_with: Mapping[str, Any]) -> BuildConfig:
    """The flags that shape bytes, as one value.

    Args:
      built_with: settings of a data set that is appended to, in place of flags not given.
    """
    from beam_pipelines.settings.config import BuildConfig

    values: dict[str, Any] = {}
    for name in BuildConfig.__dataclass_fields__:
        if name == "salt_id":
            continue
        if name in built_with and not FLAGS[name].present:
            values[name] = built_with[name]
        elif FLAGS[name].value is not None:  # --near_distance has its default there
            values[name] = FLAGS[name].value
    values["channels"] = int(values["channels"])
    values["balance_splits"] = tuple(values["balance_splits"])
    return BuildConfig(**values)


def _find_sources(config: BuildConfig, known_classes: Sequence[str]) -> Sources:
    from beam_pipelines.inputs import input_tables, sources

    if FLAGS.input_csv:
        found = input_tables.read_input_csv(
            FLAGS.input_csv, FLAGS.input_dir, FLAGS.group_salt, known_classes=known_classes
        )
    else:
        folder = FLAGS.input_dir or _synthetic(FLAGS.synthetic_scale)
        found = sources.find_sources(
            folder, with_masks=config.with_masks, known_classes=known_classes
        )
    if FLAGS.group_csv:
        found = input_tables.tie_by_csv(
            found, FLAGS.group_csv, FLAGS.group_column, FLAGS.group_salt
        )
    elif FLAGS["group_column"].present:
        raise UserError("--group_column needs --group_csv, the table that has it")
    return found


def _synthetic(scale: float) -> str:
    from tqdm import tqdm

    from cxr_tfrecords.synthetic import write_synthetic

    folder = f"data/synthetic-radiographs-{scale:g}"
    if not os.path.exists(folder):
        print(f"no --input_dir: making synthetic radiographs in {folder}", flush=True)
    with tqdm(desc="Synthesize", unit=" images", disable=os.path.exists(folder)) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        write_synthetic(folder, scale=scale, progress=progress)
    return folder


if __name__ == "__main__":
    run_main(main, known_only=True)  # what is left goes to Beam
