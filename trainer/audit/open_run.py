"""A finished run with its data set: what is audited. Nothing here needs TensorFlow."""

from __future__ import annotations

from cxr_tfrecords import dataset_dir
from cxr_tfrecords.dataset_dir import DatasetDir
from cxr_tfrecords.errors import UserError
from trainer.runs.finished_run import FinishedRun, read_kept_run
from trainer.runs.run_data import find_data


def open_run(path: str, data_dir: str) -> tuple[FinishedRun, DatasetDir]:
    """A finished run and its data set, as the run saw it.

    Args:
      data_dir: another place of the same images; empty: where the run found them.

    Raises:
      UserError: the run is not finished, or the data set is not there.
    """
    run = read_kept_run(path, "model")
    if not data_dir:
        return run, find_data(run)
    # Its fingerprint may be another one: a build with lung masks of the same images.
    data = run.config.shown(dataset_dir.load(data_dir, run.config.fold))
    if list(data.class_names) != list(run.class_names):
        raise UserError(f"{data.path} has other classes than {path}: name the data set of the run")
    return run, data
