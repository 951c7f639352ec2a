"""Images a second of the training stream for each sampler, and against its peers, interleaved.

  python -m benchmarks.samplers --json=samplers.json --rounds=5

Without --data_dir it builds synthetic radiographs of 224 px first. Every round runs every system
once, in an order that changes; ratios are taken within a round, so that other load on the machine
hits both sides, and the median over rounds is shown. No model is trained: this is what the input
pipeline could feed. Every system delivers as many images as the training split holds, from memory
ten times as many, in one stream; what the start of an epoch costs besides is printed for itself.
Our images are mirrored at random, the peers' are not. A missed target is not an error.
"""

from __future__ import annotations

import tempfile

from absl import flags

from benchmarks import dataset_flags
from benchmarks.samplers.report import check_targets, describe, make_rows
from cxr_tfrecords import files
from cxr_tfrecords.console.quiet import quiet_tensorflow
from cxr_tfrecords.errors import UserError, run_main
from trainer.balancing.sampler_table import SAMPLERS

FLAGS = flags.FLAGS
flags.adopt_module_key_flags(dataset_flags)

flags.DEFINE_integer(
    "rounds", 5, "How often every system runs, after a warm-up. 1: no warm-up.", lower_bound=1
)
flags.DEFINE_list(
    "samplers", list(SAMPLERS), "Samplers to measure; the sampler none is always measured as well."
)


def main(argv: list[str]) -> None:
    del argv
    if unknown := set(FLAGS.samplers) - set(SAMPLERS):
        raise UserError(f"--samplers={min(unknown)} is not one of {', '.join(SAMPLERS)}")
    data = dataset_flags.open_dataset(image_size=224)
    print(dataset_flags.describe(data), flush=True)
    quiet_tensorflow()
    from benchmarks.samplers.rounds import measure

    with tempfile.TemporaryDirectory() as folder:
        measured = measure(
            data, folder, FLAGS.samplers, rounds=FLAGS.rounds, batch_size=FLAGS.batch_size
        )
    rows = make_rows(measured)
    print(describe(rows))
    print("\n".join(check_targets(measured)))
    if FLAGS.json:
        files.write_json(FLAGS.json, rows)


if __name__ == "__main__":
    run_main(main)
