"""Radiograph files to pixels and back: decode strictly, resize, encode.

Damage that decoders ignore is an error here: OpenCV returns a picture with a gray lower half
for a truncated JPEG, and Pillow accepts some PNG files with a flipped bit. PNG chunks have a
CRC, so any flipped bit in one is found. JPEG has no checksum, so a flipped bit that leaves a
valid file (of another picture) cannot be found.
"""

from __future__ import annotations

import dataclasses
import io
import struct
import zlib

import cv2
import numpy as np
import simplejpeg
import xxhash
from PIL import Image, UnidentifiedImageError

from cxr_tfrecords import dicom
from cxr_tfrecords.errors import first_line

# Our own --max_pixels check replaces Pillow's, which warns on stderr or raises by size class.
Image.MAX_IMAGE_PIXELS = None
# Workers already decode in parallel: with OpenCV's own threads they would wait for each other.
cv2.setNumThreads(1)
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

DEFAULT_MAX_PIXELS = 64_000_000
# Each pixel minus the one above it, then run lengths. On radiographs of 224 px, against zlib's
# default strategy at level 1: 6% smaller, half the time to encode, little more than half to decode.
PNG_OPTIONS = (
    *(cv2.IMWRITE_PNG_COMPRESSION, 1),
    *(cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_UP),
    *(cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE),
)
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


class BadImageError(Exception):
    """A source file that cannot be used; the message is the reason that the user reads."""


@dataclasses.dataclass(frozen=True)
class Decoded:
    """A decoded source.

    Attributes:
      pixels: uint8, [height, width] where the source is gray, else [height, width, 3] RGB.
      format: "PNG", "JPEG" or "DICOM", by content and not by file extension.
      mode: Pillow's name of the source's pixel mode (L, LA, RGB, RGBA, P, I;16, ...), or
        photometric interpretation and bits of a DICOM file.
      patient: ID of the patient, '' if the file has none; to be stored only as a salted hash.
    """

    pixels: np.ndarray
    format: str
    mode: str
    patient: str = ""


def decode(data: bytes, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> Decoded:
    """Decodes PNG or JPEG of 8 or 16 bits, gray, colour, palette, with or without alpha; DICOM.

    16-bit values are scaled by the smallest of 12, 14 and 16 bits that holds the image's
    maximum, because detectors deliver 12 or 14 bits in 16-bit files: divided by 65,535, their
    images would be nearly black. Transparent images are drawn on black.

    Raises:
      BadImageError: empty, not an image, another format, damaged, truncated, or over `max_pixels`.
    """
    if not data:
        raise BadImageError("empty file (0 bytes)")
    if dicom.is_dicom(data):
        try:
            image = dicom.decode_dicom(data, max_pixels=max_pixels)
        except dicom.DicomError as error:
            raise BadImageError(str(error)) from error
        return Decoded(image.pixels, "DICOM", image.mode, image.patient)
    try:
        with Image.open(io.BytesIO(data)) as header:
            kind, mode, (width, height) = header.format, header.mode, header.size
    except UnidentifiedImageError as error:
        raise BadImageError(f"not an image (starts with {data[:8]!r})") from error
    except Exception as error:  # Pillow raises many types for a damaged header
        raise BadImageError(f"not a readable image ({first_line(error, 100)})") from error
    if width * height > max_pixels:
        raise BadImageError(f"{width} x {height} pixels are more than --max_pixels={max_pixels}")
    if kind == "PNG":
        _check_png(data)
        pixels = _decode_png(data)
    elif kind in ("JPEG", "MPO"):
        kind, pixels = "JPEG", _decode_jpeg(data, mode)
    else:
        raise BadImageError(f"format {kind} is not supported (PNG, JPEG and DICOM are)")
    if pixels.shape[:2] != (height, width):
        raise BadImageError(f"header says {width} x {height}, decoded {pixels.shape[1::-1]}")
    return Decoded(pixels, str(kind), mode)


def to_channels(pixels: np.ndarray, channels: int) -> np.ndarray:
    """Returns uint8 [height, width, channels]: luma for 1, repeated gray or RGB for 3."""
    if channels == 1:
        if pixels.ndim == 3 and pixels.shape[2] == 3:
            pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
        return pixels.reshape(*pixels.shape[:2], 1)
    return pixels if pixels.ndim == 3 else np.repeat(pixels[:, :, None], 3, axis=2)


def resize(pixels: np.ndarray, size: int) -> np.ndarray:
    """Returns uint8 [size, size, channels]: area averaging to shrink, bilinear to enlarge.

    The aspect ratio is not kept, as in the paper (and in `tf.image.resize`).
    """
    height, width, channels = pixels.shape
    if (height, width) == (size, size):
        return pixels
    shrinks = height >= size and width >= size
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(pixels, (size, size), interpolation=method).reshape(size, size, channels)


def encode(pixels: np.ndarray, encoding: str) -> bytes:
    """Encodes uint8 [height, width, 1 or 3] RGB as `png`, `raw` or `jpeg` (quality 95)."""
    if encoding == "raw":
        return np.ascontiguousarray(pixels).tobytes()
    if encoding == "jpeg":
        space = "GRAY" if pixels.shape[2] == 1 else "RGB"
        # Chroma subsampling would blur edges, in RGB but not in gray images.
        return simplejpeg.encode_jpeg(
            np.ascontiguousarray(pixels), quality=95, colorspace=space, colorsubsampling="444"
        )
    if encoding != "png":
        raise ValueError(f"encoding {encoding!r} is not one of png, raw, jpeg")
    bgr = pixels if pixels.shape[2] == 1 else cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    ok, data = cv2.imencode(".png", bgr, PNG_OPTIONS)
    if not ok:
        raise ValueError(f"OpenCV could not encode an image of shape {pixels.shape}")
    return data.tobytes()


def decode_stored(data: bytes, encoding: str, size: int, channels: int) -> np.ndarray:
    """Decodes a shard's image back to uint8 [size, size, channels].

    Raises:
      BadImageError: damaged, or of another size or number of channels.
    """
    if encoding == "raw":
        if len(data) != size * size * channels:
            raise BadImageError(f"{len(data)} raw bytes, expected {size} x {size} x {channels}")
        return np.frombuffer(data, np.uint8).reshape(size, size, channels)
    pixels = to_channels(decode(data).pixels, channels)
    if pixels.shape != (size, size, channels):
        raise BadImageError(f"stored shape {pixels.shape}, expected {(size, size, channels)}")
    return pixels


def pixel_digest(pixels: np.ndarray) -> bytes:
    """XXH3 (128 bits) of an image's gray values and shape, the same for any file format.

    Not SHA-256, which would take as long as resizing: nobody forges copies here.
    """
    gray = np.ascontiguousarray(to_channels(pixels, 1))
    digest = xxhash.xxh3_128(f"{gray.shape[:2]}".encode())
    digest.update(gray.data)
    return digest.digest()


def _check_png(data: bytes) -> None:
    """Checks the chunks: a wrong CRC or a missing IEND is damage that decoders may ignore."""
    position = len(_PNG_SIGNATURE)
    while position + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, position)
        end = position + 12 + length
        if end > len(data):
            break
        body = memoryview(data)[position + 4 : end - 4]
        if zlib.crc32(body) != struct.unpack_from(">I", data, end - 4)[0]:
            name = bytes(body[:4]).decode("latin-1")
            raise BadImageError(f"damaged PNG: wrong checksum in chunk {name!r} at byte {position}")
        if body[:4] == b"IEND":
            return
        position = end
    raise BadImageError(f"truncated PNG: {len(data)} bytes end before the IEND chunk")


def _decode_png(data: bytes) -> np.ndarray:
    try:
        raw = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise BadImageError(f"damaged PNG ({first_line(error, 100)})") from error
    if raw is None:
        raise BadImageError("damaged PNG: its image data do not decode")
    if raw.dtype == np.uint16:
        raw = _scale_16_bit(raw)
    if raw.dtype != np.uint8:
        raise BadImageError(f"PNG of unsupported depth {raw.dtype}")
    if raw.ndim == 2:
        return raw
    if raw.shape[2] == 4:
        raw = _over_black(raw)
    if raw.shape[2] == 1:
        return raw[:, :, 0]
    return cv2.cvtColor(raw, cv2.COLOR_BGR2RGB)


def _decode_jpeg(data: bytes, mode: str) -> np.ndarray:
    space = "GRAY" if mode == "L" else "RGB"
    try:
        # strict: libjpeg's warnings (premature end, corrupt data) are errors here.
        pixels = simplejpeg.decode_jpeg(data, colorspace=space, strict=True)
    except ValueError as error:
        raise BadImageError(f"damaged or truncated JPEG ({first_line(error, 100)})") from error
    return pixels[:, :, 0] if space == "GRAY" else pixels


def _scale_16_bit(raw: np.ndarray) -> np.ndarray:
    """uint16 to uint8 by the smallest detector depth (12, 14, 16 bits) that holds the image."""
    colour = raw[:, :, :3] if raw.ndim == 3 else raw
    top = next(t for t in (4095, 16383, 65535) if colour.max(initial=0) <= t)
    scaled = (raw.astype(np.uint32) * 255 + top // 2) // top
    if raw.ndim == 3 and raw.shape[2] == 4:  # alpha is always of the full depth
        scaled[:, :, 3] = raw[:, :, 3] // 257
    return scaled.astype(np.uint8)


def _over_black(raw: np.ndarray) -> np.ndarray:
    alpha = raw[:, :, 3:4].astype(np.uint16)
    if alpha.min(initial=255) == 255:
        return raw[:, :, :3]
    return ((raw[:, :, :3].astype(np.uint16) * alpha + 127) // 255).astype(np.uint8)


def resize_mask(mask: np.ndarray, size: int) -> np.ndarray:
    """Resizes a gray mask of any size to uint8 [size, size] of 0 and 255 (where 128 or more)."""
    resized = cv2.resize(mask, (size, size), interpolation=cv2.INTER_AREA)
    return np.where(resized > 127, 255, 0).astype(np.uint8)


def encode_mask(mask: np.ndarray) -> bytes:
    """Encodes a mask, uint8 [height, width], as PNG."""
    return encode(mask[:, :, None], "png")


def decode_mask(data: bytes) -> np.ndarray:
    """Decodes a stored mask to uint8 [height, width].

    Raises:
      BadImageError: damaged.
    """
    return to_channels(decode(data).pixels, 1)[:, :, 0]
