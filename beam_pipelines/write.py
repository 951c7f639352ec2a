"""Second pass: one DoFn call reads, decodes, resizes and writes one whole shard."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator
from typing import Any

import apache_beam as beam
import numpy as np
import tensorflow as tf

from beam_pipelines.config import BuildConfig
from beam_pipelines.inspection import read_source, stored_pixels
from beam_pipelines.ordered_threads import map_in_order
from beam_pipelines.plan import Member
from beam_pipelines.workdir import read_lines
from cxr_tfrecords import dataset_dir, images, records
from cxr_tfrecords.errors import UserError


@dataclasses.dataclass(frozen=True)
class ShardTask:
    """What a worker is told of a shard; the members are in the file at `plan_path`.

    `entry` holds the manifest's fields that are known before writing: file, split, class,
    fingerprint.
    """

    plan_path: str
    done_path: str
    shard_path: str
    label: int
    entry: dict[str, str]


class WriteShard(beam.DoFn):
    """Writes a shard under a temporary name, renames it, then notes it as done."""

    def __init__(self, root: str, config: BuildConfig, threads: int) -> None:
        self._root, self._config, self._threads = root, config, threads

    def process(self, element: ShardTask) -> Iterator[str]:
        try:
            entry = self._write(element)
        except (OSError, tf.errors.OpError) as error:
            reason = getattr(error, "strerror", None) or getattr(error, "message", str(error))
            raise UserError(
                f"cannot write {element.shard_path}: {reason}. Finished shards are kept: make "
                "room or name another --output_dir, then run the same command again"
            ) from error
        dataset_dir.write_json(element.done_path, entry)
        yield element.shard_path

    def _write(self, task: ShardTask) -> dict[str, Any]:
        members = [Member(**json.loads(line)) for line in read_lines(task.plan_path)]
        digest = hashlib.sha256()
        sums = np.zeros((2, self._config.channels), dtype=np.int64)

        def serialized() -> Iterator[bytes]:
            results = map_in_order(
                lambda member: self._example(member, task), members, self._threads
            )
            for example, moments in results:
                digest.update(example)
                sums[:] += moments
                yield example

        count = records.write_shard(task.shard_path, serialized())
        return {
            **task.entry,
            "num_examples": count,
            "num_bytes": tf.io.gfile.stat(task.shard_path).length,
            "digest": digest.hexdigest(),
            "pixel_sums": sums[0].tolist(),
            "pixel_square_sums": sums[1].tolist(),
        }

    def _example(self, member: Member, task: ShardTask) -> tuple[bytes, np.ndarray]:
        """Returns the serialized record, and per channel the sums of pixels and squares."""
        path = os.path.join(self._root, member.filename)
        try:
            data = read_source(self._root, member.filename)
            if hashlib.sha256(data).hexdigest() != member.sha256:
                raise images.BadImageError("its bytes are not those that were inspected")
            _, pixels = stored_pixels(data, self._config)
        except images.BadImageError as error:
            raise UserError(f"{path} changed during the build: {error}. Run it again") from error
        record = records.Record(
            encoded=images.encode(pixels, self._config.encoding),
            label=task.label,
            class_name=task.entry["class"],
            filename=member.filename,
            sha256=member.sha256,
            group=member.group,
            source_height=member.source_height,
            source_width=member.source_width,
            source_format=member.source_format,
        )
        flat = pixels.reshape(-1, pixels.shape[-1]).astype(np.int64)
        return records.serialize_example(record), np.stack([flat.sum(0), (flat * flat).sum(0)])
