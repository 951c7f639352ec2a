"""A picture of augmented training images: what `trainer.main` would show of some of them."""

from __future__ import annotations

import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure

from cxr_tfrecords import records, tfrecord
from cxr_tfrecords.dataset_dir import DatasetDir
from cxr_tfrecords.files import replacing
from trainer.balancing.augmentation import Augmentation
from trainer.balancing.drawing import FLIPS, Streams
from trainer.input import batch_ops

_EXAMPLES = 7


def write_picture(
    path: str, data: DatasetDir, augmentation: Augmentation, *, flip: bool, seed: int
) -> None:
    """Writes a PNG: a row for each class that has training images, the first of them as it is and
    then changed by the random numbers of several epochs."""
    labels = np.flatnonzero(data.counts["train"])
    images = np.stack([_first_image(data, int(label)) for label in labels])
    columns = [images]
    for epoch in range(_EXAMPLES):
        streams, batch = Streams(seed, epoch), (tf.constant(images), tf.constant(labels))
        if flip:
            batch = batch_ops.mirror(batch, streams.uniform(FLIPS, len(labels)) < 0.5)
        columns.append(batch_ops.augment(batch, augmentation.draw(streams, labels))[0].numpy())
    figure = Figure(figsize=(1.5 * len(columns), 1.6 * len(labels)), layout="constrained")
    grid = figure.subplots(len(labels), len(columns), squeeze=False)
    for row, label in zip(range(len(labels)), labels, strict=True):
        for column, axes in enumerate(grid[row]):
            axes.imshow(columns[column][row].squeeze(), cmap="gray", vmin=0, vmax=255)
            axes.set(xticks=[], yticks=[])
            if not row:
                axes.set_title("stored" if not column else f"example {column}", fontsize=9)
        grid[row][0].set_ylabel(data.class_names[label], fontsize=9)
    with replacing(path, ".png") as temporary:
        figure.savefig(temporary, dpi=100)


def _first_image(data: DatasetDir, label: int) -> np.ndarray:
    """uint8 [size, size, channels], the first training image of a class that has some."""
    shard = next(s for s in data.split_shards("train", label) if s.num_examples)
    serialized = next(iter(tfrecord.read_records(shard.path)))
    return records.parse_example(tf.constant(serialized), data)["image"].numpy()
