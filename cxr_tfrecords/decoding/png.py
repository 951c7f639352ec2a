"""PNG: every chunk's checksum is checked, and only the chunks that make pixels are decoded.

Pillow does not open a PNG whose text or colour profile is large, and OpenCV shows the first frame
of an animation instead of the image and crashes on some damaged ones. Neither sees such chunks.

What most radiographs are, gray or RGB without transparency, kornia-rs decodes in less than half of
OpenCV's time and memory. OpenCV reads all others, and what kornia-rs refuses: either it reads that
after all, or its message says what is wrong. Both give the same pixels.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np
from kornia_rs import io as kornia
from PIL import Image

from cxr_tfrecords.decoding.bands import bands, fill
from cxr_tfrecords.decoding.depth import depth_of, describe_depth, to_8_bits
from cxr_tfrecords.decoding.orientation import describe_turn, orientation_of, turn
from cxr_tfrecords.decoding.result import BadImageError, Decoded, check_size, short

SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Colour type (PNG specification, 11.2.1) -> Pillow's name.
_MODES = {0: "L", 2: "RGB", 3: "P", 4: "LA", 6: "RGBA"}
_CRITICAL = (b"IHDR", b"PLTE", b"IDAT", b"IEND")
_PIXELS = (*_CRITICAL, b"tRNS")
# Bits and colour type of what kornia-rs decodes, without transparency -> its function and mode.
_COMMON = {
    (8, 0): (kornia.decode_image_png_u8, "mono"),
    (16, 0): (kornia.decode_image_png_u16, "mono"),
    (8, 2): (kornia.decode_image_png_u8, "rgb"),
}
# Where an EXIF orientation can be: its own chunk, or text of these keywords.
_EXIF_TEXTS = (b"Raw profile type exif\0", b"XML:com.adobe.xmp\0")
_MAX_EXIF, _MAX_EXIFS = 1 << 20, 8
_MAX_CHUNKS = 100_000  # at the 8 KB of most encoders 800 MB of image data
_ONE_PIXEL = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0), zlib.compress(b"\0\0")


def decode_png(data: bytes, max_pixels: int) -> Decoded:
    """Decodes any PNG; of an animation its default image. Alpha is drawn on black;
    the one gray value that a gray PNG can name as transparent (tRNS) stays as it is.

    Raises:
      BadImageError: damaged, truncated, or over `max_pixels`.
    """
    if data[12:16] != b"IHDR" or len(data) < 33:
        raise BadImageError("damaged PNG: it does not begin with its header, the chunk IHDR")
    width, height, bits, colour = struct.unpack_from(">IIBB", data, 16)
    # OpenCV makes four channels of a palette or gray with alpha, too, and keeps most of them twice.
    samples = {0: 2 if bits == 16 else 1, 2: 6}.get(colour, 8)
    check_size(width, height, max_pixels, (bits + 7) // 8 * samples)
    if colour not in _MODES:
        raise BadImageError(f"damaged PNG: its header has the colour type {colour}")
    chunks = _read_chunks(data)
    kept = len(data) + (sum(map(len, chunks.kept)) if len(chunks.kept) > 1 else 0)
    check_size(width, height, max_pixels, (bits + 7) // 8 * samples, kept)
    pixels, steps = _to_pixels(b"".join(chunks.kept), chunks.transparent)
    if pixels.shape[:2] != (height, width):
        raise BadImageError(f"header says {width} x {height}, decoded {pixels.shape[1::-1]}")
    if chunks.animated:
        steps = ("default image of an animation", *steps)
    if chunks.exif:
        orientation = _orientation(chunks.exif)
        pixels, steps = turn(pixels, orientation), (*steps, *describe_turn(orientation))
    mode = {1: "1", 16: "I;16"}.get(bits, "L") if colour == 0 else _MODES[colour]
    return Decoded(pixels, "PNG", mode, steps)


class _Chunks(NamedTuple):
    """What a file's chunks say.

    Attributes:
      kept: the parts of a PNG of the chunks that make the pixels, which is the whole file if it has
        no others.
      exif: kind and body of those that may hold an EXIF orientation.
      animated: whether the file is an animation.
      transparent: whether a chunk tRNS names what is transparent.
    """

    kept: list[bytes | memoryview]
    exif: list[tuple[bytes, bytes]]
    animated: bool
    transparent: bool


def _read_chunks(data: bytes) -> _Chunks:
    """Checks all chunks: a wrong checksum or a missing IEND is damage that decoders may ignore."""
    kept: list[bytes | memoryview] = [SIGNATURE]
    exif: list[tuple[bytes, bytes]] = []
    others, animated, transparent = False, False, False
    for number, (kind, start, end) in enumerate(_chunks(data)):
        if number == _MAX_CHUNKS:
            raise BadImageError(f"PNG of more than {_MAX_CHUNKS:,} chunks")
        if kind in _PIXELS:
            kept.append(memoryview(data)[start:end])
            transparent |= kind == b"tRNS"
            continue
        others = True
        if not kind[0] & 0x20:  # upper case: a decoder that does not know it must stop (5.4)
            raise BadImageError(
                f"damaged PNG: unknown critical chunk {kind.decode('latin-1')!r} at byte {start}"
            )
        animated |= kind == b"acTL"
        may_orient = kind == b"eXIf" or (
            kind in (b"tEXt", b"zTXt", b"iTXt")
            and data[start + 8 : start + 40].startswith(_EXIF_TEXTS)
        )
        if may_orient and end - start <= _MAX_EXIF and len(exif) < _MAX_EXIFS:
            exif.append((kind, data[start + 8 : end - 4]))
    return _Chunks(kept if others else [data], exif, animated, transparent)


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Kind, first byte and end of each chunk, its length and checksum included."""
    position = len(SIGNATURE)
    while position + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, position)
        end = position + 12 + length
        if end > len(data):
            break
        body = memoryview(data)[position + 4 : end - 4]
        kind = bytes(body[:4])
        if zlib.crc32(body) != struct.unpack_from(">I", data, end - 4)[0]:
            name = kind.decode("latin-1")
            raise BadImageError(f"damaged PNG: wrong checksum in chunk {name!r} at byte {position}")
        yield kind, position, end
        if kind == b"IEND":
            return
        position = end
    raise BadImageError(f"truncated PNG: {len(data)} bytes end before the IEND chunk")


def _to_pixels(data: bytes, transparent: bool) -> tuple[np.ndarray, tuple[str, ...]]:
    """uint8 gray or RGB, and the steps."""
    raw = None if transparent else _decode_common(data)
    if raw is None:
        return _to_gray_or_rgb(_decode(data))
    return _to_gray_or_rgb(raw) if raw.ndim == 2 else (raw, ())


def _decode_common(data: bytes) -> np.ndarray | None:
    """Gray of 8 or 16 bits or RGB of 8; None if it is neither, or if kornia-rs refuses it."""
    width, height, bits, colour = struct.unpack_from(">IIBB", data, 16)
    if (bits, colour) not in _COMMON:
        return None
    decode, mode = _COMMON[bits, colour]
    try:
        raw = decode(data, (height, width), mode)
    except Exception:
        return None
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # a fault of its own, in Rust's words
            raise
        return None
    return raw[:, :, 0] if mode == "mono" else raw


def _decode(data: bytes) -> np.ndarray:
    try:
        raw = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise BadImageError(f"damaged PNG ({short(error)})") from error
    if raw is None:
        raise BadImageError("damaged PNG: its image data do not decode")
    if raw.dtype not in (np.uint8, np.uint16):
        raise BadImageError(f"PNG of unsupported depth {raw.dtype}")
    return raw


def _to_gray_or_rgb(raw: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """OpenCV's gray, BGR or BGRA to uint8, and the steps; colours replace those of `raw`."""
    depth = 8
    steps: tuple[str, ...] = ()
    if raw.dtype == np.uint16:
        colour = raw[:, :, :3] if raw.ndim == 3 else raw
        depth = depth_of(int(colour.max(initial=0)), 16)
        steps = describe_depth(depth, 16)
    if raw.ndim == 2 or raw.shape[2] == 1:
        return _gray_to_8_bits(raw.reshape(raw.shape[:2]), depth), steps
    height, width, channels = raw.shape
    pixels = raw.reshape(-1).view(np.uint8)[: height * width * 3].reshape(height, width, 3)
    swapped = cv2.COLOR_BGRA2RGBA if channels == 4 else cv2.COLOR_BGR2RGB
    colours = (cv2.cvtColor(raw[rows], swapped) for rows in bands(height, width * channels))
    if raw.dtype == np.uint16:
        colours = (_rgb_to_8_bits(rows, depth) for rows in colours)
    return pixels, (*steps, *fill(pixels, colours))


def _gray_to_8_bits(gray: np.ndarray, depth: int) -> np.ndarray:
    """uint8 [height, width]; they replace those of an image of 16 bits."""
    if gray.dtype == np.uint8:
        return gray
    height, width = gray.shape[0], gray.shape[1]
    pixels = gray.reshape(-1).view(np.uint8)[: height * width].reshape(height, width)
    fill(pixels, (to_8_bits(gray[rows], depth) for rows in bands(height, width)))
    return pixels


def _rgb_to_8_bits(rows: np.ndarray, depth: int) -> np.ndarray:
    colour = to_8_bits(rows[:, :, :3], depth)
    if rows.shape[2] == 3:
        return colour
    # Alpha is always of the full depth.
    return np.dstack([colour, (rows[:, :, 3] // 257).astype(np.uint8)])


def _orientation(exif: list[tuple[bytes, bytes]]) -> int:
    """Pillow's answer for a PNG of one pixel with the same EXIF chunks."""
    header, pixel = _ONE_PIXEL
    chunks = [(b"IHDR", header), *exif, (b"IDAT", pixel), (b"IEND", b"")]
    whole = SIGNATURE + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )
    try:
        with Image.open(io.BytesIO(whole)) as image:
            return orientation_of(image)
    except Exception:  # Pillow raises many types for damaged or large text; it says nothing then
        return 1
