"""The records of a split, without TensorFlow."""

from __future__ import annotations

from collections.abc import Iterator

from cxr_tfrecords import records, tfrecord
from cxr_tfrecords.dataset_dir import DatasetDir
from cxr_tfrecords.errors import UserError


def read_split(data: DatasetDir, split: str) -> Iterator[records.Record]:
    """In the canonical order of `split_batches`: by class, then shard, then as stored.

    Raises:
      UserError: a shard is damaged.
    """
    for shard in data.split_shards(split):
        try:
            for serialized in tfrecord.read_records(shard.path):
                yield records.parse_record(serialized)
        except (tfrecord.DamagedRecordError, ValueError) as error:
            raise UserError(
                f"{shard.path}: {error}. Run the build again with --overwrite"
            ) from error
