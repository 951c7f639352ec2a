"""A split decoded once into memory."""

from __future__ import annotations

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from cxr_tfrecords.dataset_dir import DatasetDir
from cxr_tfrecords.errors import UserError
from trainer.input import shard_reading

_MIB = 2**20
# Below this many images decoding takes a moment, and a bar would only flicker.
_BAR_FROM = 2000


def decode_split(
    data: DatasetDir, split: str, labels: np.ndarray
) -> tuple[tf.Tensor, tuple[list[str], list[str]]]:
    """Reads a split in canonical order into one uint8 tensor [n, S, S, C] in host memory, and
    its ids and groups.

    Raises:
      UserError: there is not so much memory.
      tf.errors.OpError: a shard is damaged or not what the metadata say.
    """
    shape = (len(labels), data.image_size, data.image_size, data.channels)
    images = _aligned_array(shape)
    ids: list[str] = []
    groups: list[str] = []
    parsed = shard_reading.parsed_records(data, split).batch(64).prefetch(2)
    quiet = None if len(labels) >= _BAR_FROM else True
    with tqdm(total=len(labels), desc=f"decode {split}", unit="image", disable=quiet) as bar:
        for batch in parsed:
            rows = slice(len(ids), len(ids) + len(batch["id"]))
            images[rows] = batch["image"].numpy()
            if not np.array_equal(batch["label"].numpy(), labels[rows]):
                raise tf.errors.DataLossError(None, None, f"wrong labels in {split}")
            ids += [identity.decode() for identity in batch["id"].numpy()]
            groups += [group.decode() for group in batch["group"].numpy()]
            bar.update(len(batch["id"]))
    # Shares the array's memory; tf.constant would need it twice or three times for a while.
    return tf.experimental.dlpack.from_dlpack(images.__dlpack__()), (ids, groups)


def _aligned_array(shape: tuple[int, ...]) -> np.ndarray:
    """An empty uint8 array whose address is a multiple of 64, as TensorFlow wants to share it.

    Raises:
      UserError: there is not so much memory.
    """
    size = int(np.prod(shape))
    try:
        room = np.empty(size + 64, np.uint8)
    except MemoryError as error:
        raise UserError(
            f"--cache=memory needs {size / _MIB:,.0f} MiB that this machine does not have: use "
            "--cache=none"
        ) from error
    offset = -room.ctypes.data % 64
    return room[offset : offset + size].reshape(shape)
