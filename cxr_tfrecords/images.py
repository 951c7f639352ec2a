"""Radiograph files to pixels and back: decode strictly, resize, encode.

Damage that decoders ignore is an error here: OpenCV returns a picture with a gray lower half
for a truncated JPEG, and Pillow accepts some PNG files with a flipped bit. PNG chunks have a
CRC, so any flipped bit in one is found. JPEG has no checksum, so a flipped bit that leaves a
valid file (of another picture) cannot be found.
"""

from __future__ import annotations

import dataclasses
import warnings

import cv2
import numpy as np
import simplejpeg
import xxhash
from PIL import Image

from cxr_tfrecords.decoding import dicom, jpeg, other_formats, png
from cxr_tfrecords.decoding.bands import bands
from cxr_tfrecords.decoding.result import (
    BYTES_PER_PIXEL,
    TRANSPARENT,
    BadImageError,
    Decoded,
    take_turn_if_large,
)
from cxr_tfrecords.tables import is_unknown_id

# Our own --max_pixels check replaces Pillow's, which warns on stderr or raises by size class.
Image.MAX_IMAGE_PIXELS = None
warnings.filterwarnings("ignore", module="PIL")  # of each damaged tag
# Workers already decode in parallel: with OpenCV's own threads they would wait for each other.
cv2.setNumThreads(1)
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

DEFAULT_MAX_PIXELS = 64_000_000
_METADATA = 1 << 24  # bytes that a file may have besides its pixels
# Each pixel minus the one above it, then run lengths. On radiographs of 224 px, against zlib's
# default strategy at level 1: 6% smaller, half the time to encode, little more than half to decode.
PNG_OPTIONS = (
    *(cv2.IMWRITE_PNG_COMPRESSION, 1),
    *(cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_UP),
    *(cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE),
)


def decode(data: bytes, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> Decoded:
    """Decodes PNG or JPEG of 8 or 16 bits, gray, colour, palette, with or without alpha; DICOM;
    WebP, BMP, TIFF and GIF. `Decoded.steps` says what was done to the stored values.

    16-bit values are scaled by the smallest depth that holds the image (`depth.depth_of`), because
    detectors deliver 10 to 15 bits in 16-bit files. Transparent images are drawn on black; the one
    gray value that a gray PNG can name as transparent (tRNS) stays as it is. EXIF orientation is
    followed; of several frames the first is taken, except of DICOM.

    Raises:
      BadImageError: empty, not an image, another format, damaged, truncated, or over `max_pixels`.
    """
    if not data:
        raise BadImageError("empty file (0 bytes)")
    if dicom.is_dicom(data):
        decoded = dicom.decode_dicom(data, max_pixels)
        # Anonymisers write one id into every file.
        unknown = decoded.patient == "0" or is_unknown_id(decoded.patient)
        return dataclasses.replace(decoded, patient="") if unknown else decoded
    if data.startswith(png.SIGNATURE):
        return png.decode_png(data, max_pixels)
    if data.startswith(jpeg.START):
        return jpeg.decode_jpeg(data, max_pixels)
    return other_formats.decode_other(data, max_pixels)


def check_file_size(num_bytes: int, max_pixels: int) -> None:
    """Refuses a file that is larger than what an image of `max_pixels` unpacks to, unread; of
    other large ones, one is read at a time (`result.one_large_at_a_time`).

    Raises:
      BadImageError: it is.
    """
    if num_bytes > BYTES_PER_PIXEL * max_pixels + _METADATA:
        raise BadImageError(
            f"file of {num_bytes:,} bytes: more than {BYTES_PER_PIXEL} for each of "
            f"--max_pixels={max_pixels}"
        )
    take_turn_if_large(num_bytes)


def warning_of(decoded: Decoded) -> str:
    """Why somebody should look at an image that can be used; '' if there is no reason."""
    if TRANSPARENT in decoded.steps:
        return TRANSPARENT
    if _has_one_value(decoded.pixels):
        return "all pixels have one value"
    # Most images have a brighter pixel in their first rows: the others are not looked at.
    rows = bands(len(decoded.pixels), decoded.pixels[0].nbytes)
    if all(decoded.pixels[band].max() <= 1 for band in rows):
        return "no pixel is above 1 of 255, as of values scaled to 0..1"
    return ""


def _has_one_value(pixels: np.ndarray) -> bool:
    row, first = pixels[:1].tobytes(), pixels[:1, :1].tobytes()
    # Most images differ in their first row: the others are compared only if it is flat.
    if row != first * pixels.shape[1]:
        return False
    # In bands: what a comparison gives is as large as the image.
    return not any((pixels[rows] != pixels[:1, :1]).any() for rows in bands(len(pixels), len(row)))


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
    digest = xxhash.xxh3_128(f"{pixels.shape[:2]}".encode())
    digest.update(np.ascontiguousarray(to_channels(pixels, 1)).data)
    return digest.digest()


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
