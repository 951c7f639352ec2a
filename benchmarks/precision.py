"""Loss curves of bfloat16 against float32: the same runs of trainer.main, once in each precision.

  python -m benchmarks.precision --data_dir=DATA --weights=FILE.h5 --picture=docs/bfloat16.png

Images, their order, flips and initial weights are the same; only --mixed_precision differs, and
with it what dropout drops, whose random numbers are drawn in the same precision. Seeds differ among
themselves as well: what bfloat16 changes is to be read against that. Finished runs are used again.
Nothing is said of speed, because CPUs are made for float32.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence

from absl import flags

from cxr_tfrecords.errors import UserError, run_main
from cxr_tfrecords.pages import plot_style
from cxr_tfrecords.pages.markdown import markdown_table
from trainer.runs.finished_run import FinishedRun, read_run
from trainer.settings.table import PRECISIONS

FLAGS = flags.FLAGS

flags.DEFINE_string("data_dir", "", "Dataset directory.")
flags.DEFINE_string("backbone", "mobilenet_v2", "As in trainer.main.")
flags.DEFINE_string("weights", "none", "As in trainer.main.")
flags.DEFINE_string("sampler", "oversample", "As in trainer.main.")
flags.DEFINE_integer("epochs", 8, "Of every run.", lower_bound=1)
flags.DEFINE_list("seeds", ["0", "1"], "Runs of each precision.")
flags.DEFINE_string("work_dir", "data/precision", "Where the runs are kept.")
flags.DEFINE_string("picture", "", "File for the figure.")

_Runs = Mapping[tuple[str, str], FinishedRun]  # (precision, seed) -> run


def main(argv: list[str]) -> None:
    del argv
    runs = {key: _train(*key) for key in itertools.product(PRECISIONS, FLAGS.seeds)}
    print(_table(runs))
    if FLAGS.picture:
        _draw(runs, FLAGS.seeds, FLAGS.picture)


def _train(precision: str, seed: str) -> FinishedRun:
    run_dir = os.path.join(FLAGS.work_dir, f"{precision}-seed{seed}")
    arguments = [
        *(f"--data_dir={FLAGS.data_dir}", f"--run_dir={run_dir}", f"--backbone={FLAGS.backbone}"),
        *(f"--weights={FLAGS.weights}", f"--sampler={FLAGS.sampler}", f"--epochs={FLAGS.epochs}"),
        *("--early_stopping_patience=0", f"--mixed_precision={precision}", f"--seed={seed}"),
    ]
    command = [sys.executable, "-m", "trainer.main", *arguments]
    print(f"python -m trainer.main {' '.join(arguments)}", flush=True)
    if subprocess.run(command, check=False, stdout=subprocess.DEVNULL).returncode:
        raise UserError("trainer.main failed, see above")
    return read_run(run_dir)


def _table(runs: _Runs) -> str:
    """A row a run: losses of the last epoch, and the test split with the best epoch's weights."""
    header = ["precision", "seed", "training loss", "validation loss", "accuracy", "balanced"]
    lines = []
    for (precision, seed), run in runs.items():
        last, test = run.history[-1], run.metrics["test"]
        losses = [f"{last[name]:.4f}" for name in ("loss", "validation_loss")]
        shares = [f"{test[name]:.1%}" for name in ("accuracy", "balanced_accuracy")]
        lines.append([precision, seed, *losses, *shares])
    return markdown_table(header, lines)


def _draw(runs: _Runs, seeds: Sequence[str], path: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    titles = {"loss": "Training loss", "validation_loss": "Validation loss"}
    with plt.rc_context(plot_style.STYLE):
        figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
        for axis, (column, title) in zip(axes, titles.items(), strict=True):
            for (precision, seed), run in runs.items():
                axis.plot(
                    [row["epoch"] for row in run.history],
                    [row[column] for row in run.history],
                    color=f"C{seeds.index(seed)}",
                    linestyle="-" if precision == "float32" else "--",
                    marker="o" if precision == "float32" else "x",
                    label=f"{precision}, seed {seed}",
                )
            axis.set(title=title, xlabel="epoch")
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
        figure.savefig(path, dpi=110)
        plt.close(figure)


if __name__ == "__main__":
    run_main(main)
