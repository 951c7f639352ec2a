"""Images a second of the training stream for each sampler, and against its peers, interleaved.

  python -m benchmarks.samplers --json=samplers.json --rounds=5

Without --data_dir it builds synthetic radiographs of 224 px first. Every round runs every system
once, in an order that changes; ratios are taken within a round, so that other load on the machine
hits both sides, and the median over rounds is shown. No model is trained: this is what the input
pipeline could feed. Every system delivers as many images as the training split holds, in one
stream; what the start of an epoch costs besides is printed for itself. Our images are mirrored at
random, the peers' are not. A missed target is not an error.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

from absl import flags

from benchmarks import sampler_report
from cxr_tfrecords import dataset_dir, files
from cxr_tfrecords.errors import UserError, run_main
from cxr_tfrecords.quiet import quiet_tensorflow
from trainer.sampling_shares import SAMPLERS

FLAGS = flags.FLAGS

flags.DEFINE_string("data_dir", "", "Dataset directory. Empty: synthetic radiographs, built once.")
flags.DEFINE_float("synthetic_scale", 0.2, "Size of the synthetic set; 1.0: 21,165 images.", 0.001)
flags.DEFINE_string("work_dir", "data/benchmark", "Where the synthetic set is built and kept.")
flags.DEFINE_string("json", "", "File for the rows.")
flags.DEFINE_integer(
    "rounds", 5, "How often every system runs, after a warm-up. 1: no warm-up.", lower_bound=1
)
flags.DEFINE_list("samplers", list(SAMPLERS), "Which to measure; none always is.")
flags.DEFINE_integer("batch_size", 32, "Images in a batch.", lower_bound=1)


def main(argv: list[str]) -> None:
    if argv[1:]:
        raise UserError(f"unknown argument {argv[1]!r}: flags look like --name=value")
    if unknown := set(FLAGS.samplers) - set(SAMPLERS):
        raise UserError(f"--samplers={min(unknown)} is none of {', '.join(SAMPLERS)}")
    data = dataset_dir.load(FLAGS.data_dir or _build())
    print(
        f"{data.path}: {data.num_examples('train'):,} training images, {data.image_size} px, "
        f"{data.encoding}; {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
        flush=True,
    )
    quiet_tensorflow()
    from benchmarks import sampler_rounds

    with tempfile.TemporaryDirectory() as folder:
        measured = sampler_rounds.measure(
            data, folder, FLAGS.samplers, rounds=FLAGS.rounds, batch_size=FLAGS.batch_size
        )
    rows = sampler_report.make_rows(measured)
    print(sampler_report.describe(rows))
    print("\n".join(sampler_report.check_targets(measured)))
    if FLAGS.json:
        files.write_json(FLAGS.json, rows)


def _build() -> str:
    """Path of the synthetic dataset directory, built in a process of its own if it is not there."""
    path = os.path.join(FLAGS.work_dir, f"synthetic-{FLAGS.synthetic_scale:g}-tfrecords")
    command = [sys.executable, "-m", "beam_pipelines.build", f"--output_dir={path}"]
    command += [f"--synthetic_scale={FLAGS.synthetic_scale}", "--image_size=224"]
    if subprocess.run(command, check=False, stdout=subprocess.DEVNULL).returncode:
        raise UserError(f"{' '.join(command)} failed")
    return path


if __name__ == "__main__":
    run_main(main)
