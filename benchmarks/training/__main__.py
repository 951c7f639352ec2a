"""How fast a model is trained: our loop against a plain step, Keras' `fit` and PyTorch.

  python -m benchmarks.training --json=training.json --torch_python=PYTHON
  python -m benchmarks.training --parts=loop,frozen --weights=FILE.h5

Without --data_dir it builds synthetic radiographs of 96 px first. Every system runs in a process of
its own that is kept warm; in every round each trains --steps steps, in an order that changes.
Ratios are taken within a round, so that other load on the machine hits both sides; their median
and spread are shown as Markdown. docs/speed.md says what each figure is. A missed target is not an
error.
"""

from __future__ import annotations

import os
import sys
import tempfile

from absl import flags

from benchmarks import dataset_flags
from cxr_tfrecords import dataset_dir, files
from cxr_tfrecords.errors import UserError, run_main
from trainer.settings.config import TrainConfig

FLAGS = flags.FLAGS
flags.adopt_module_key_flags(dataset_flags)
PARTS = ("loop", "steps_per_loop", "workers", "frozen")

flags.DEFINE_list(
    "parts",
    list(PARTS),
    "loop: our loop, a plain step, Keras' fit and PyTorch. steps_per_loop: 1, 10 and 100 steps "
    "between two looks of the host. workers: one process and two, each on a core of its own. "
    "frozen: two whole runs of --trainable=head.",
)
flags.DEFINE_string("backbone", "mobilenet_v2", "As in trainer.main; PyTorch: mobilenet_v2.")
flags.DEFINE_string("weights", "none", "As in trainer.main. Speed depends on it in no part.")
flags.DEFINE_integer("rounds", 5, "How often every system runs, after a warm-up.", lower_bound=1)
flags.DEFINE_integer(
    "steps", 100, "Steps that a system trains in a round; in steps_per_loop at least 100.", 1
)
flags.DEFINE_integer("frozen_epochs", 20, "Epochs of the two runs of frozen.", lower_bound=1)
flags.DEFINE_list(
    "frozen_flags", [], "More flags of trainer.main for the two runs of frozen, as --noflip."
)
flags.DEFINE_string("torch_python", sys.executable, "Interpreter in which PyTorch is installed.")


def main(argv: list[str]) -> None:
    del argv
    if unknown := set(FLAGS.parts) - set(PARTS):
        raise UserError(f"--parts={min(unknown)} is not one of {', '.join(PARTS)}")
    data = dataset_flags.open_dataset(image_size=96)
    machine = dataset_flags.describe(data)
    print(machine, flush=True)
    from benchmarks.training.report import (
        describe,
    )

    with tempfile.TemporaryDirectory() as folder:
        rows, checks = _measure(data, folder)
    print(f"load {os.getloadavg()[0]:.1f} at the end\n")
    print(describe(rows, checks, FLAGS.batch_size))
    if FLAGS.json:
        files.write_json(FLAGS.json, {"machine": machine, "rows": rows, "checks": checks})


def _measure(data: dataset_dir.DatasetDir, folder: str) -> tuple[list[dict], list[dict]]:
    """Rows and checks of all parts; what runs write goes below `folder`."""
    from benchmarks.training import frozen as training_frozen
    from benchmarks.training import workers as training_workers
    from benchmarks.training.report import (
        LOOP_COMPARISONS,
        WORKER_COMPARISONS,
        check_frozen,
        check_speeds,
        frozen_rows,
        loop_comparisons,
        speed_rows,
    )
    from benchmarks.training.rounds import LOOPS, measure_loop, measure_steps_per_loop

    config = TrainConfig(
        data_dir=data.path,
        run_dir=os.path.join(folder, "run"),
        backbone=FLAGS.backbone,
        weights=FLAGS.weights,
        batch_size=FLAGS.batch_size,
        cache="memory",
    )
    steps, rounds = FLAGS.steps, FLAGS.rounds
    loops = loop_comparisons((FLAGS.backbone, "tiny"), LOOPS)
    parts = {
        "loop": (
            lambda: measure_loop(data, config, steps, rounds, FLAGS.torch_python),
            LOOP_COMPARISONS,
        ),
        "steps_per_loop": (
            lambda: measure_steps_per_loop(config, steps, rounds),
            loops,
        ),
        "workers": (
            lambda: training_workers.measure(config, steps, rounds),
            WORKER_COMPARISONS,
        ),
    }
    rows: list[dict] = []
    checks: list[dict] = []
    for name, (measure, comparisons) in parts.items():
        if name in FLAGS.parts:
            measured = measure()
            rows += speed_rows(name, measured, FLAGS.batch_size)
            checks += check_speeds(measured, comparisons)
    if "frozen" in FLAGS.parts:
        runs = training_frozen.measure(
            data, config, folder, epochs=FLAGS.frozen_epochs, more=FLAGS.frozen_flags
        )
        rows += (frozen := frozen_rows(runs))
        checks += check_frozen(frozen, data.num_examples("test"))
    return rows, checks


if __name__ == "__main__":
    run_main(main)
