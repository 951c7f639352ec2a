"""Reads a run directory back, for pictures, reports and comparisons.

Only the run's own files are read: no model, no data set, no TensorFlow.
"""

from __future__ import annotations

import csv
import dataclasses
import math
import os
from typing import TYPE_CHECKING, Any

from cxr_tfrecords import csv_rows, dataset_dir, files
from cxr_tfrecords.errors import UserError
from cxr_tfrecords.pages import class_lists
from cxr_tfrecords.pages.markdown import code
from trainer.runs import file_hashes, remote_run, run_files
from trainer.runs.run_schema import find_run_problem
from trainer.settings import chosen_classes
from trainer.settings.config import TrainConfig

if TYPE_CHECKING:
    from trainer.evaluation.predictions import Predictions


# Of each epoch: numbers, and columns that may be undefined where the split lacks a class.
_HISTORY = ("epoch", "step", "learning_rate", "loss", "validation_loss", "seconds")
_FIGURES = ("validation_accuracy", "validation_balanced_accuracy")
# What config.json of earlier versions does not say of the data set.
_EARLIER_DATASET = {"split_unit": "", "balanced_splits": [], "folds": 0}


@dataclasses.dataclass(frozen=True)
class FinishedRun:
    """A run directory's contents.

    Attributes:
      path: the directory; of a run in an object store, a copy on this machine.
      config: the settings.
      versions: software name -> version.
      dataset: path, fingerprint, class_names and counts (split -> examples of each class).
      history: one row of numbers for each epoch.
      metrics: split -> what `predictions.compute_metrics` gives.
      samples: training examples of each class: natural, planned, realised and unique, the last
        two of the first epoch.
      audit: `audit.SamplerAudit.to_json` of all epochs; None if the run trained none, as a run of
        trainer.decouple.
      decoupled: source run, method and settings of trainer.decouple, see `second_stage`; else None.
      network: what `network_parts.network_parts` says of the model; None in runs of versions that
        did not write it.
    """

    path: str
    config: TrainConfig
    versions: dict[str, str]
    dataset: dict[str, Any]
    history: list[dict[str, float]]
    metrics: dict[str, dict[str, Any]]
    samples: dict[str, list[int]]
    audit: dict[str, Any] | None = None
    decoupled: dict[str, Any] | None = None
    network: list[dict[str, Any]] | None = None
    _predictions: dict[str, Predictions] = dataclasses.field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def predictions(self, split: str) -> Predictions:
        """The predictions on `validation` or `test`; their file is read once.

        Raises:
          UserError: the file is missing, was changed, or does not hold the predictions on this
            split.
        """
        # Imported here: it needs scipy, which --help of the commands must not.
        from trainer.evaluation.predictions import read_predictions

        if split not in self._predictions:
            path = run_files.predictions_path(self.path, split)
            predictions = read_predictions(path, self.dataset["counts"][split])
            file_hashes.check(path)
            self._predictions[split] = predictions
        return self._predictions[split]

    @property
    def class_names(self) -> list[str]:
        return self.dataset["class_names"]

    def shown_classes(self, most: int = class_lists.ROWS) -> list[int]:
        """The labels that a page shows, those of the most and the fewest training images."""
        return class_lists.shown_classes(self.dataset["counts"]["train"], most)

    @property
    def chosen_classes(self) -> list[str]:
        """The flags that chose or joined classes of the data set, as Markdown; empty if it has
        these."""
        flags = chosen_classes.describe(self.config.classes, self.config.map_classes)
        return [code(flags)] if flags else []

    @property
    def fold(self) -> list[str]:
        """`["test fold 1 of 5"]`; empty for a data set without folds."""
        fold = self.config.fold
        return [] if fold is None else [f"test fold {fold} of {self.dataset['folds']}"]

    @property
    def updates(self) -> int:
        """Updates of the weights: all steps of training, those of both stages of `crt`."""
        first_stage = (self.decoupled or {}).get("first_stage_updates", 0)
        return int(self.history[-1]["step"]) + first_stage

    @property
    def best(self) -> dict[str, float]:
        """Row of the epoch whose weights were kept: the first with the best monitored value."""
        monitor = self.config.monitor
        sign = 1 if monitor == "validation_loss" else -1
        return min(self.history, key=lambda row: sign * row[monitor])


def read_run(run_dir: str) -> FinishedRun:
    """Reads a run directory, on this machine or in an object store (gs://, s3://).

    Raises:
      UserError: a file is missing or has the wrong content; the message names it.
    """
    with remote_run.reading(run_dir) as folder:
        check_one_run(folder)
        return _read_run(folder)


def check_named(path: str, flag: str = "model") -> None:
    """Refuses a path that leads to no folder, before seconds go into importing TensorFlow.

    Args:
      flag: name of the flag that gave `path`, for the message.

    Raises:
      UserError: what there is, and what to name instead.
    """
    if files.is_local(path) and (problem := _why_no_folder(path)):
        raise UserError(f"--{flag}={path} {problem}")


def _why_no_folder(path: str) -> str:
    if os.path.isdir(path):
        return ""
    if os.path.isfile(path):
        return f"is a file: name its run directory, {os.path.dirname(path) or '.'}"
    return "does not exist: name a finished run directory"


def check_one_run(folder: str) -> None:
    """Refuses what other commands have written where one run is wanted.

    Raises:
      UserError: what the folder is, and what to name instead.
    """
    if problem := _why_no_folder(folder):
        raise UserError(f"{folder} {problem}")
    inside = set(os.listdir(folder))
    if run_files.CASCADE in inside:
        stages = ", ".join(_runs_in(folder))
        raise UserError(
            f"{folder} is a cascade of trainer.cascade, and this takes one run: name that of a "
            f"stage ({stages})"
        )
    if run_files.CONFIG in inside:
        if run_files.METRICS not in inside:
            raise UserError(
                f"{folder} is a run that has not ended: run its training again, the same command "
                "goes on"
            )
        return
    if run_files.EXPORTED in inside:
        raise UserError(
            f"{folder} is an exported model of trainer.export, which trainer.predict and "
            "trainer.serve take, and this takes a run: name the one that it was exported from"
        )
    if dataset_dir.MANIFEST in inside:
        raise UserError(f"{folder} is a data set: name a run that was trained on it")
    if runs := _runs_in(os.path.join(folder, run_files.STUDY_RUNS)):
        raise UserError(f"{folder} is a study: name one of its runs, as {runs[0]}")


def _runs_in(folder: str) -> list[str]:
    """The paths of the runs right below a folder, sorted; none if it is no folder."""
    names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    paths = [os.path.join(folder, name) for name in names]
    return [path for path in paths if os.path.exists(os.path.join(path, run_files.CONFIG))]


def _read_run(run_dir: str) -> FinishedRun:
    settings = _read_json(run_dir, run_files.CONFIG)
    names = settings["dataset"]["class_names"]
    try:
        history = _read_history(run_dir)
        audit = _read_optional(run_dir, run_files.SAMPLER_AUDIT, names)
        if audit and len(audit["epochs"]) != len(history):
            raise UserError(
                f"{os.path.join(run_dir, run_files.HISTORY)} has {len(history)} epochs and "
                f"{run_files.SAMPLER_AUDIT} {len(audit['epochs'])}: one of them was cut or edited"
            )
        if decoupled := settings.get("decoupled"):
            TrainConfig.from_json(decoupled["from_config"])  # its values are checked
        return FinishedRun(
            path=run_dir,
            config=TrainConfig.from_json(settings["config"]),
            versions=settings["versions"],
            dataset=_EARLIER_DATASET | settings["dataset"],
            history=history,
            metrics=read_metrics(run_dir, names),
            samples=_read_json(run_dir, run_files.SAMPLER_COUNTS, names),
            audit=audit,
            decoupled=decoupled,
            network=(_read_optional(run_dir, run_files.NETWORK, names) or {}).get("parts"),
        )
    except UserError as error:  # of a setting's value, which names no file
        path = os.path.join(run_dir, "")
        raise (
            error if path in str(error) else UserError(f"{path}{run_files.CONFIG}: {error}")
        ) from error
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{os.path.join(run_dir, run_files.CONFIG)} is not the file of a training run "
            f"({error}); {_remedy(run_dir)}"
        ) from error


def read_kept_run(run_dir: str, flag: str) -> FinishedRun:
    """Reads a run directory that must hold all results and the model.

    Args:
      flag: name of the flag that gave `run_dir`, for the message.

    Raises:
      UserError: the run is not finished, its model was deleted, or see `read_run`.
    """
    check_named(run_dir, flag)
    folder = remote_run.local(run_dir)
    check_one_run(folder)
    if not run_files.is_finished(folder):
        raise UserError(
            f"--{flag}={run_dir} is not a finished run whose model was kept: name a run directory "
            "of trainer.main, or run its training again to the end"
        )
    return read_run(run_dir)


def check_results(run_dir: str) -> None:
    """Reads all results of a finished run.

    Raises:
      UserError: one of them is damaged; the message names it.
    """
    run = read_run(run_dir)
    for split in run_files.SPLITS:
        run.predictions(split)


def read_metrics(run_dir: str, class_names: list[str]) -> dict[str, dict[str, Any]]:
    """The content of metrics.json.

    Raises:
      UserError: the file is missing, or has the wrong content.
    """
    return _read_json(run_dir, run_files.METRICS, class_names)


def _read_json(run_dir: str, name: str, class_names: list[str] | None = None) -> Any:
    path = os.path.join(run_dir, name)
    content = files.read_named_json(path, _remedy(run_dir))
    problem = find_run_problem(name, content, class_names)
    if problem:
        raise UserError(f"{path} is damaged or of another version: {problem}; {_remedy(run_dir)}")
    return content


def _remedy(run_dir: str) -> str:
    return f"is {run_dir} a finished run?"


def _read_optional(run_dir: str, name: str, class_names: list[str]) -> dict[str, Any] | None:
    if not os.path.exists(os.path.join(run_dir, name)):
        return None
    return _read_json(run_dir, name, class_names)


def _read_history(run_dir: str) -> list[dict[str, float]]:
    path = os.path.join(run_dir, run_files.HISTORY)
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = [{k: float(v) for k, v in row.items()} for row in csv_rows.dict_reader(file)]
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; {_remedy(run_dir)}") from error
    except (ValueError, TypeError, AttributeError, csv.Error) as error:
        raise UserError(f"{path} is damaged ({error}); {_remedy(run_dir)}") from error
    missing = [n for n in _HISTORY if any(not math.isfinite(r.get(n, math.nan)) for r in rows)]
    missing += [n for n in _FIGURES if any(n not in row for row in rows)]
    if missing:
        raise UserError(f"{path} is damaged (no number for {missing[0]}); {_remedy(run_dir)}")
    if not rows:
        raise UserError(f"{path} holds no epoch; {_remedy(run_dir)}")
    return rows
