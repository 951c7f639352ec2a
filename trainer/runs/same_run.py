"""Whether a run directory holds the run that a command would train. Nothing here needs Keras."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Mapping
from typing import Any

from cxr_tfrecords.dataset_dir import DatasetDir
from trainer.settings.config import TrainConfig


def differences(config: TrainConfig, data: DatasetDir, content: Mapping[str, Any]) -> list[str]:
    """What a run directory differs in from the run that `config` describes, as one text each:
    `--flag: value there, value here`. Settings that a resumed run may change are left out.

    Args:
      content: of the directory's config.json.

    Raises:
      ValueError, KeyError, TypeError: it is not the content of one.
    """
    dataset = content["dataset"]
    differing = config.differences(content["config"])
    if dataset["fingerprint"] != data.fingerprint:
        differing.append(
            f"--data_dir: {dataset.get('path')} (fingerprint {dataset['fingerprint'][:8]}) "
            f"there, {data.path} (fingerprint {data.fingerprint[:8]}) here"
        )
    weights = content.get("weights_sha256")
    if weights and os.path.isfile(config.weights) and hash_file(config.weights) != weights:
        differing.append(f"--weights={config.weights}: the file has changed since")
    return differing


def hash_file(path: str) -> str:
    """SHA-256 of a file, hexadecimal. A file that was not changed since is not read again."""
    status = os.stat(path)
    return _hash_version(path, status.st_mtime_ns, status.st_size)


@functools.lru_cache
def _hash_version(path: str, modified_ns: int, size: int) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
