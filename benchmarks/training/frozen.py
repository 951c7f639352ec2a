"""A frozen backbone run twice by `trainer.main`: images in memory, and its features in memory."""

from __future__ import annotations

import csv
import dataclasses
import os
import subprocess
import sys
import time
from collections.abc import Sequence

from cxr_tfrecords import files
from cxr_tfrecords.dataset_dir import DatasetDir
from cxr_tfrecords.errors import UserError
from trainer.settings.config import TrainConfig

CACHES = ("memory", "features")


@dataclasses.dataclass(frozen=True)
class Run:
    """A run of the whole command.

    Attributes:
      command_s: seconds from its start to its end.
      setup_s: from its first line to the one on the model: decoding and building, and whatever
        else is done once.
      training_s: from the line on the model to that of the last epoch.
      epochs_s: the sum of `seconds` in history.csv, training and validation of all epochs.
      test_accuracy: from metrics.json.
    """

    command_s: float
    setup_s: float
    training_s: float
    epochs_s: float
    test_accuracy: float


def measure(
    data: DatasetDir,
    config: TrainConfig,
    folder: str,
    *,
    epochs: int,
    more: Sequence[str] = (),
) -> dict[str, Run]:
    """Runs the command once with each cache, below `folder`; `more`: further flags."""
    runs = {}
    for cache in CACHES:
        run_dir = os.path.join(folder, cache)
        flags = {
            "data_dir": data.path,
            "run_dir": run_dir,
            "strategy": "cpu",
            "backbone": config.backbone,
            "weights": config.weights,
            "batch_size": config.batch_size,
            "trainable": "head",
            "cache": cache,
            "epochs": epochs,
            "early_stopping_patience": 0,
        }
        given = [f"--{name}={value}" for name, value in flags.items()]
        runs[cache] = _run([*given, *more], run_dir)
        print(f"frozen, --cache={cache}: {runs[cache]}", flush=True)
    return runs


def _run(arguments: Sequence[str], run_dir: str) -> Run:
    command = [sys.executable, "-m", "trainer.main", *arguments]
    started = time.monotonic()
    seen: list[tuple[float, str]] = []
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
    )
    with process:
        assert process.stdout is not None
        for line in process.stdout:
            seen.append((time.monotonic(), line))
    ended = time.monotonic()
    if process.returncode:
        said = " | ".join(line.strip() for _, line in seen[-3:])
        raise UserError(f"{' '.join(command)} ended with exit code {process.returncode}: {said}")
    first, model = _last(seen, "data: "), _last(seen, "model: ")
    with open(os.path.join(run_dir, "history.csv"), encoding="utf-8") as file:
        epochs_s = sum(float(row["seconds"]) for row in csv.DictReader(file))
    metrics = files.read_json(os.path.join(run_dir, "metrics.json"))
    return Run(
        command_s=ended - started,
        setup_s=model - first,
        training_s=_last(seen, "epoch ") - model,
        epochs_s=epochs_s,
        test_accuracy=metrics["test"]["accuracy"],
    )


def _last(seen: Sequence[tuple[float, str]], start: str) -> float:
    """When the last line that starts so came."""
    return max(when for when, line in seen if line.startswith(start))
