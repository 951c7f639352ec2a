"""A split decoded once into memory.

Not in a graph of tf.data, whose decoder of PNG takes five times as long as that of a build.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from cxr_tfrecords import images as decoding
from cxr_tfrecords.console.progress import progress
from cxr_tfrecords.dataset_dir import DatasetDir
from cxr_tfrecords.errors import UserError
from cxr_tfrecords.records import Record
from trainer.input.split_records import read_split

_MIB = 2**20
# Fewer images are decoded so quickly that a progress bar would only flicker.
_BAR_FROM = 2000


def decode_split(
    data: DatasetDir, split: str, labels: np.ndarray
) -> tuple[tf.Tensor, tuple[list[str], list[str]]]:
    """Reads a split in canonical order: one uint8 tensor [n, S, S, C] in host memory, and
    (ids, groups).

    Raises:
      UserError: there is not enough memory, or a shard is damaged.
      tf.errors.DataLossError: an image or a label does not match the metadata.
    """
    shape = (len(labels), data.image_size, data.image_size, data.channels)
    images = _aligned_array(shape)
    ids: list[str] = []
    groups: list[str] = []
    shown = len(labels) >= _BAR_FROM
    label_here = dict(enumerate(data.label_map or range(data.num_classes)))
    with progress(len(labels), f"decode {split}", " images", shown=shown) as bar:
        for row, record in enumerate(read_split(data, split)):
            if row == len(labels) or label_here.get(record.label) != labels[row]:
                raise tf.errors.DataLossError(None, None, f"wrong labels in {split}")
            images[row] = _decoded(record, data)
            ids.append(record.filename)
            groups.append(record.group)
            bar.update()
    # Shares the array's memory; tf.constant would need two or three times as much for a while.
    return tf.experimental.dlpack.from_dlpack(images.__dlpack__()), (ids, groups)


def _decoded(record: Record, data: DatasetDir) -> np.ndarray:
    """uint8 [S, S, C], the same values that `records.parse_example` gives."""
    size, channels = data.image_size, data.channels
    try:
        if data.encoding == "jpeg":  # decoders differ by some gray levels
            image = tf.io.decode_jpeg(record.encoded, channels=channels).numpy()
        else:
            image = decoding.decode_stored(record.encoded, data.encoding, size, channels)
        lungs = None if data.mask == "none" else decoding.decode_mask(record.mask or b"") > 0
    except decoding.BadImageError as error:
        raise tf.errors.DataLossError(None, None, f"{record.filename}: {error}") from error
    if image.shape != (size, size, channels) or (lungs is not None and lungs.shape != (size, size)):
        raise tf.errors.DataLossError(None, None, f"{record.filename}: of another size")
    if lungs is None:
        return image
    return np.where((lungs if data.mask == "lungs" else ~lungs)[:, :, None], image, 0)


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
