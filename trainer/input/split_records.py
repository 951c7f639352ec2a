"""The records of a split, without TensorFlow."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from cxr_tfrecords import records, tfrecord
from cxr_tfrecords.dataset_dir import DatasetDir
from cxr_tfrecords.errors import UserError


def read_split(data: DatasetDir, split: str) -> Iterator[records.Record]:
    """In the canonical order of `split_batches`: by class, then shard, then as stored.

    Raises:
      UserError: a shard is damaged, or holds another number of records than the metadata say.
    """
    for shard in data.split_shards(split):
        count = 0
        try:
            for serialized in tfrecord.read_records(shard.path):
                yield records.parse_record(serialized)
                count += 1
        except (tfrecord.DamagedRecordError, ValueError, FileNotFoundError) as error:
            raise damaged_shard(data, f"{shard.path}: {error}") from error
        if count != shard.num_examples:
            reason = f"{count} records, {shard.num_examples} in the metadata"
            raise damaged_shard(data, f"{shard.path}: {reason}")


def damaged_shard(data: DatasetDir, fault: str) -> UserError:
    """The error for a fault, which names its file."""
    return UserError(
        f"damaged shard: {fault}; `python -m cxr_tfrecords.verify {shlex.quote(data.path)}` lists "
        "all faults, `python -m beam_pipelines.build --overwrite` builds the directory again"
    )
