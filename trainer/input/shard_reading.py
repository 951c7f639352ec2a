"""Record streams from shards, for splits that do not fit in memory; see `split_batches`.

Shards are read from beginning to end, because remote storage is fast at sequential reading and slow
at random access. A class is one stream: its shards in shuffled order, several at once, through a
shuffle buffer of serialized records (decoding comes after). If a plan uses records of a class
several times, the class is read in several passes, and each keeps the records that are still
needed. So an epoch's records are exactly those of its plan, and only these are decoded.

A slot is a position in the order of a plan (or in canonical order, for evaluation).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from cxr_tfrecords import records
from cxr_tfrecords.dataset_dir import DatasetDir, Shard
from trainer.balancing.samplers import EpochPlan
from trainer.input.distributed_iterator import untuned

# Serialized records in the shuffle buffer of a class: at about 30 kB each, 30 MB for each class.
SHUFFLE_RECORDS = 1024
_SHARDS_AT_ONCE = 4
_RECORDS_AT_ONCE = 32  # of a shard


def parsed_records(data: DatasetDir, split: str) -> tf.data.Dataset:
    """All records of a split in canonical order, parsed by `records.parse_example`."""
    return _canonical(data, split).map(
        lambda serialized: records.parse_example(serialized, data),
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )


def read_names(data: DatasetDir, split: str) -> tuple[list[str], list[str]]:
    """Image ids and groups of a split in canonical order, without decoding an image."""
    parsed = _canonical(data, split).map(
        records.parse_label_and_id, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
    )
    ids: list[str] = []
    groups: list[str] = []
    for batch in parsed.batch(1024):
        ids += [identity.decode() for identity in batch["id"].numpy()]
        groups += [group.decode() for group in batch["group"].numpy()]
    return ids, groups


def training_records(
    data: DatasetDir, split: str, plan: EpochPlan, slots: np.ndarray
) -> tf.data.Dataset:
    """The decoded records of some slots of a plan.

    Args:
      slots: int64 [batches, b], rising; every host reads the same global order and keeps its slots.

    Returns:
      (images uint8 [b, S, S, C], labels int32 [b]) of each row of `slots`.
    """
    return _decoded(_slots(_planned(data, split, plan), slots), data, slots.shape[-1])


def training_ids(data: DatasetDir, split: str, plan: EpochPlan, slots: np.ndarray) -> list[str]:
    """Ids of the images that `training_records` gives for slots (int64 [b], rising)."""
    chosen = _slots(_planned(data, split, plan), slots).map(records.parse_label_and_id)
    return [parsed["id"].decode() for parsed in chosen.as_numpy_iterator()]


def _planned(data: DatasetDir, split: str, plan: EpochPlan) -> tf.data.Dataset:
    """Serialized records in the plan's order."""
    # A plan holds no seed, but it depends on seed and epoch: its hash seeds the shuffle buffers.
    digest = hashlib.sha256(plan.labels.tobytes() + plan.ordinals.tobytes()).digest()
    seed = int.from_bytes(digest[:5], "little")
    classes = [
        _class_records(
            data.split_shards(split, label),
            plan.ordinals[plan.labels == label],
            seed + label,
        )
        for label in range(data.num_classes)
    ]
    choice = tf.data.Dataset.from_tensor_slices(plan.labels.astype(np.int64))
    return untuned(
        tf.data.Dataset.choose_from_datasets(classes, choice, stop_on_empty_dataset=True)
    )


def evaluation_records(data: DatasetDir, split: str, slots: np.ndarray) -> tf.data.Dataset:
    """As `training_records`, in canonical order; slots past the end repeat the first record."""
    serialized = _canonical(data, split)
    padded = serialized.concatenate(serialized.take(1).repeat())
    return _decoded(_slots(padded, slots), data, slots.shape[-1])


def _canonical(data: DatasetDir, split: str) -> tf.data.Dataset:
    table = tf.data.Dataset.from_tensor_slices(_shard_table(data.split_shards(split)))
    return untuned(table.flat_map(_read_shard).map(lambda _, serialized: serialized))


def _shard_table(shards: Sequence[Shard]) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Path, number of the first record and number of records of each shard."""
    sizes = np.array([shard.num_examples for shard in shards], np.int64)
    paths = tf.constant([shard.path for shard in shards], tf.string)
    return paths, tf.constant(np.cumsum(sizes) - sizes), tf.constant(sizes)


def _read_shard(path: tf.Tensor, first: tf.Tensor, size: tf.Tensor) -> tf.data.Dataset:
    """(number, serialized record) of each record; it is an error if there are not `size`."""
    serialized = tf.data.TFRecordDataset(path)
    checked = serialized.apply(tf.data.experimental.assert_cardinality(size))
    return checked.enumerate(first)


def _class_records(shards: Sequence[Shard], ordinals: np.ndarray, seed: int) -> tf.data.Dataset:
    """Serialized records of one class, each as often as `ordinals` (int64 [m]) names it."""
    times = np.bincount(ordinals, minlength=sum(shard.num_examples for shard in shards))
    passes = int(times.max(initial=0))
    wanted = tf.constant(times, tf.int64)
    words = np.random.Philox(key=seed).random_raw(passes * len(shards))
    orders = np.argsort(words.reshape(passes, len(shards)), axis=1, kind="stable")
    table = _shard_table(shards)

    def read_pass(number: tf.Tensor, order: tf.Tensor) -> tf.data.Dataset:
        def read_wanted(*shard: tf.Tensor) -> tf.data.Dataset:
            return _selected(
                _read_shard(*shard), lambda ordinals: tf.gather(wanted, ordinals) > number
            )

        columns = tuple(tf.gather(column, order) for column in table)
        return tf.data.Dataset.from_tensor_slices(columns).interleave(
            read_wanted, cycle_length=_SHARDS_AT_ONCE, block_length=1
        )

    # One buffer over all passes: a shuffle inside `read_pass` would make that function stateful,
    # and deterministic TensorFlow would then decode on a single thread.
    return (
        tf.data.Dataset.from_tensor_slices((np.arange(passes), orders))
        .flat_map(read_pass)
        .shuffle(SHUFFLE_RECORDS, seed=seed, reshuffle_each_iteration=False)
    )


def _selected(numbered: tf.data.Dataset, keep: Callable[[tf.Tensor], tf.Tensor]) -> tf.data.Dataset:
    """Serialized records, of (number, serialized record), whose numbers int64 [n] `keep` marks.

    One call judges many records: a call for each would also be paid for those that are not used.
    """

    def chosen(numbers: tf.Tensor, serialized: tf.Tensor) -> tf.Tensor:
        return tf.gather(serialized, tf.where(keep(numbers))[:, 0])

    return numbered.batch(_RECORDS_AT_ONCE).map(chosen).unbatch()


def _slots(serialized: tf.data.Dataset, slots: np.ndarray) -> tf.data.Dataset:
    """Selects the elements of a stream whose numbers are in `slots` (int64, any shape, rising)."""
    flat = slots.ravel()
    first = int(flat[0]) if len(flat) else 0
    selected = np.zeros(int(flat[-1]) + 1 - first if len(flat) else 0, bool)
    selected[flat - first] = True
    stream = serialized.skip(first).take(len(selected))
    if selected.all():
        return stream
    wanted = tf.constant(selected)
    return _selected(stream.enumerate(), lambda numbers: tf.gather(wanted, numbers))


def _decoded(serialized: tf.data.Dataset, data: DatasetDir, batch_size: int) -> tf.data.Dataset:
    def decode(record: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        parsed = records.parse_example(record, data)
        return parsed["image"], parsed["label"]

    return serialized.map(decode, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).batch(
        batch_size, drop_remainder=True
    )
