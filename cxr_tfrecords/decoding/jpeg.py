"""JPEG: libjpeg's warnings are errors, but for stray bytes that leave no doubt about a pixel."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator

import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

from cxr_tfrecords.decoding.orientation import describe_turn, orientation_of, turn
from cxr_tfrecords.decoding.result import BadImageError, Decoded, check_size, short

START = b"\xff\xd8"
_END = b"\xff\xd9"
_SCAN = 0xDA
_FEWEST_FILL_BYTES = 4
_FILL_BYTES = b"\xff" * 1000  # Pillow reads them one by one
_MOST_SEGMENTS = 10_000  # before the image data; Pillow reads them one by one, too
# A decoder goes over the whole image at each scan, however little the scan holds. Encoders write
# about 10 scans into a progressive image.
MOST_SCANS = 16  # at --max_pixels; more in a smaller image


def decode_jpeg(data: bytes, max_pixels: int) -> Decoded:
    """Decodes a JPEG; of several pictures (MPO) the first.

    Raises:
      BadImageError: damaged, truncated, or over `max_pixels`.
    """
    if _FILL_BYTES in data:
        raise BadImageError("damaged JPEG: over 1,000 fill bytes (FF) in a row")
    _check_segments(data)
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as header:
            mode, (width, height) = header.mode, header.size
            progressive = "progressive" in header.info
            several = getattr(header, "n_frames", 1) > 1
            # Without either, Pillow would only look for them again.
            tagged = "exif" in header.info or "xmp" in header.info
            orientation = orientation_of(header) if tagged else 1
    except UnidentifiedImageError as error:
        raise BadImageError(
            "damaged JPEG, or a kind that is not supported (lossless, 12 bits): convert it to PNG"
        ) from error
    except Exception as error:  # Pillow raises many types for a damaged header
        raise BadImageError(f"damaged or truncated JPEG ({short(error)})") from error
    samples = {"L": 1, "CMYK": 4}.get(mode, 3)
    shown = min(samples, 3)
    # Of a progressive image the decoder also keeps all coefficients, of 2 bytes each; CMYK is
    # decoded as it is stored, and made RGB in a copy.
    pixel_bytes = shown + samples * (2 * progressive + (mode == "CMYK"))
    kept = len(data) + (0 if orientation == 1 else shown * width * height)  # a copy is turned
    check_size(width, height, max_pixels, pixel_bytes, kept)
    scans = data.count(b"\xff\xda")
    if scans * width * height > MOST_SCANS * max_pixels:
        raise BadImageError(
            f"JPEG of {scans} scans of {width} x {height} pixels: more than {MOST_SCANS} scans of "
            f"--max_pixels={max_pixels}"
        )
    stray: tuple[str, ...] = ()
    try:
        pixels = _decode(data, mode)
    except ValueError as error:
        pixels, stray = _decode_without_stray_bytes(data, mode, error), ("stray bytes left out",)
    if pixels.shape[:2] != (height, width):
        raise BadImageError(f"header says {width} x {height}, decoded {pixels.shape[1::-1]}")
    first = ("first of several frames",) if several else ()
    steps = (*first, *stray, *describe_turn(orientation))
    return Decoded(turn(pixels, orientation), "JPEG", mode, steps)


def _check_segments(data: bytes) -> None:
    position = 2
    for _ in range(_MOST_SEGMENTS):
        position = data.find(b"\xff", position)
        if position < 0 or position + 4 > len(data) or data[position + 1] == _SCAN:
            return
        if data[position + 1] in (0x00, 0xFF):  # not a marker
            position += 1
        else:
            position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    raise BadImageError(f"JPEG of more than {_MOST_SEGMENTS:,} segments before its image data")


def _decode(data: bytes, mode: str) -> np.ndarray:
    space = "GRAY" if mode == "L" else "RGB"
    # strict: libjpeg's warnings (premature end, corrupt data) are errors here.
    pixels = simplejpeg.decode_jpeg(data, colorspace=space, strict=True)
    return pixels[:, :, 0] if space == "GRAY" else pixels


def _decode_without_stray_bytes(data: bytes, mode: str, error: ValueError) -> np.ndarray:
    if "extraneous bytes before marker" in str(error):
        data = _leave_out_between_segments(data)
        for clean in (data, *_leave_out_before_end(data)):
            with contextlib.suppress(ValueError):
                return _decode(clean, mode)
    raise BadImageError(f"damaged or truncated JPEG ({short(error)})") from error


def _leave_out_between_segments(data: bytes) -> bytes:
    """Leaves out bytes between the header's segments, whose ends their lengths tell exactly."""
    kept, position = [data[:2]], 2
    while (start := data.find(b"\xff", position)) >= 0 and start + 4 <= len(data):
        if data[start + 1] in (0x00, 0xFF):  # not a marker
            position = start + 1
            continue
        if data[start + 1] == _SCAN:
            return b"".join([*kept, data[start:]])
        position = start + 2 + int.from_bytes(data[start + 2 : start + 4], "big")
        kept.append(data[start:position])
    return data


def _leave_out_before_end(data: bytes) -> Iterator[bytes]:
    """Leaves out a run of one byte between the image data and the end marker.

    Other bytes in this place are what a flipped bit leaves, too: a third of the flipped bits that
    are found at all show themselves only so. These files stay damaged.
    """
    end = data.rfind(_END)
    stop = len(data[:end].rstrip(data[end - 1 : end]))
    if end - stop >= _FEWEST_FILL_BYTES:
        # The image data themselves may end with a byte of this value.
        yield from (data[:length] + _END for length in (stop, stop + 1))
