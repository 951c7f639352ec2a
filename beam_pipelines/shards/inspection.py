"""First pass: read, decode, resize and encode every source once; keep its record and a row
of facts.

A split can only be decided when all copies are known, and copies only after decoding. So the
records are written aside here, by chunk, and the second pass moves them into their shards:
nothing is decoded twice, and no pixel goes through a shuffle of Beam's.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Iterator
from typing import Any

import apache_beam as beam
import cv2
import numpy as np
import xxhash

from beam_pipelines.inputs.group_salt import group_digest, hashed_name
from beam_pipelines.inputs.sources import SourceFile
from beam_pipelines.settings.config import BuildConfig
from beam_pipelines.shards import parts
from cxr_tfrecords import files, images, near_duplicates, records
from cxr_tfrecords.concurrency import decoding_process
from cxr_tfrecords.concurrency.marks import Marks
from cxr_tfrecords.concurrency.ordered_threads import map_in_order
from cxr_tfrecords.decoding.result import CostlyError, one_large_at_a_time
from cxr_tfrecords.reading import Reading

_NO_GROUP = bytes(16)
Inspected = tuple[dict[str, Any], bytes, np.ndarray | None]
# For the histogram of a class every fourth row of its images is enough, at a fourth of the cost.
_HISTOGRAM_ROWS = 4


@dataclasses.dataclass(frozen=True)
class Work:
    """What every inspection needs to know.

    Attributes:
      root: the input folder.
      class_names: true names, in label order.
      config: decides the bytes.
      salt: of ids and names, see `group_salt`.
      suspects: files that were being decoded when an earlier run ended; each is decoded in a
        process of its own.
    """

    root: str
    class_names: tuple[str, ...]
    config: BuildConfig
    salt: str = ""
    suspects: frozenset[str] = frozenset()

    def stored_name(self, filename: str) -> str:
        """The name of a file in the data set."""
        return hashed_name(filename, self.salt) if self.config.anonymize_names else filename


class InspectChunk(beam.DoFn):
    """Inspects the files that a chunk file lists; writes one part, atomically.

    Args:
      marks: folder for the marks of the files in work.
    """

    def __init__(self, work: Work, threads: int, marks: str) -> None:
        self._work, self._threads, self._marks = work, threads, marks

    def process(self, element: tuple[str, str]) -> Iterator[str]:
        chunk_path, part_path = element
        chunk = [SourceFile(**row) for row in files.read_json(chunk_path)]
        with (
            files.explained_writes(part_path),
            Marks(self._marks, files.base_name(part_path)) as marks,
        ):

            def marked(numbered: tuple[int, SourceFile]) -> Inspected:
                with marks.at(numbered[0]), one_large_at_a_time():
                    return inspect(numbered[1], self._work)

            results = map_in_order(marked, enumerate(chunk), self._threads, run=4)
            parts.write_part(part_path, results)
        yield part_path


def inspect(file: SourceFile, work: Work) -> Inspected:
    """Reads one file; a bad file gives a row with the reason, never an exception.

    Returns:
      Its row, its record (b"" if it is rejected) and the histogram of its pixels (or None), see
      `parts.write_part`.
    """
    row: dict[str, Any] = {
        "filename": work.stored_name(file.filename),
        "label": file.label,
        "num_bytes": file.num_bytes,
        "split": file.split,
        "tie": bytes.fromhex(file.tie) or _NO_GROUP,
        "patient": _NO_GROUP,
        "pixels": bytes(16),
        "stored": bytes(16),
        "near": bytes(32),
        "pixel_steps": "",
        "warning": "",
        "reason": "",
    }
    try:
        images.check_file_size(file.num_bytes, work.config.max_pixels)
        decoded = _read_and_decode(file.filename, file, work, row)
        height, width = decoded.pixels.shape[:2]
        row |= {"height": height, "width": width, "format": decoded.format, "mode": decoded.mode}
        row |= {"pixel_steps": "; ".join(decoded.steps), "warning": images.warning_of(decoded)}
        if decoded.patient and work.config.patient_ids:
            patient = f"{decoded.issuer}/{decoded.patient}"
            row["patient"] = bytes.fromhex(group_digest(patient, work.salt))
        stored, facts = _store(decoded, work.config)
        row |= facts
        mask = _read_mask(file, work) if work.config.with_masks else None
    except images.BadImageError as error:
        return row | {"reason": str(error)}, b"", None
    record = records.serialize_example(
        records.Record(
            encoded=images.encode(stored, work.config.encoding),
            label=file.label,
            class_name=work.class_names[file.label],
            filename=row["filename"],
            sha256=row["sha256"],
            # Right for an image without copies; the second pass writes the group of the others.
            group=row["pixels"].hex(),
            source_height=height,
            source_width=width,
            source_format=decoded.format,
            mask=mask,
        )
    )
    row["check"] = xxhash.xxh3_64_intdigest(record)
    return row, record, _histogram(stored[::_HISTOGRAM_ROWS])


def _store(decoded: images.Decoded, config: BuildConfig) -> tuple[np.ndarray, dict[str, Any]]:
    """The pixels to store, uint8 [size, size, channels], and what the row says of them."""
    gray = images.to_channels(decoded.pixels, 1)
    reading = Reading(config.image_size, config.channels, config.enhance, config.encoding)
    stored = reading.prepare(gray if config.channels == 1 else decoded.pixels)
    stored_gray = images.to_channels(stored, 1)
    return stored, {
        "pixels": images.pixel_digest(gray),
        "stored": images.pixel_digest(stored_gray),
        "near": near_duplicates.perceptual_hash(stored_gray[:, :, 0]),
        "sums": _sums(stored),
    }


def _sums(stored: np.ndarray) -> list[int]:
    """Sums of the pixels, then of their squares, per channel. OpenCV gives them as float64,
    which holds them exactly up to 2^53."""
    channels = cv2.split(stored) if stored.shape[2] > 1 else (stored,)
    sums = [cv2.sumElems(channel)[0] for channel in channels]
    squares = [cv2.norm(channel, cv2.NORM_L2SQR) for channel in channels]
    return [round(value) for value in (*sums, *squares)]


def _histogram(rows: np.ndarray) -> np.ndarray:
    """Counts of all channels' values, int64 [256]. OpenCV counts in half the time of NumPy, as
    float32, which holds counts exactly up to 2^24."""
    values = rows.reshape(len(rows), -1)
    return cv2.calcHist([values], [0], None, [256], [0, 256]).ravel().astype(np.int64)


def _read_and_decode(
    name: str, file: SourceFile, work: Work, row: dict[str, Any] | None = None
) -> images.Decoded:
    """Decodes a file or its mask; `row`, if given, gets the facts of its bytes."""
    path, max_pixels = files.join(work.root, name), work.config.max_pixels
    data = _read(path)
    if row is not None:
        row |= {"num_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    if file.filename not in work.suspects and not decoding_process.is_for_a_process(data):
        with contextlib.suppress(CostlyError):
            return images.decode(data, max_pixels=max_pixels)
    del data  # the process reads the file again, so that its bytes are in memory once
    return decoding_process.decode(path, max_pixels=max_pixels)


def _read(path: str) -> bytes:
    try:
        return files.read_regular(path)
    except OSError as error:
        raise images.BadImageError(f"unreadable ({error.strerror or error})") from error


def _read_mask(file: SourceFile, work: Work) -> bytes:
    """The image's lung mask, resized, as a PNG of 0 and 255."""
    if not file.mask:
        raise images.BadImageError("no mask is named for it (--with_masks)")
    try:
        decoded = _read_and_decode(file.mask, file, work)
    except images.BadImageError as error:
        name = "" if work.config.anonymize_names else f" {file.mask}"
        raise images.BadImageError(f"its mask{name}: {error}") from error
    gray = images.to_channels(decoded.pixels, 1)[:, :, 0]
    return images.encode_mask(images.resize_mask(gray, work.config.image_size))


def chunk_name(rows: list[dict[str, Any]], config: BuildConfig) -> str:
    """Name of a part: a digest of all that decides its content, so a changed file is read again."""
    content = json.dumps([rows, config.inspection_settings()])
    return hashlib.sha256(content.encode()).hexdigest()[:32]
