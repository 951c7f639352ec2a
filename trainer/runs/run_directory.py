"""Writes a run directory: settings, history, curves, model; refuses one that holds another run.

`run_files` lists the files; `checkpoints` writes those that a run resumes from.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import os
import platform
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import sklearn
import tensorflow as tf

import cxr_tfrecords
from cxr_tfrecords import files
from cxr_tfrecords.dataset_dir import DatasetDir
from cxr_tfrecords.errors import UserError, first_line
from cxr_tfrecords.files import replacing
from trainer.epochs.audit import SamplerAudit
from trainer.models import keras_files
from trainer.runs import file_hashes, remote_run, run_files, same_run
from trainer.settings.config import TrainConfig


def start_run(
    config: TrainConfig,
    data: DatasetDir,
    samples: Mapping[str, Any],
    decoupled: Mapping[str, Any] | None = None,
) -> None:
    """Creates the run directory and writes config.json and sampler_counts.json.

    Args:
      samples: training examples of each class, see `finished_run.FinishedRun.samples`.
      decoupled: source run, method and settings of trainer.decouple; None in trainer.main.
    """
    content: dict[str, Any] = {
        "config": config.to_json() | {"run_dir": remote_run.address_of(config.run_dir)},
        "versions": {
            "cxr-balance": cxr_tfrecords.__version__,
            "python": platform.python_version(),
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
            "numpy": np.__version__,
            "scikit-learn": sklearn.__version__,
        },
        "dataset": {
            "path": os.path.abspath(data.path) if files.is_local(data.path) else data.path,
            "fingerprint": data.fingerprint,
            "class_names": list(data.class_names),
            "counts": {split: list(counts) for split, counts in data.counts.items()},
            "image_size": data.image_size,
            "channels": data.channels,
            "split_unit": data.split_unit,
            "balanced_splits": list(data.balanced_splits),
            "folds": data.folds,
            "reading": dataclasses.asdict(data.reading),
            "pixel_rules": data.pixel_rules,
        },
    }
    if os.path.isfile(config.weights):
        content["weights_sha256"] = same_run.hash_file(config.weights)
    if initial := same_run.hash_initial_model(config.init_from):
        content["init_from_sha256"] = initial
    if decoupled is not None:
        content["decoupled"] = decoupled
    os.makedirs(config.run_dir, exist_ok=True)
    write_json(os.path.join(config.run_dir, run_files.CONFIG), content)
    write_json(os.path.join(config.run_dir, run_files.SAMPLER_COUNTS), samples)


def reopen(run_dir: str) -> None:
    """Makes a finished run unfinished, before its epochs grow: its results are of fewer epochs."""
    for name in (run_files.REPORT, run_files.FILE_HASHES):
        with contextlib.suppress(FileNotFoundError):
            os.remove(os.path.join(run_dir, name))


def write_json(path: str, content: Any) -> None:
    """Writes a JSON file of a run, with keys in the given order; NaN, which is not JSON, fails."""
    files.write_json(path, content, sort_keys=False, allow_nan=False)


def write_history(run_dir: str, history: Sequence[Mapping[str, Any]]) -> None:
    """Replaces the whole history.csv, so that a resumed run neither repeats nor loses a row."""
    if not history:
        return
    path = os.path.join(run_dir, run_files.HISTORY)
    with (
        replacing(path) as temporary,
        open(temporary, "w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.DictWriter(file, list(history[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(history)


def write_audit(run_dir: str, audit: SamplerAudit) -> None:
    """Replaces sampler_audit.json."""
    write_json(os.path.join(run_dir, run_files.SAMPLER_AUDIT), audit.to_json())


class TensorBoard:
    """Curves of the history for TensorBoard; replaces those of an earlier start."""

    def __init__(self, run_dir: str, history: Sequence[Mapping[str, Any]]) -> None:
        directory = os.path.join(run_dir, run_files.TENSORBOARD)
        shutil.rmtree(directory, ignore_errors=True)
        self._writer = tf.summary.create_file_writer(directory)
        for row in history:
            self.add(row)

    def add(self, row: Mapping[str, Any]) -> None:
        with self._writer.as_default():
            for name, value in row.items():
                if name not in ("epoch", "step"):
                    tf.summary.scalar(name, value, step=row["epoch"])
        self._writer.flush()


def save_model(run_dir: str, model: keras.Model) -> None:
    """Writes model.keras."""
    with replacing(os.path.join(run_dir, run_files.MODEL), suffix=".keras") as temporary:
        keras_files.save(temporary, model)


def load_model(run_dir: str, num_classes: int = 0) -> keras.Model:
    """Reads model.keras.

    Args:
      num_classes: that the model must tell apart; 0: any number.

    Raises:
      UserError: it is missing, damaged or of another run, a weight is not finite, or it is of
        other classes.
    """
    path = os.path.join(remote_run.local(run_dir), run_files.MODEL)
    try:
        model = keras_files.load(path)
        if num_classes and model.output_shape[-1] != num_classes:
            raise ValueError(
                f"it has {model.output_shape[-1]} outputs, but its run {num_classes} classes"
            )
    # A damaged file makes Keras, zipfile and HDF5 raise errors of any type.
    except Exception as error:
        reason = first_line(error, 160)
        raise UserError(
            f"{path} cannot be read ({reason}): name a finished run whose model was kept"
        ) from error
    file_hashes.check(path)
    return model


@contextlib.contextmanager
def explained_failures(config: TrainConfig) -> Iterator[None]:
    """Turns errors of the disk and lack of device memory into messages of one line.

    Raises:
      UserError: it names --run_dir or --batch_size.
    """
    where = f"--run_dir={config.run_dir}"
    try:
        yield
    except (
        OSError,
        tf.errors.FailedPreconditionError,
        tf.errors.PermissionDeniedError,
        tf.errors.ResourceExhaustedError,
        tf.errors.UnknownError,
    ) as error:
        # TensorFlow raises ResourceExhausted for a full disk as well as for lack of memory.
        if "no space left" in str(error).lower():
            raise UserError(
                f"{where}: no space left on its disk. The last checkpoint is kept: make room, then "
                "run the same command again"
            ) from error
        if isinstance(error, OSError) and error.strerror:
            path = error.filename or config.run_dir
            raise UserError(
                f"{where}: {error.strerror} ({path}): correct this or name another --run_dir"
            ) from error
        reason = re.sub(r"\{\{.*?\}\} ", "", first_line(error))[:200]
        if isinstance(error, tf.errors.ResourceExhaustedError):
            raise UserError(
                f"out of device memory at --batch_size={config.batch_size}: use a smaller one "
                f"({reason})"
            ) from error
        raise UserError(f"{where}: {reason}: correct this or name another --run_dir") from error
