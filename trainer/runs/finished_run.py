"""What a finished run left in its directory, read back for pictures, reports and comparisons.

Only the files themselves are read: no model, no data set, no TensorFlow.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import os
from typing import Any

from cxr_tfrecords.errors import UserError
from trainer.epochs.audit import FILE_NAME
from trainer.settings.config import TrainConfig

SPLITS = ("validation", "test")


@dataclasses.dataclass(frozen=True)
class FinishedRun:
    """A run directory's contents.

    Attributes:
      path: the directory.
      config: the settings; versions: of the software, by name.
      dataset: path, fingerprint, class_names and counts (split -> examples of each class).
      history: one row of numbers an epoch.
      metrics: split -> what `predictions.compute_metrics` gives.
      samples: training examples of each class: natural, planned, realised and unique, the last
        two of the first epoch.
      audit: `sampler_audit.SamplerAudit.to_json` of all epochs; None of a run made before it was.
      decoupled: None, or what trainer.decouple made it from and how, see `second_stage`.
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

    @property
    def class_names(self) -> list[str]:
        return self.dataset["class_names"]

    @property
    def best(self) -> dict[str, float]:
        """Row of the epoch whose weights were kept: the first with the best monitored value."""
        monitor = self.config.monitor
        sign = 1 if monitor == "validation_loss" else -1
        return min(self.history, key=lambda row: sign * row[monitor])


def read_run(run_dir: str) -> FinishedRun:
    """Reads a run directory.

    Raises:
      UserError: a file is missing or not what a run writes; the message names it.
    """
    settings = _read_json(run_dir, "config.json")
    try:
        return FinishedRun(
            path=run_dir,
            config=TrainConfig.from_json(settings["config"]),
            versions=settings["versions"],
            dataset=settings["dataset"],
            history=_read_history(run_dir),
            metrics=_read_json(run_dir, "metrics.json"),
            samples=_read_json(run_dir, "sampler_counts.json"),
            audit=_read_audit(run_dir),
            decoupled=settings.get("decoupled"),
        )
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{os.path.join(run_dir, 'config.json')} is not of a training run ({error})"
        ) from error


def _read_json(run_dir: str, name: str) -> Any:
    path = os.path.join(run_dir, name)
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; is {run_dir} a finished run?") from error
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error})") from error


def _read_audit(run_dir: str) -> dict[str, Any] | None:
    if not os.path.exists(os.path.join(run_dir, FILE_NAME)):
        return None
    return _read_json(run_dir, FILE_NAME)


def _read_history(run_dir: str) -> list[dict[str, float]]:
    path = os.path.join(run_dir, "history.csv")
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; is {run_dir} a finished run?") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is damaged ({error})") from error
    if not rows:
        raise UserError(f"{path} holds no epoch")
    return rows
