"""A split decoded once into memory."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from cxr_tfrecords.console.progress import progress
from cxr_tfrecords.dataset_dir import DatasetDir
from cxr_tfrecords.errors import UserError
from trainer.input import shard_reading

_MIB = 2**20
# Fewer images are decoded so quickly that a progress bar would only flicker.
_BAR_FROM = 2000


def decode_split(
    data: DatasetDir, split: str, labels: np.ndarray
) -> tuple[tf.Tensor, tuple[list[str], list[str]]]:
    """Reads a split in canonical order: one uint8 tensor [n, S, S, C] in host memory, and
    (ids, groups).

    Raises:
      UserError: there is not enough memory.
      tf.errors.OpError: a shard is damaged or does not match the metadata.
    """
    shape = (len(labels), data.image_size, data.image_size, data.channels)
    images = _aligned_array(shape)
    ids: list[str] = []
    groups: list[str] = []
    parsed = shard_reading.parsed_records(data, split).batch(64).prefetch(2)
    shown = len(labels) >= _BAR_FROM
    with progress(len(labels), f"decode {split}", " images", shown=shown) as bar:
        for batch in parsed:
            rows = slice(len(ids), len(ids) + len(batch["id"]))
            images[rows] = batch["image"].numpy()
            if not np.array_equal(batch["label"].numpy(), labels[rows]):
                raise tf.errors.DataLossError(None, None, f"wrong labels in {split}")
            ids += [identity.decode() for identity in batch["id"].numpy()]
            groups += [group.decode() for group in batch["group"].numpy()]
            bar.update(len(batch["id"]))
    # Shares the array's memory; tf.constant would need two or three times as much for a while.
    return tf.experimental.dlpack.from_dlpack(images.__dlpack__()), (ids, groups)


def _aligned_array(shape: tuple[int, ...]) -> np.ndarray:
    """An empty uint8 array whose address is a multiple of 64, which TensorFlow needs to share it.

    Raises:
      UserError: there is not enough memory.
    """
    size = int(np.prod(shape))
    try:
        buffer = np.empty(size + 64, np.uint8)
    except MemoryError as error:
        raise UserError(
            f"--cache=memory needs {size / _MIB:,.0f} MiB that this machine does not have: use "
            "--cache=none"
        ) from error
    offset = -buffer.ctypes.data % 64
    return buffer[offset : offset + size].reshape(shape)
