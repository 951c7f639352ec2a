"""Features on disk, for other runs with the same images and the same backbone: `--features_dir`.

The name of a file holds a digest of all that its content depends on, down to the rounding of sums.
So a run trains on it exactly as on features that it computes itself. A digest of the content stands
at its end, where NumPy does not look: a file that was damaged or changed is computed again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from typing import BinaryIO

import keras
import numpy as np
import tensorflow as tf

from cxr_tfrecords import files
from cxr_tfrecords.dataset_dir import DatasetDir
from trainer.distribution import strategies
from trainer.settings.config import TrainConfig

_DIGITS = 16  # of the digest in the file's name
_DIGEST_BYTES = hashlib.sha256().digest_size  # of the digest at its end


def path_of(
    config: TrainConfig,
    data: DatasetDir,
    split: str,
    network: keras.Model,
    strategy: tf.distribute.Strategy,
) -> str:
    """The file of a split's features; empty without `features_dir`, or with several hosts: these
    compute features together, so none of them may find a file that another one lacks.

    Args:
      network: gives the features; its weights are part of the digest.
    """
    if not config.features_dir or strategies.num_hosts(strategy) > 1:
        return ""
    depends_on = {
        "images": data.fingerprint,
        "split": split,
        "fold": data.fold,
        "mask": config.mask,
        "mirrored": config.flip,
        "backbone": config.backbone,
        "image_size": config.image_size or data.image_size,
        "precision": config.mixed_precision,
        "batch_size": config.batch_size,
        "devices": strategies.describe(strategy),
        "versions": [tf.__version__, keras.__version__],
    }
    digest = hashlib.sha256(json.dumps(depends_on, sort_keys=True).encode())
    for weight in network.get_weights():
        digest.update(weight.tobytes())
    name = f"{config.backbone}-{split}-{digest.hexdigest()[:_DIGITS]}.npy"
    return os.path.join(config.features_dir, name)


def read_or_compute(
    path: str, rows: int, compute: Callable[[], np.ndarray]
) -> tuple[np.ndarray, bool]:
    """The features in a file, or else what `compute` gives, which then is the file's content.

    Args:
      path: empty: no file is read or written.
      rows: that the features must have. A file with other ones, or a damaged one, is replaced.

    Returns:
      The features, float32 [rows, F], and whether they were read.

    Raises:
      UserError: the file cannot be written.
    """
    if not path:
        return compute(), False
    features = _read(path, rows)
    if features is not None:
        return features, True
    folder = os.path.dirname(path)
    with files.explained(folder, "features_dir"):
        os.makedirs(folder, exist_ok=True)
    features = compute()
    with files.explained(folder, "features_dir"), files.replacing(path, ".npy") as temporary:
        np.save(temporary, features)
        with open(temporary, "r+b") as file:
            file.write(_digest(file, os.path.getsize(temporary)))
    return features, False


def _read(path: str, rows: int) -> np.ndarray | None:
    """None: the file is absent or damaged, or has other features."""
    try:
        with open(path, "rb") as file:
            # Before NumPy: its reader of headers is none for damaged ones.
            if _digest(file, os.path.getsize(path) - _DIGEST_BYTES) != file.read():
                return None
            file.seek(0)
            features = np.load(file)
    except files.DAMAGED_ARRAYS:
        return None
    right = features.dtype == np.float32 and features.ndim == 2 and len(features) == rows
    return features if right else None


def _digest(file: BinaryIO, length: int) -> bytes:
    """SHA-256 of the first `length` bytes of a file, which is then read up to there."""
    digest = hashlib.sha256()
    while length > 0 and (block := file.read(min(length, 1 << 20))):
        digest.update(block)
        length -= len(block)
    return digest.digest()
