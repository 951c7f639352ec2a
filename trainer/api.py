"""What `import trainer` gives a notebook or a script, see docs/api.md.

TensorFlow is imported by the functions that need it: `--help` of a command answers at once.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any

from cxr_tfrecords.errors import UserError
from trainer.runs.finished_run import FinishedRun, read_run
from trainer.settings.config import TrainConfig
from trainer.training import start


def train(config: TrainConfig) -> FinishedRun:
    """Trains and evaluates as `python -m trainer.main` does, and returns what it wrote.

    An unfinished run in `config.run_dir` is resumed, a finished one is read. All strategies of one
    process work: `cpu`, `mirrored`, `tpu`, and `auto` if it chooses one of them. TensorFlow sets up
    its devices once, so a process should keep to one strategy.

    Raises:
      UserError: a mistake in the settings or the data; the message says how to mend it.
      cxr_tfrecords.errors.TemporaryError: another process trains into the same directory.
      cxr_tfrecords.errors.DivergedError: the loss or the weights became NaN or infinite.
    """
    if config.strategy == "multi_worker":
        raise UserError(
            "strategy multi_worker needs one command for each worker: run `python -m trainer.main` "
            "on every one, or give strategy='mirrored' for the GPUs of this machine"
        )
    start.train(config, listen=False)
    return read_run(config.run_dir)


def compare_runs(
    run_dirs: Sequence[str | os.PathLike[str]],
    *,
    reference: str = "",
    primary_metric: str = "balanced_accuracy",
    margin: float = 0.02,
    resamples: int = 2000,
    deploy_prior: Sequence[float] | None = None,
    sensitivity: float = 0.95,
    benefit_class: str = "",
    subgroup_csv: str | os.PathLike[str] | None = None,
    subgroup_columns: Sequence[str] = (),
    subgroup_key: str = "",
) -> dict[str, Any]:
    """Compares finished runs on the test split, as `python -m trainer.compare --runs` does.

    Runs that differ in nothing but the seed are one method, named as in `--methods`.

    Args:
      reference: the method that the others are compared with. Empty: `none`, else the first.
      primary_metric: what the verdict is about, see `--primary_metric`. Choose it before looking.
      margin: smallest difference of the primary metric that matters, in its unit (0.02 is two
        points of a percentage). Choose it before looking.
      resamples: of the bootstrap over groups.
      deploy_prior: class shares, in the order of the class names, that probabilities are corrected
        to. None: those of the training split.
      sensitivity: of the operating points, on validation, from 0 to 1.
      benefit_class: class of the decision curves. Empty: the rarest of the training split.
      subgroup_csv, subgroup_columns, subgroup_key: a table of the test images and the columns whose
        values are subgroups, see `--subgroup_csv`, `--subgroup_column` and `--subgroup_key`. None:
        no subgroups.

    Returns:
      The content of comparison.json: `entries` (method -> figures with intervals), `differences`
      (method -> differences to the reference), `subgroups` if a table is given, and what they are
      of.

    Raises:
      UserError: fewer than two methods, an unknown reference or class, a sensitivity that is not
        from 0 to 1, a table that does not fit the test images, or runs of different data.
    """
    from trainer.comparison import compare_methods, method_grid
    from trainer.comparison.methods import group_runs
    from trainer.comparison.subgroups import figures, membership

    subgroup_table = membership.read_subgroups(
        os.fspath(subgroup_csv or ""), subgroup_columns, subgroup_key
    )

    runs = [read_run(os.fspath(path)) for path in run_dirs]
    entries = group_runs(method_grid.name_runs(runs))
    if len(entries) < 2:
        raise UserError(
            f"{len(entries)} method: a comparison needs at least 2. Add runs of another method"
        )
    names = [entry.name for entry in entries]
    content = compare_methods.compare(
        entries,
        reference=reference or method_grid.default_reference(names),
        primary=primary_metric,
        margin=margin,
        resamples=resamples,
        deploy_prior=deploy_prior,
        sensitivity=sensitivity,
        benefit_class=benefit_class,
    )
    if subgroup_table:
        content["subgroups"] = figures.compare_subgroups(entries, content, subgroup_table)
    return json.loads(json.dumps(content))  # plain lists and numbers, as in the file
