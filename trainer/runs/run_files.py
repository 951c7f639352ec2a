"""The files of a run directory: their names, and when a run is finished. Nothing here needs Keras.

RUN/
  config.json            all flags, versions, the data set's fingerprint and counts; `decoupled` if
                         trainer.decouple made it from another run
  sampler_counts.json    class counts before and after sampling
  sampler_audit.json     what the sampler did in each epoch, see trainer.epochs.audit
  history.csv            one row for each epoch
  tensorboard/           the same as curves
  profile/               with --profile, see trainer.training.step_profile
  checkpoints/           see trainer.runs.checkpoints
  predictions_*.csv      every example of validation and test
  model.keras            the trained model, which loads without this package
  network.json           its parts with shapes and parameters
  metrics.json           computed from the predictions
  file_hashes.json       of the predictions and the model, see trainer.runs.file_hashes
  diverged.json          only of a try of `trainer.compare --tune` whose loss became NaN or infinite
  out_of_distribution.npz  from trainer.predict, see trainer.deployment.fitted_detector
  *.png, report.md       pictures and a page that shows them
  .lock                  while a process writes the directory, see cxr_tfrecords.concurrency.locks
"""

from __future__ import annotations

import os
import re

CONFIG = "config.json"
SAMPLER_COUNTS = "sampler_counts.json"
SAMPLER_AUDIT = "sampler_audit.json"
HISTORY = "history.csv"
TENSORBOARD = "tensorboard"
CHECKPOINTS = "checkpoints"
RESUME = "resume"  # below it: the checkpoints to resume from
MODEL = "model.keras"
METRICS = "metrics.json"
FILE_HASHES = "file_hashes.json"
NETWORK = "network.json"
OUT_OF_DISTRIBUTION = "out_of_distribution.npz"
REPORT = "report.md"
DIVERGED = "diverged.json"
# In the folder of a cascade, whose stages are runs: the last file of its evaluation.
CASCADE = "cascade.json"
CASCADE_PAGE = "cascade.md"
CASCADE_TREE = "tree.png"
CASCADE_ROUTES = "routes_test.csv"
# In a folder of trainer.export, which is no run.
EXPORTED = "deployment.json"
# In the folder of a study: its runs.
STUDY_RUNS = "runs"
# The splits that a run predicts.
SPLITS = ("validation", "test")


def predictions_path(run_dir: str, split: str) -> str:
    """The CSV file of a run's predictions on `validation` or `test`."""
    return os.path.join(run_dir, f"predictions_{split}.csv")


# All files of a cascade but its stages; no stage has a folder of such a name.
OF_CASCADE = (
    *(CASCADE, CASCADE_PAGE, CASCADE_TREE, CASCADE_ROUTES),
    *(predictions_path("", split) for split in SPLITS),
)


def is_finished(run_dir: str, *, with_model: bool = True) -> bool:
    """Whether a run has written all its results; report.md is the last of them.

    Args:
      with_model: model.keras is required too. A comparison does not need it, so that a study's
        models may be deleted.
    """
    needed = [predictions_path(run_dir, split) for split in SPLITS]
    needed += [os.path.join(run_dir, name) for name in (METRICS, REPORT)]
    if with_model:
        needed.append(os.path.join(run_dir, MODEL))
    return all(map(os.path.exists, needed))


def has_checkpoint(run_dir: str) -> bool:
    """Whether a run has a checkpoint to resume from, damaged or not."""
    return bool(list_checkpoints(os.path.join(run_dir, CHECKPOINTS, RESUME)))


def list_checkpoints(directory: str) -> list[tuple[int, int]]:
    """(epoch, steps of the next epoch) of each checkpoint in a folder, the oldest first."""
    if not os.path.isdir(directory):
        return []
    matches = (re.fullmatch(r"epoch-(\d+)(?:-step-(\d+))?", name) for name in os.listdir(directory))
    return sorted((int(match[1]), int(match[2] or 0)) for match in matches if match)
