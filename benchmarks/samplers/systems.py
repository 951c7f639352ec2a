"""What `benchmarks.samplers` times: our pipeline, tf.data's rejection, Keras' folder reader.

Each function reads from start to end, in batches, and returns how many images it delivered.
"""

from __future__ import annotations

import contextlib
import io
import os
import time
from collections.abc import Iterable, Iterator

import numpy as np
import tensorflow as tf

from cxr_tfrecords import images, records, tfrecord
from cxr_tfrecords.dataset_dir import DatasetDir
from trainer.balancing import samplers
from trainer.balancing.class_shares import Sampling
from trainer.input import shard_reading
from trainer.input.split_batches import SplitSource


def timed(function, *arguments) -> float:
    """Images a second of one call."""
    started = time.monotonic()
    delivered = function(*arguments)
    return delivered / (time.monotonic() - started)


@contextlib.contextmanager
def silent_stderr() -> Iterator[None]:
    """Drops what TensorFlow's C++ side writes to standard error."""
    saved, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)


def open_source(data: DatasetDir, cache: str) -> SplitSource:
    """Our training split."""
    return SplitSource(data, "train", cache=cache)


def our_images(
    data: DatasetDir, source: SplitSource, sampler: str, batch_size: int, splits: int = 1
) -> int:
    """As many images as so many splits hold, from as many epochs as that takes, as one stream.

    One stream, because short epochs start oftener: what a start costs is `epoch_start`'s matter.
    """
    steps = splits * data.num_examples("train") // batch_size
    plans = [_plan(data, sampler, batch_size, 0)]
    while sum(plan.steps for plan in plans) < steps:
        plans.append(_plan(data, sampler, batch_size, len(plans)))
    joined = samplers.join_plans(plans).part(0, steps)
    return _consume(source.training(joined, batch_size=batch_size))


def epoch_start(data: DatasetDir, source: SplitSource, batch_size: int) -> float:
    """Seconds from planning an epoch to its first batch."""
    started = time.monotonic()
    next(iter(source.training(_plan(data, "none", batch_size, 0), batch_size=batch_size)))
    return time.monotonic() - started


def our_first_epoch(data: DatasetDir, cache: str, batch_size: int) -> tuple[int, SplitSource]:
    """An epoch of a new run: with cache=memory it decodes the split before the first step."""
    source = open_source(data, cache)
    return our_images(data, source, "none", batch_size), source


def _plan(data: DatasetDir, sampler: str, batch_size: int, epoch: int) -> samplers.EpochPlan:
    sampling = Sampling(sampler, epochs=2)
    return samplers.draw_epoch(
        sampling, data.counts["train"], batch_size=batch_size, seed=0, epoch=epoch
    )


def plain_rejection(data: DatasetDir, batch_size: int, *, decode_first: bool) -> int:
    """`rejection_resample` to equal shares over the same shards, as many images as the split.

    Args:
      decode_first: resample (image, label) elements, as TensorFlow's guide does; else serialized
        records by their label, which are decoded after.
    """
    wanted = data.num_examples("train")
    counts = np.array(data.counts["train"])
    shards = [shard.path for shard in data.split_shards("train")]
    serialized = (
        tf.data.Dataset.from_tensor_slices(shards)
        .shuffle(len(shards), seed=0)
        .interleave(tf.data.TFRecordDataset, cycle_length=len(shards))
        .shuffle(shard_reading.SHUFFLE_RECORDS, seed=0)
        .repeat()
    )

    def decoded(record: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        parsed = records.parse_example(record, data)
        return parsed["image"], parsed["label"]

    def with_label(record: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return record, records.parse_label_and_id(record)["label"]

    elements = serialized.map(
        decoded if decode_first else with_label, num_parallel_calls=tf.data.AUTOTUNE
    )
    resampled = elements.rejection_resample(
        lambda _, label: label,
        target_dist=np.full(len(counts), 1 / len(counts)),
        initial_dist=counts / counts.sum(),
        seed=0,
    ).map(lambda _, element: element)
    if not decode_first:
        resampled = resampled.map(
            lambda record, _: decoded(record), num_parallel_calls=tf.data.AUTOTUNE
        )
    batches = resampled.batch(batch_size, drop_remainder=True).prefetch(tf.data.AUTOTUNE)
    return _consume(batches.take(wanted // batch_size))


def write_folder(data: DatasetDir, folder: str) -> None:
    """The training split as PNG files in one folder a class: the very bytes of the records."""
    for name in data.class_names:
        os.makedirs(os.path.join(folder, name), exist_ok=True)
    number = 0
    for shard in data.split_shards("train"):
        for serialized in tfrecord.read_records(shard.path):
            record = records.parse_record(serialized)
            number += 1
            path = os.path.join(folder, record.class_name, f"{number:06d}.png")
            with open(path, "wb") as file:
                file.write(_png(record.encoded, data))


def _png(encoded: bytes, data: DatasetDir) -> bytes:
    if data.encoding == "png":
        return encoded
    return images.encode(
        images.decode_stored(encoded, data.encoding, data.image_size, data.channels), "png"
    )


def folder_dataset(data: DatasetDir, folder: str, batch_size: int) -> tf.data.Dataset:
    """`keras.utils.image_dataset_from_directory`, with the prefetching that its guide adds."""
    import keras

    with contextlib.redirect_stdout(io.StringIO()):
        dataset = keras.utils.image_dataset_from_directory(
            folder,
            color_mode="grayscale" if data.channels == 1 else "rgb",
            batch_size=batch_size,
            image_size=(data.image_size, data.image_size),
            seed=0,
        )
    return dataset.prefetch(tf.data.AUTOTUNE)


def folder_epoch(dataset: tf.data.Dataset) -> int:
    return _consume(dataset)


def _consume(batches: Iterable) -> int:
    return sum(int(labels.shape[0]) for _, labels in batches)
