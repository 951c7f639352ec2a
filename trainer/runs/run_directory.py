"""The files of a run directory that are not checkpoints: settings, history, finish, failures.

RUN/
  config.json            all flags, versions, the data set's fingerprint and counts; `decoupled` if
                         trainer.decouple made it from another run
  sampler_counts.json    class counts before and after sampling
  sampler_audit.json     what each epoch's sampling was, see trainer.epochs.audit
  history.csv            one row an epoch
  tensorboard/           the same as curves
  profile/               with --profile, see trainer.training.step_profile
  checkpoints/           see trainer.runs.checkpoints
  predictions_*.csv      every example of validation and test
  model.keras            the trained model, loads without code of ours
  metrics.json           computed from the predictions
  *.png, report.md       pictures and a page that shows them
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import json
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
from cxr_tfrecords.dataset_dir import DatasetDir
from cxr_tfrecords.errors import UserError
from cxr_tfrecords.files import replacing
from trainer.epochs.audit import FILE_NAME, SamplerAudit
from trainer.runs import checkpoints
from trainer.settings.config import TrainConfig

CHECKPOINTS = "checkpoints"
# Written last, in this order: a run that has them all is finished.
_FINAL_FILES = (
    "predictions_validation.csv",
    "predictions_test.csv",
    "model.keras",
    "metrics.json",
    "report.md",
)


def check_same_run(config: TrainConfig, data: DatasetDir) -> None:
    """Refuses a run directory that holds checkpoints or results of other settings or data.

    Settings of a run that has no checkpoint yet bind nobody: `start_run` replaces them.

    Raises:
      UserError: naming each flag that differs, with both values.
    """
    path = os.path.join(config.run_dir, "config.json")
    if not os.path.exists(path):
        return
    if _is_decoupled(path):
        raise UserError(
            f"--run_dir={config.run_dir} holds a run of trainer.decouple: name another --run_dir"
        )
    if not checkpoints.exist(os.path.join(config.run_dir, CHECKPOINTS)):
        return
    try:
        content = read_json(path)
        settings, fingerprint = content["config"], content["dataset"]["fingerprint"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error}): use another --run_dir") from error
    differing = config.differences(settings)
    if fingerprint != data.fingerprint:
        differing.append(
            f"--data_dir: {content['dataset'].get('path')} (fingerprint {fingerprint[:8]}) "
            f"there, {data.path} (fingerprint {data.fingerprint[:8]}) here"
        )
    weights = content.get("weights_sha256")
    if weights and os.path.isfile(config.weights) and hash_file(config.weights) != weights:
        differing.append(f"--weights={config.weights}: the file is not what it was")
    if differing:
        raise UserError(
            f"--run_dir={config.run_dir} holds another run: name another --run_dir, or give that "
            f"run's flags ({'; '.join(differing)})"
        )


def check_decoupled_run(run_dir: str) -> None:
    """Refuses a directory that holds a run, unless it is an unfinished one of trainer.decouple,
    which takes a moment to make anew.

    Raises:
      UserError: the directory is taken.
    """
    path = os.path.join(run_dir, "config.json")
    if is_finished(run_dir) or (os.path.exists(path) and not _is_decoupled(path)):
        raise UserError(f"--run_dir={run_dir} holds a run already: name another --run_dir")


def _is_decoupled(config_path: str) -> bool:
    try:
        return "decoupled" in read_json(config_path)
    except (ValueError, TypeError):
        return False


def start_run(
    config: TrainConfig,
    data: DatasetDir,
    samples: Mapping[str, Any],
    decoupled: Mapping[str, Any] | None = None,
) -> None:
    """Makes the run directory and writes config.json and sampler_counts.json.

    Args:
      decoupled: see `second_stage`; None for a run that was trained from its start.
    """
    content: dict[str, Any] = {
        "config": config.to_json(),
        "versions": {
            "cxr-tfrecords": cxr_tfrecords.__version__,
            "python": platform.python_version(),
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
            "numpy": np.__version__,
            "scikit-learn": sklearn.__version__,
        },
        "dataset": {
            "path": os.path.abspath(data.path),
            "fingerprint": data.fingerprint,
            "class_names": list(data.class_names),
            "counts": {split: list(counts) for split, counts in data.counts.items()},
            "image_size": data.image_size,
            "channels": data.channels,
            "split_unit": data.split_unit,
            "balanced_splits": list(data.balanced_splits),
        },
    }
    if os.path.isfile(config.weights):
        content["weights_sha256"] = hash_file(config.weights)
    if decoupled is not None:
        content["decoupled"] = decoupled
    os.makedirs(config.run_dir, exist_ok=True)
    write_json(os.path.join(config.run_dir, "config.json"), content)
    write_json(os.path.join(config.run_dir, "sampler_counts.json"), samples)


def is_finished(run_dir: str) -> bool:
    return all(os.path.exists(os.path.join(run_dir, name)) for name in _FINAL_FILES)


def write_json(path: str, content: Any) -> None:
    """Writes under a temporary name and renames, so that no half-written file is ever read."""
    with replacing(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        json.dump(content, file, indent=1, ensure_ascii=False, allow_nan=False)
        file.write("\n")


def read_json(path: str) -> Any:
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def write_history(run_dir: str, history: Sequence[Mapping[str, Any]]) -> None:
    """Writes history.csv anew: resuming can then neither repeat nor lose a row."""
    if not history:
        return
    path = os.path.join(run_dir, "history.csv")
    with (
        replacing(path) as temporary,
        open(temporary, "w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.DictWriter(file, list(history[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(history)


def write_audit(run_dir: str, audit: SamplerAudit) -> None:
    """Writes sampler_audit.json anew."""
    write_json(os.path.join(run_dir, FILE_NAME), audit.to_json())


class TensorBoard:
    """Curves of the history; starts anew with the rows that are there already."""

    def __init__(self, run_dir: str, history: Sequence[Mapping[str, Any]]) -> None:
        directory = os.path.join(run_dir, "tensorboard")
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
    with replacing(os.path.join(run_dir, "model.keras"), suffix=".keras") as temporary:
        model.save(temporary)


def load_model(run_dir: str) -> keras.Model:
    """Reads model.keras.

    Raises:
      UserError: it is missing or damaged.
    """
    path = os.path.join(run_dir, "model.keras")
    try:
        return keras.models.load_model(path, compile=False)
    except (OSError, ValueError, TypeError) as error:
        reason = _first_line(error)[:160]
        raise UserError(f"{path} cannot be read ({reason})") from error


@contextlib.contextmanager
def explained_failures(config: TrainConfig) -> Iterator[None]:
    """Turns a failing disk and too little device memory into one line each."""
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
        # TensorFlow reports a full disk as ResourceExhausted, as it does too little memory.
        if "no space left" in str(error).lower():
            raise UserError(
                f"{where}: no space left on its disk. The last checkpoint is kept: make room, then "
                "run the same command again"
            ) from error
        if isinstance(error, OSError) and error.strerror:
            path = error.filename or config.run_dir
            raise UserError(f"{where}: {error.strerror} ({path})") from error
        reason = re.sub(r"\{\{.*?\}\} ", "", _first_line(error))[:200]
        if isinstance(error, tf.errors.ResourceExhaustedError):
            raise UserError(
                f"out of device memory at --batch_size={config.batch_size}: use a smaller one "
                f"({reason})"
            ) from error
        raise UserError(f"{where}: {reason}") from error


def hash_file(path: str) -> str:
    """Hex SHA-256."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
