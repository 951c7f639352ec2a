"""Turns a folder of radiographs, one sub-folder a class, into TFRecord shards.

  python -m beam_pipelines.build --runner=DirectRunner --input_dir=DIR --output_dir=DATA

Without --input_dir it first makes, and then uses, the embedded synthetic radiographs. Every
image is read twice: once to find bad files and copies, once to write it, so that the split is
decided before any shard exists and copies of one radiograph never lie in two splits.

A build that was interrupted goes on where it stopped; a finished one is left alone. Flags that
are not listed here go to Apache Beam: --runner=DataflowRunner --project=… --setup_file=./setup.py,
--direct_num_workers=…, and all the others.
"""

from __future__ import annotations

import os
import time

from absl import flags, logging

from cxr_tfrecords.errors import run_main

FLAGS = flags.FLAGS

flags.DEFINE_string(
    "input_dir",
    "",
    "Folder with one sub-folder a class (<Class>/images/* or <Class>/*), PNG or JPEG. Empty: "
    "make and use the synthetic radiographs.",
)
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
flags.DEFINE_integer(
    "num_shards",
    0,
    "Shards of each split and class. 0: as many as --shard_size asks.",
    lower_bound=0,
)
flags.DEFINE_integer("shard_size", 1024, "Images in a shard, at most.", lower_bound=1)
flags.DEFINE_integer(
    "max_pixels", 64_000_000, "Larger sources are rejected before decoding.", lower_bound=1
)
flags.DEFINE_float(
    "max_bad_fraction",
    0.01,
    "Stop when more than this share of the files cannot be used (each is listed with its reason "
    "in manifest.json either way). 1: never stop.",
    lower_bound=0,
    upper_bound=1,
)
flags.DEFINE_bool("overwrite", False, "Start again, replacing the build in --output_dir.")
flags.DEFINE_bool(
    "resume", True, "Go on with an unfinished build of the same flags; --noresume refuses one."
)
flags.DEFINE_integer(
    "worker_threads", 0, "Threads in a worker. 0: all cores for DirectRunner, else 1."
)
flags.DEFINE_float(
    "synthetic_scale",
    0.05,
    "Without --input_dir: size of the synthetic set. 1.0 is the public data set's "
    "3616/6012/10192/1345 images.",
    lower_bound=0.001,
)


def main(argv: list[str]) -> None:
    from cxr_tfrecords.quiet import quiet_tensorflow

    quiet_tensorflow()
    logging.set_verbosity(logging.ERROR)  # Beam's import notes which optional parts are absent
    # Imported late: --help and a mistyped value of a flag answer at once.
    from beam_pipelines import beam_flags, config, job, sources, summary

    options = beam_flags.parse(argv[1:], list(FLAGS))
    if not beam_flags.runs_locally(options):
        logging.set_verbosity(logging.INFO)  # a remote runner tells its job's address and state

    input_dir = FLAGS.input_dir or _synthetic(FLAGS.synthetic_scale)
    default_output = f"{input_dir.rstrip('/')}-tfrecords" if FLAGS.input_dir else DEFAULT_OUTPUT
    output_dir = FLAGS.output_dir or default_output
    settings = config.BuildConfig(
        image_size=FLAGS.image_size,
        encoding=FLAGS.encoding,
        channels=int(FLAGS.channels),
        test_fraction=FLAGS.test_fraction,
        validation_fraction=FLAGS.validation_fraction,
        split=FLAGS.split,
        seed=FLAGS.seed,
        num_shards=FLAGS.num_shards,
        shard_size=FLAGS.shard_size,
        max_pixels=FLAGS.max_pixels,
    )
    started = time.monotonic()
    found = sources.find_sources(input_dir)
    print(summary.describe_sources(found), flush=True)
    result = job.build(
        found,
        output_dir,
        settings,
        options,
        overwrite=FLAGS.overwrite,
        resume=FLAGS.resume,
        max_bad_fraction=FLAGS.max_bad_fraction,
        threads=FLAGS.worker_threads,
    )
    print(summary.describe_build(result, output_dir, time.monotonic() - started))


DEFAULT_OUTPUT = "data/synthetic-tfrecords"


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
