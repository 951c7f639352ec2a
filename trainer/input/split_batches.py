"""Batches of a split: decoded once into memory if it fits, else streamed from its shards.

    source = SplitSource(data, "train", cache=config.cache, cache_mb=config.cache_mb)  # once
    source.training(plan, batch_size=32, start_step=0, context=context)   # (images, labels)
    source.training(plan, …, mixing=mixing)              # (images, labels, partner labels, lam)
    source.evaluation(batch_size=32, context=context)    # (images, labels, index)
    source.ids(), source.groups()                   # list[str] each, the order of `index`
    distributed_training(source, strategy, plan)         # the same, for all replicas at once
    distributed_evaluation(source, strategy, batch_size=32)
    with explained_reads(data): ...                      # damaged shards become a UserError

`context` is the `tf.distribute.InputContext` that `distribute_datasets_from_function` gives;
None: one replica. `batch_size` is global, over all replicas. Elements are per-replica batches
with static shapes, in the order: for each step, for each replica of this host. Replica r gets
the r-th contiguous part of a global batch, so what a step trains on does not depend on how many
replicas share it.
"""

from __future__ import annotations

import contextlib
import copy
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from cxr_tfrecords import verify
from cxr_tfrecords.dataset_dir import DatasetDir
from cxr_tfrecords.errors import UserError
from trainer.balancing.mixup import Mixing
from trainer.balancing.samplers import EpochPlan
from trainer.input import batch_ops, decode_service, decoded_split, shard_reading
from trainer.input.distributed_iterator import distribute, untuned
from trainer.input.split_records import damaged_shard

_MIB = 2**20


class SplitSource:
    """One split, which can be read any number of times; create it once and keep it.

    In memory, batches are gathered from a uint8 array in the order of the plan. Streamed, the plan
    gives the class of every slot and how often each record comes, and a shuffle buffer chooses
    which record of the class comes next (see `shard_reading`).
    """

    def __init__(
        self, data: DatasetDir, split: str, *, cache: str = "auto", cache_mb: int = 2048
    ) -> None:
        """Decodes a cached split now: a damaged test shard then stops a run before its training.

        Args:
          split: `train`, `validation` or `test`.
          cache: keep the decoded split? `memory`: yes; `none`: no; `auto`: up to `cache_mb` MiB.

        Raises:
          UserError: a shard is damaged or does not match the metadata.
        """
        self._data, self.split = data, split
        self._images: tf.Tensor | None = None
        self._has_mirrored = False
        self._names: tuple[list[str], list[str]] | None = None
        counts = np.asarray(data.counts[split], np.int64)
        self._labels = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
        self._starts = np.cumsum(counts) - counts
        mib = len(self._labels) * data.image_size**2 * data.channels / _MIB
        if cache == "memory" or (cache == "auto" and mib <= cache_mb):
            started = time.monotonic()
            with explained_reads(data):
                self._images, self._names = decoded_split.decode_split(data, split, self._labels)
            self.description = (
                f"{split}: {len(self._labels):,} images decoded once and kept in memory "
                f"({mib:,.1f} MiB, {time.monotonic() - started:.1f} s)"
            )
        else:
            reason = f"over --cache_mb={cache_mb}" if cache == "auto" else f"--cache={cache}"
            self.description = (
                f"{split}: {len(self._labels):,} images ({mib:,.1f} MiB decoded) not kept in "
                f"memory ({reason}): decoded anew in every epoch"
            )

    @property
    def streamed(self) -> bool:
        """Whether every epoch reads the shards again."""
        return self._images is None

    def with_features(self, features: np.ndarray) -> SplitSource:
        """This split with features in place of images, see `feature_cache`.

        Args:
          features: float32 [n, F] in canonical order; [2n, F] if mirrored images follow.
        """
        other = copy.copy(self)
        with tf.device("CPU"):
            other._images = tf.constant(features)
        other._has_mirrored = len(features) > len(self._labels)
        return other

    def training(
        self,
        plan: EpochPlan,
        *,
        batch_size: int,
        start_step: int = 0,
        context: tf.distribute.InputContext | None = None,
        mixing: Mixing | None = None,
        servers: Sequence[str] = (),
    ) -> tf.data.Dataset:
        """The plan's steps from `start_step` on, for this host's replicas.

        A later start gives exactly the batches that a start at 0 gives from that step on.

        Args:
          servers: addresses that decode a streamed split instead of this process; same batches.

        Returns:
          (images uint8 [b, S, S, C], labels int32 [b]), b = batch_size / replicas; images are
          mirrored and changed as the plan says. With `mixing` also (partners' labels int32 [b],
          weight of the first label float32 [b]); images are then mixed, in whole grey levels.
        """
        slots = _host_slots(len(plan.labels), batch_size, context)[start_step:]
        slots = slots.reshape(-1, slots.shape[-1])
        if not servers:
            return self._batches(plan, slots, mixing)
        parts = range(len(servers))
        shares = [self._batches(plan, slots[part :: len(servers)], mixing) for part in parts]
        return _ready(decode_service.take_in_turn(shares, servers, len(slots)))

    def _batches(
        self, plan: EpochPlan, slots: np.ndarray, mixing: Mixing | None
    ) -> tf.data.Dataset:
        """The batches of `training` for a plan's slots, int64 [batches, b]."""
        batches = self._planned(plan, slots)
        if mixing is not None:
            partners = self._planned(mixing.partner, slots)
            weights = tf.data.Dataset.from_tensor_slices(mixing.lam[slots])
            batches = tf.data.Dataset.zip(batches, partners, weights).map(
                batch_ops.mix, num_parallel_calls=tf.data.AUTOTUNE
            )
        return _ready(batches)

    def _planned(self, plan: EpochPlan, slots: np.ndarray) -> tf.data.Dataset:
        """(images, labels) of a plan's slots, int64 [batches, b]; mirrored where planned."""
        if self._images is None:
            batches = shard_reading.training_records(self._data, self.split, plan, slots)
        else:
            rows = (self._starts[plan.labels] + plan.ordinals)[slots]
            if self._has_mirrored:
                rows = rows + plan.flips[slots] * len(self._labels)
            batches = tf.data.Dataset.from_tensor_slices((rows, plan.labels[slots]))
            batches = batches.map(self._gather, num_parallel_calls=tf.data.AUTOTUNE)
        if plan.flips.any() and not self._has_mirrored:
            batches = _applied(batch_ops.mirror, batches, plan.flips[slots])
        if plan.changes is not None:
            batches = _applied(batch_ops.augment, batches, plan.changes[slots])
        return batches

    def evaluation(
        self, *, batch_size: int, context: tf.distribute.InputContext | None = None
    ) -> tf.data.Dataset:
        """Every example exactly once, in canonical order; the last global batch is padded.

        Returns:
          (images uint8 [b, S, S, C], labels int32 [b], index int32 [b]).
          Padding is black and has label 0 and index -1.
        """
        count = len(self._labels)
        slots = _host_slots(-(-count // batch_size) * batch_size, batch_size, context)
        slots = slots.reshape(-1, slots.shape[-1])
        real = slots < count
        index = np.where(real, slots, -1).astype(np.int32)
        rows = np.maximum(index, 0)
        if self._images is None:
            batches = shard_reading.evaluation_records(self._data, self.split, slots)
        else:
            batches = tf.data.Dataset.from_tensor_slices((rows, self._labels[rows]))
            batches = batches.map(self._gather, num_parallel_calls=tf.data.AUTOTUNE)
        return _ready(_applied(batch_ops.mask, batches, (real, index)))

    def ids(self) -> list[str]:
        """Image ids in canonical order: by class, then shard, then as stored."""
        return list(self._read_names()[0])

    def training_ids(self, plan: EpochPlan, step: int) -> list[str]:
        """Image ids of the plan's step (from 0), over all replicas, in its order."""
        slots = np.arange(step * plan.batch_size, (step + 1) * plan.batch_size)
        if self._images is None:
            return shard_reading.training_ids(self._data, self.split, plan, slots)
        ids = self.ids()
        return [ids[row] for row in (self._starts[plan.labels] + plan.ordinals)[slots]]

    def groups(self) -> list[str]:
        """The group (such as a patient) of each image, in the order of `ids`."""
        return list(self._read_names()[1])

    def _read_names(self) -> tuple[list[str], list[str]]:
        if self._names is None:
            with explained_reads(self._data):
                self._names = shard_reading.read_names(self._data, self.split)
        return self._names

    def _gather(self, rows: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        # Captured by reference: a constant in the graph would be a copy, limited to 2 GB.
        return tf.gather(self._images, rows), labels


def distributed_training(
    source: SplitSource,
    strategy: tf.distribute.Strategy,
    plan: EpochPlan,
    *,
    start_step: int = 0,
    mixing: Mixing | None = None,
    servers: Sequence[str] = (),
) -> Iterator:
    """An iterator over the global batches of `SplitSource.training`, a part on each replica."""

    def of_host(context: tf.distribute.InputContext) -> tf.data.Dataset:
        return source.training(
            plan,
            batch_size=plan.batch_size,
            start_step=start_step,
            context=context,
            mixing=mixing,
            servers=servers,
        )

    return distribute(strategy, of_host)


def distributed_evaluation(
    source: SplitSource, strategy: tf.distribute.Strategy, *, batch_size: int
) -> Iterator:
    """An iterator over the global batches of `SplitSource.evaluation`, a part on each replica."""

    def of_host(context: tf.distribute.InputContext) -> tf.data.Dataset:
        return source.evaluation(batch_size=batch_size, context=context)

    return distribute(strategy, of_host)


@contextlib.contextmanager
def explained_reads(data: DatasetDir) -> Iterator[None]:
    """Turns read errors of a damaged shard into a UserError that names the shard.

    TensorFlow's own messages name no file, so on such an error all shards are verified. If they
    are intact, the error has another cause and is raised as it is.
    """
    try:
        yield
    except (
        tf.errors.DataLossError,
        tf.errors.FailedPreconditionError,
        tf.errors.InvalidArgumentError,
        tf.errors.NotFoundError,
        tf.errors.OutOfRangeError,
    ) as error:
        faults = verify.verify(data.path).faults
        if not faults:
            raise
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        raise damaged_shard(data, os.path.join(data.path, faults[0]) + more) from error


def _host_slots(
    count: int, batch_size: int, context: tf.distribute.InputContext | None
) -> np.ndarray:
    """int64 [steps, replicas of this host, b]: which of `count` slots each replica gets.

    Raises:
      UserError: the batch size is not a multiple of the number of replicas.
    """
    context = context or tf.distribute.InputContext()
    replicas = context.num_replicas_in_sync
    if batch_size % replicas:
        raise UserError(f"--batch_size={batch_size} must be a multiple of the {replicas} replicas")
    local = replicas // context.num_input_pipelines
    first = context.input_pipeline_id * local
    slots = np.arange(count).reshape(-1, replicas, batch_size // replicas)
    return slots[:, first : first + local]


def _applied(operation: Callable, batches: tf.data.Dataset, values: Any) -> tf.data.Dataset:
    """`operation(batch, its values)` of each batch."""
    both = tf.data.Dataset.zip(batches, tf.data.Dataset.from_tensor_slices(values))
    return both.map(operation, num_parallel_calls=tf.data.AUTOTUNE)


def _ready(batches: tf.data.Dataset) -> tf.data.Dataset:
    options = tf.data.Options()
    options.deterministic = True
    # `_host_slots` has divided the batches among hosts; TensorFlow must not divide them again.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return untuned(batches.with_options(options)).prefetch(tf.data.AUTOTUNE)
