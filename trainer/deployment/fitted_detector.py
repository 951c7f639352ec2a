"""The detector of images unlike a run's training images: fitted at first use, then read.

RUN/out_of_distribution.npz holds it, with the scores of validation images, from which a threshold
for any rate of false alarms follows.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from typing import Any

import numpy as np

from cxr_tfrecords import files
from cxr_tfrecords.console.progress import progress
from cxr_tfrecords.dataset_dir import DatasetDir
from cxr_tfrecords.errors import UserError
from trainer.evaluation.out_of_distribution import DETECTORS, choose_threshold
from trainer.input import shard_reading, split_batches
from trainer.runs import run_files, same_run
from trainer.runs.finished_run import FinishedRun
from trainer.runs.run_data import find_data

# More training images improve no detector by much, and each one costs time and, with knn, space.
_LARGEST_SAMPLE = 2000

# uint8 images [batch, S, S, C], of one batch size always, to float32 features [batch, F] and
# logits [batch, classes].
Outputs = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class FittedDetector:
    """A detector and the score above which it flags an image.

    Attributes:
      method: one of `out_of_distribution.DETECTORS`.
      detector: an instance of its class.
      threshold: a score.
      is_stored: whether the run's directory holds it too.
    """

    method: str
    detector: Any
    threshold: float
    is_stored: bool

    def score(self, features: np.ndarray, logits: np.ndarray) -> np.ndarray:
        """float64 [n]: the higher, the less an image is like the training images."""
        return self.detector.score(features, logits)


def open_detector(
    run: FinishedRun, outputs: Outputs, method: str, false_alarms: float
) -> FittedDetector | None:
    """The detector of a run, read from its directory or else fitted and written there.

    Args:
      outputs: of the run's model, for batches of the run's size.
      method: `none` or one of `DETECTORS`.
      false_alarms: the share of images like those of validation that may be flagged.

    Returns:
      None with `none`, and, after a line that says why, where it cannot be had.
    """
    if method == "none":
        return None
    path = os.path.join(run.path, run_files.OUT_OF_DISTRIBUTION)
    fitted_on = {
        "method": method,
        "model": same_run.hash_file(os.path.join(run.path, run_files.MODEL)),
        "data": run.dataset["fingerprint"],
        "fold": run.config.fold,
    }
    try:
        known = _read(path, fitted_on)
        detector, scores, groups = known or _fit(run, outputs, fitted_on)
        threshold = choose_threshold(scores, false_alarms, groups)
        if threshold is None:
            raise UserError(
                f"validation has {len(np.unique(groups))} groups of images, too few for "
                f"--false_alarms={false_alarms:g}: give a higher one"
            )
    except UserError as error:
        print(
            f"{run.path}: images unlike the training images are not flagged ({error}); "
            "--ood_method=none leaves this check out",
            flush=True,
        )
        return None
    is_stored = known is not None or _write(
        path,
        {
            **vars(detector),
            "validation_scores": scores,
            "validation_groups": groups,
            "fitted_on": json.dumps(fitted_on),
        },
    )
    return FittedDetector(method, detector, threshold, is_stored)


def _read(path: str, fitted_on: dict[str, Any]) -> tuple[Any, np.ndarray, np.ndarray] | None:
    """What `_fit` gives; None if the file is absent, damaged or of another model, method, data set
    or version."""
    try:
        with np.load(path) as content:
            if json.loads(str(content["fitted_on"])) != fitted_on:
                return None
            kind = DETECTORS[fitted_on["method"]]
            parts = {field.name: content[field.name] for field in dataclasses.fields(kind)}
            return kind(**parts), content["validation_scores"], content["validation_groups"]
    except files.DAMAGED_ARRAYS:
        return None


def _fit(
    run: FinishedRun, outputs: Outputs, fitted_on: dict[str, Any]
) -> tuple[Any, np.ndarray, np.ndarray]:
    """Fits a detector, and scores n of the validation images.

    Returns:
      The detector, float64 [n] scores, and int64 [n] numbers of the images' groups.

    Raises:
      UserError: the run's data set is not there, is another one, or is damaged.
    """
    data = find_data(run)
    if not data.num_examples("validation"):
        raise UserError("the run has no validation images")
    rows = {
        split: _sample(data, split, balanced=split == "train") for split in ("train", "validation")
    }
    print(
        f"{run.path}: fits the {fitted_on['method']} detector of images unlike the training images "
        f"on {len(rows['train']):,} of these and {len(rows['validation']):,} of validation, once",
        flush=True,
    )
    size = run.config.batch_size
    computed = {split: _features(data, split, rows[split], outputs, size) for split in rows}
    features, labels, logits = computed["train"]
    detector = DETECTORS[fitted_on["method"]].fit(features, labels, logits)
    features, _, logits = computed["validation"]
    validation = run.predictions("validation")  # in the order of the data set
    _, groups = np.unique(validation.groups or validation.ids, return_inverse=True)
    return detector, detector.score(features, logits), groups[rows["validation"]]


def _write(path: str, content: dict[str, Any]) -> bool:
    """Whether the file could be written; if not, a line says why."""
    try:
        with files.replacing(path, suffix=".npz") as temporary:
            np.savez(temporary, **content)
    except OSError as error:
        print(f"{path} cannot be written ({error.strerror or error}): fitted again next time")
        return False
    return True


def _sample(data: DatasetDir, split: str, *, balanced: bool) -> np.ndarray:
    """int64 [n], rising: at most `_LARGEST_SAMPLE` rows in canonical order, of each class equally
    many if `balanced`, always the same ones."""
    labels = np.repeat(np.arange(data.num_classes), data.counts[split])
    order = np.random.default_rng(0).permutation(len(labels))
    if balanced:
        most = max(_LARGEST_SAMPLE // data.num_classes, 1)
        order = np.concatenate([order[labels[order] == c][:most] for c in range(data.num_classes)])
    return np.sort(order[:_LARGEST_SAMPLE])


def _features(
    data: DatasetDir, split: str, rows: np.ndarray, outputs: Outputs, batch_size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features float32 [n, F], labels int32 [n] and logits float32 [n, classes] of rows."""
    # Slots past the end of the split fill the last batch.
    past = data.num_examples(split) + np.arange(-len(rows) % batch_size)
    slots = np.concatenate([rows, past]).reshape(-1, batch_size)
    parts: list[tuple[np.ndarray, ...]] = []
    with (
        split_batches.explained_reads(data),
        progress(len(rows), f"features {split}", " images") as bar,
    ):
        for images, labels in shard_reading.evaluation_records(data, split, slots):
            features, logits = outputs(images.numpy())
            parts.append((features, labels.numpy(), logits))
            bar.update(min(batch_size, len(rows) - bar.n))
    features, labels, logits = (
        np.concatenate(part)[: len(rows)] for part in zip(*parts, strict=True)
    )
    return features, labels, logits
