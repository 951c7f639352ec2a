"""What must be true of any file, however damaged: it is decoded or refused, twice in the same way,
in bounded memory and time."""

from __future__ import annotations

import ctypes
import os
import tempfile
from collections.abc import Callable

import numpy as np

from cxr_tfrecords import images, near_duplicates, records, tfrecord
from cxr_tfrecords.reading import Reading

MAX_PIXELS = 1 << 20
MEGABYTES = 64  # above what the process has: MAX_PIXELS in 16-bit colour, several times
SECONDS = 5  # of processor time
_M_PERTURB = -6  # mallopt(3)


class FaultError(Exception):
    """The project did not keep a promise; the message says which."""


def check(kind: str, data: bytes) -> bool:
    """Reads a file as a build, or a training, would.

    Args:
      kind: `tfrecord`, `mask` or a format of images.

    Returns:
      Whether the file was accepted.

    Raises:
      FaultError: the answers differ, are not what they promise, or need too much memory.
      Exception: any that is not a refusal is a fault, too.
    """
    read = _read_shard if kind == "tfrecord" else _read_image
    before = _memory(reset=True)
    first = _answer(read, kind, data, 0x55)
    second = _answer(read, kind, data, 0xAA)
    used = (_memory() - before) >> 10
    if first != second:
        raise FaultError(f"two answers: {first!r:.300} and {second!r:.300}")
    if used > MEGABYTES:
        raise FaultError(f"{used} MB for a file of {len(data):,} bytes")
    return not isinstance(first, str)


def _answer(read: Callable, kind: str, data: bytes, fill: int) -> object:
    """The result, or the reason of a refusal. Memory that a decoder does not write differs between
    the fills, so that a pixel out of it differs, too."""
    if _LIBC:
        _LIBC.mallopt(_M_PERTURB, fill)
    try:
        return read(kind, data)
    except (images.BadImageError, tfrecord.DamagedRecordError) as error:
        cause: BaseException | None = error
        while cause:
            if isinstance(cause, MemoryError):
                raise FaultError(f"more memory than there is: {error}") from error
            cause = cause.__cause__ or cause.__context__
        if not str(error) or "\n" in str(error) or " at 0x" in str(error):
            raise FaultError(f"a reason that is not one line of text: {error!r}") from error
        return str(error)


def _read_image(kind: str, data: bytes) -> object:
    images.check_file_size(len(data), MAX_PIXELS)
    decoded = images.decode(data, max_pixels=MAX_PIXELS)
    pixels = decoded.pixels
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or pixels.shape[2:] not in ((), (3,)):
        raise FaultError(f"pixels of {pixels.dtype}, {pixels.shape}")
    if not pixels.flags.c_contiguous or not 0 < pixels[..., 0].size <= MAX_PIXELS * 3:
        raise FaultError(f"pixels of shape {pixels.shape}, strides {pixels.strides}")
    images.warning_of(decoded)
    gray = images.to_channels(pixels, 1)
    digest = images.pixel_digest(pixels)
    if kind == "mask":
        small = images.resize_mask(gray[:, :, 0], 32)
        if set(np.unique(images.decode_mask(images.encode_mask(small)))) - {0, 255}:
            raise FaultError("a mask of other values than 0 and 255")
    small = Reading(32, 1).prepare(gray)
    if small.shape != (32, 32, 1) or small.dtype != np.uint8:
        raise FaultError(f"prepared pixels of {small.dtype}, {small.shape}")
    near = near_duplicates.perceptual_hash(small[:, :, 0])
    return (decoded.format, decoded.mode, decoded.steps, decoded.patient, digest, near)


def _read_shard(kind: str, data: bytes) -> object:
    found = []
    with tempfile.NamedTemporaryFile(dir=_SHARDS) as file:
        file.write(data)
        file.flush()
        for serialized in tfrecord.read_records(file.name):
            try:
                record = records.parse_record(serialized)
            except ValueError as error:
                found.append(str(error))
                continue
            for encoding in records.ENCODINGS:
                try:
                    image = images.decode_stored(record.encoded, encoding, 16, 1)
                    found.append(images.pixel_digest(image))
                except images.BadImageError as error:
                    found.append(str(error))
    return tuple(found)


def _memory(reset: bool = False) -> int:
    """Most kilobytes that the process had since the last reset; 0 where Linux does not say it."""
    try:
        if reset:
            with open("/proc/self/clear_refs", "w") as file:
                file.write("5")
        with open("/proc/self/status") as file:
            return int(next(line for line in file if line.startswith("VmHWM")).split()[1])
    except OSError:
        return 0


def _libc() -> ctypes.CDLL | None:
    library = ctypes.CDLL(None)
    return library if hasattr(library, "mallopt") else None


_LIBC = _libc()
_SHARDS = "/dev/shm" if os.path.isdir("/dev/shm") else None
