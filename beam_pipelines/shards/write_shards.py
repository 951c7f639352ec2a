"""Second pass: one DoFn call moves the records of one whole shard from the parts into it."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import os
from collections.abc import Iterator, Sequence
from typing import Any

import apache_beam as beam
import numpy as np
import xxhash

from beam_pipelines.shards.parts import RECORDS
from cxr_tfrecords import files, records, tfrecord
from cxr_tfrecords.errors import UserError

# One row a record of a shard. `group` is empty where the record holds its own group already.
MEMBER = np.dtype(
    [("part", "<u4"), ("offset", "<i8"), ("length", "<i8"), ("check", "<u8"), ("group", "S32")]
)
_OPEN_FILES = 256
_RANGES_AT_ONCE = 64


@dataclasses.dataclass(frozen=True)
class ShardTask:
    """What a worker needs to write a shard; its members (`MEMBER`) are in the file at `plan_path`.

    `entry` holds the manifest's fields that are known before writing: file, split, class,
    fingerprint.
    """

    plan_path: str
    done_path: str
    shard_path: str
    entry: dict[str, str]


def save_members(path: str, members: np.ndarray) -> None:
    """Writes the rows without a header: Python 3.11 fails at times when two threads parse the one
    of `np.load` ("AST constructor recursion depth mismatch")."""
    with files.replacing(path) as temporary, files.open_file(temporary, "wb") as file:
        file.write(members.astype(MEMBER).tobytes())


class WriteShard(beam.DoFn):
    """Writes a shard under a temporary name, renames it, then writes its manifest entry."""

    def __init__(self, parts_list: str) -> None:
        """The parts are read by the worker, not sent to it.

        Args:
          parts_list: path of a JSON file with the paths of all parts, in order.
        """
        self._parts_list = parts_list
        self._parts: list[str] = []

    def process(self, element: ShardTask) -> Iterator[str]:
        self._parts = self._parts or files.read_json(self._parts_list)
        with files.explained_writes(element.shard_path):
            files.write_json(element.done_path, self._write(element))
        yield element.shard_path

    def _write(self, task: ShardTask) -> dict[str, Any]:
        members = np.frombuffer(files.read_bytes(task.plan_path), MEMBER)
        digest = hashlib.sha256()

        def serialized() -> Iterator[bytes]:
            for record, member in zip(read_ranges(self._parts, members), members, strict=True):
                if xxhash.xxh3_64_intdigest(record) != member["check"]:
                    raise UserError(
                        f"{self._parts[member['part']]}{RECORDS} is damaged: remove it and its "
                        ".parquet, then run the same command again"
                    )
                group = member["group"].decode()
                example = records.set_group(record, group) if group else record
                digest.update(example)
                yield example

        count = tfrecord.write_records(task.shard_path, serialized())
        return {
            **task.entry,
            "num_examples": count,
            "num_bytes": files.size(task.shard_path),
            "digest": digest.hexdigest(),
        }


def read_ranges(parts: Sequence[str], members: np.ndarray) -> Iterator[bytes]:
    """Yields the bytes of each member, from the record files of the parts."""
    if not files.is_local(parts[0]):
        yield from _remote_ranges(parts, members)
        return
    opened: collections.OrderedDict[int, int] = collections.OrderedDict()
    try:
        for part, offset, length in members[["part", "offset", "length"]].tolist():
            if part not in opened:
                if len(opened) >= _OPEN_FILES:
                    os.close(opened.popitem(last=False)[1])
                opened[part] = os.open(parts[part] + RECORDS, os.O_RDONLY)
            yield os.pread(opened[part], length, offset)
    finally:
        for descriptor in opened.values():
            os.close(descriptor)


def _remote_ranges(parts: Sequence[str], members: np.ndarray) -> Iterator[bytes]:
    """Many small ranges, asked for at the same time: a store answers each after 10 to 100 ms."""
    fs, _ = files.filesystem(parts[0])
    for start in range(0, len(members), _RANGES_AT_ONCE):
        batch = members[start : start + _RANGES_AT_ONCE]
        paths = [fs._strip_protocol(parts[part] + RECORDS) for part in batch["part"]]
        ends = (batch["offset"] + batch["length"]).tolist()
        yield from fs.cat_ranges(paths, batch["offset"].tolist(), ends, on_error="raise")
