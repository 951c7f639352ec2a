"""First pass: read and decode every source once, keep a small record of each."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from typing import Any

import apache_beam as beam

from beam_pipelines.config import BuildConfig
from beam_pipelines.ordered_threads import map_in_order
from beam_pipelines.sources import SourceFile
from beam_pipelines.workdir import read_lines, write_lines
from cxr_tfrecords import images


@dataclasses.dataclass(frozen=True)
class Inspection:
    """What the first pass learns of one file; `reason` says why it is rejected, else ''.

    Attributes:
      filename, label, num_bytes: as in `SourceFile`.
      sha256: of the file's bytes.
      pixel_sha256: of the decoded gray values, whatever file format held them.
      stored_sha256: of the pixels as they will be stored: two sources that differ but become
        one picture at this size would leak between splits all the same.
      height, width: pixels; format, mode: as in `cxr_tfrecords.images.Decoded`.
    """

    filename: str
    label: int
    num_bytes: int
    sha256: str = ""
    pixel_sha256: str = ""
    stored_sha256: str = ""
    height: int = 0
    width: int = 0
    format: str = ""
    mode: str = ""
    reason: str = ""


def read_source(root: str, filename: str) -> bytes:
    """Reads a source file.

    Raises:
      images.BadImageError: it cannot be read.
    """
    try:
        with open(os.path.join(root, filename), "rb") as file:
            return file.read()
    except OSError as error:
        raise images.BadImageError(f"unreadable ({error.strerror})") from error


def stored_pixels(data: bytes, config: BuildConfig) -> tuple[images.Decoded, Any]:
    """Decodes a source and brings it to the stored size: uint8 [size, size, channels]."""
    decoded = images.decode(data, max_pixels=config.max_pixels)
    pixels = images.to_channels(decoded.pixels, config.channels)
    return decoded, images.resize(pixels, config.image_size)


def inspect(root: str, file: SourceFile, config: BuildConfig) -> Inspection:
    """Reads and decodes one file; never raises for a bad one."""
    record = Inspection(file.filename, file.label, file.num_bytes)
    try:
        data = read_source(root, file.filename)
        record = dataclasses.replace(
            record, num_bytes=len(data), sha256=hashlib.sha256(data).hexdigest()
        )
        decoded, stored = stored_pixels(data, config)
    except images.BadImageError as error:
        return dataclasses.replace(record, reason=str(error))
    height, width = decoded.pixels.shape[:2]
    return dataclasses.replace(
        record,
        pixel_sha256=images.pixel_digest(decoded.pixels),
        stored_sha256=images.pixel_digest(stored),
        height=height,
        width=width,
        format=decoded.format,
        mode=decoded.mode,
    )


class InspectChunk(beam.DoFn):
    """Inspects the files that a chunk file lists; writes one part file, atomically."""

    def __init__(self, root: str, config: BuildConfig, threads: int) -> None:
        self._root, self._config, self._threads = root, config, threads

    def process(self, element: tuple[str, str]) -> Iterator[str]:
        chunk_path, part_path = element
        files = [SourceFile(**json.loads(line)) for line in read_lines(chunk_path)]
        found = map_in_order(
            lambda file: inspect(self._root, file, self._config), files, self._threads
        )
        write_lines(part_path, (json.dumps(dataclasses.asdict(one)) for one in found))
        yield part_path


def read_parts(paths: Sequence[str]) -> list[Inspection]:
    """Returns the inspections of all parts, in the order given."""
    return [Inspection(**json.loads(line)) for path in paths for line in read_lines(path)]
