"""How often the prediction sets of trained models hold the true class, on their test images.

  python -m benchmarks.prediction_sets --runs='STUDY/runs/mobilenet_v2-none-seed*'

Thresholds are chosen on each run's validation predictions, once for each class by itself, as
trainer.predict does, and once for all classes together (marginal). The test images of all runs are
counted together, with intervals over groups of images.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from absl import flags

from cxr_tfrecords.errors import UserError, require_flags, run_main
from cxr_tfrecords.pages.markdown import markdown_table

if TYPE_CHECKING:
    from trainer.runs.finished_run import FinishedRun

FLAGS = flags.FLAGS

flags.DEFINE_list("runs", [], "Finished runs of one data set, or patterns of them.")
flags.DEFINE_float("coverage", 0.9, "Of the sets.", lower_bound=0, upper_bound=1)


def main(argv: list[str]) -> None:
    del argv
    require_flags("runs")
    # Below, too: these need SciPy, which --help does not.
    from trainer.comparison.method_grid import find_runs
    from trainer.comparison.methods import group_runs

    [entry, *more] = group_runs(find_runs(FLAGS.runs, folds=False))
    if more:
        raise UserError("--runs matches runs of several methods: name those of one")
    header = [
        "",
        "images",
        "by class: held, %",
        "classes in a set",
        "marginal: held, %",
        "in a set",
    ]
    print(markdown_table(header, measure(entry.runs, FLAGS.coverage)))


def measure(runs: Sequence[FinishedRun], coverage: float) -> list[list[str]]:
    """Rows of the table: one for each class, and one for all images."""
    from trainer.evaluation.shares import grouped_share

    tests = [run.predictions("test") for run in runs]
    sets = {
        by_class: [_sets(run, coverage, by_class) for run in runs] for by_class in (True, False)
    }
    labels = np.concatenate([test.labels for test in tests])
    groups = np.concatenate([test.groups or test.ids for test in tests])
    names = runs[0].class_names
    rows = []
    for name, kept in [(n, labels == c) for c, n in enumerate(names)] + [("all", labels >= 0)]:
        row = [name, f"{kept.sum() / len(runs):,.0f}"]
        for given in sets.values():
            of_kind = np.concatenate(given)[kept]
            held = grouped_share(of_kind[np.arange(len(of_kind)), labels[kept]], groups[kept])
            ends = [f"{100 * (end or 0):.1f}" for end in (held.estimate, held.low, held.high)]
            row += [f"{ends[0]} [{ends[1]}, {ends[2]}]", f"{of_kind.sum(axis=1).mean():.2f}"]
        rows.append(row)
    return rows


def _sets(run: FinishedRun, coverage: float, by_class: bool) -> np.ndarray:
    """bool [n, classes], the sets of the test images."""
    from trainer.evaluation.conformal import choose_thresholds, prediction_sets, upper_bound

    validation = run.predictions("validation")
    labels, probabilities = validation.labels, validation.probabilities
    if by_class:
        thresholds = choose_thresholds(labels, probabilities, coverage, validation.groups)
    else:
        of_truth = probabilities[np.arange(len(labels)), labels]
        bound = upper_bound(-of_truth, coverage, validation.groups)
        thresholds = np.full(len(run.class_names), 0.0 if bound is None else -bound)
    return prediction_sets(run.predictions("test").probabilities, thresholds)


if __name__ == "__main__":
    run_main(main)
