"""The records of a split, without TensorFlow."""

from __future__ import annotations

from collections.abc import Iterator

from cxr_tfrecords import records, tfrecord
from cxr_tfrecords.dataset_dir import DatasetDir


def read_split(data: DatasetDir, split: str) -> Iterator[records.Record]:
    """In the canonical order of `split_batches`: by class, then shard, then as stored."""
    for shard in data.split_shards(split):
        for serialized in tfrecord.read_records(shard.path):
            yield records.parse_record(serialized)
