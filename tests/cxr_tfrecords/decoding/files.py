"""Image files for the decoding tests, written with Pillow or by hand."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from cxr_tfrecords import images

RAMP = (np.add.outer(np.arange(60), np.arange(48)) * 2).astype(np.uint8)
SIGNATURE = b"\x89PNG\r\n\x1a\n"


def as_file(pixels: np.ndarray, kind: str, mode: str | None = None, **options: Any) -> bytes:
    image = Image.fromarray(pixels)
    buffer = io.BytesIO()
    (image.convert(mode) if mode else image).save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    """A chunk of a PNG with its right checksum."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and body of each chunk of a PNG."""
    position = len(SIGNATURE)
    while position < len(data):
        (length,) = struct.unpack_from(">I", data, position)
        yield data[position + 4 : position + 8], data[position + 8 : position + 8 + length]
        position += 12 + length


def with_chunks(data: bytes, *added: tuple[bytes, bytes], before: bytes = b"IDAT") -> bytes:
    """A PNG with chunks added before the first of a kind."""
    parts = [SIGNATURE]
    for kind, body in chunks(data):
        if kind == before:
            parts += [chunk(*one) for one in added]
            added = ()
        parts.append(chunk(kind, body))
    return b"".join(parts)


def gray(data: bytes) -> np.ndarray:
    """The gray values that the build takes from a file."""
    return images.to_channels(images.decode(data).pixels, 1)[:, :, 0]


def by_pillow(data: bytes) -> np.ndarray:
    """Gray values of the first frame as Pillow reads them, upright."""
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("L"))
