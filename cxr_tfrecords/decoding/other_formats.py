"""WebP, BMP, TIFF and GIF, which Pillow reads; any other file gets its reason."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
from PIL import Image, TiffImagePlugin, UnidentifiedImageError

from cxr_tfrecords.decoding.bands import bands, fill
from cxr_tfrecords.decoding.depth import depth_of, describe_depth, to_8_bits
from cxr_tfrecords.decoding.orientation import describe_turn, orientation_of, turn
from cxr_tfrecords.decoding.other_limits import check_other
from cxr_tfrecords.decoding.result import (
    TOO_MUCH_MEMORY,
    BadImageError,
    Decoded,
    check_size,
    short,
)
from cxr_tfrecords.decoding.tiff_jpeg import check_jpeg_parts

FORMATS = ("BMP", "GIF", "TIFF", "WEBP")
# Pillow's modes that have an equivalent in 8 bits of gray, colour, or colour and alpha.
_EIGHT_BITS = {
    **{"1": "L", "L": "L", "P": "RGBA", "PA": "RGBA", "LA": "RGBA", "La": "RGBA"},
    **{"RGB": "RGB", "RGBA": "RGBA", "RGBa": "RGBA", "RGBX": "RGB", "CMYK": "RGB", "YCbCr": "RGB"},
}
# Other modes -> what the pixels are, and how the image is to be saved again.
_NOT_READ = {
    "F": "its pixels are floats: save it with 8- or 16-bit whole numbers, for instance as PNG",
    "LAB": "its pixels are L*a*b* colours: save it in gray or RGB, for instance as PNG",
}
# Tags of TIFF.
_BITS_PER_SAMPLE, _PHOTOMETRIC, _TILE_WIDTH, _TILE_LENGTH = 258, 262, 322, 323
_WHITE_IS_ZERO = 0
_FAX = ("group3", "group4", "tiff_ccitt")
_JPEG, _OLD_JPEG = "jpeg", "tiff_jpeg"


def decode_other(data: bytes, max_pixels: int) -> Decoded:
    """Decodes the first frame of a WebP, BMP, TIFF or GIF file.

    Raises:
      BadImageError: not one of these, damaged, truncated, or over `max_pixels`.
    """
    check_other(data, max_pixels)
    try:
        image = Image.open(io.BytesIO(data))
    except UnidentifiedImageError as error:
        raise BadImageError(f"not an image (starts with {data[:8]!r})") from error
    except Exception as error:  # Pillow raises many types for a damaged header
        raise BadImageError(f"not a readable image ({short(error)})") from error
    with image:
        kind, mode = str(image.format), image.mode
        if kind not in FORMATS:
            raise BadImageError(
                f"format {kind} is not supported (PNG, JPEG, DICOM, WebP, BMP, TIFF and GIF are)"
            )
        gray = {"1": 1, "L": 1, "I;16": 2, "I;16B": 2}.get(mode)
        # Pillow keeps 4 bytes for each pixel in colour, and copies them to change the mode.
        check_size(*image.size, max_pixels, gray or 6)
        if isinstance(image, TiffImagePlugin.TiffImageFile):
            _check_tiff(image, max_pixels)
        try:
            if kind == "TIFF" and image.info.get("compression") == _JPEG:
                check_jpeg_parts(data, image.tag_v2, max_pixels)  # type: ignore[attr-defined]
            return _decode(image, kind, mode)
        except BadImageError:
            raise
        except MemoryError as error:
            raise BadImageError(TOO_MUCH_MEMORY) from error
        except Exception as error:  # … and for damaged data
            raise BadImageError(f"damaged or truncated {kind} ({short(error)})") from error


def _decode(image: Image.Image, kind: str, mode: str) -> Decoded:
    steps = ["first of several frames"] if getattr(image, "is_animated", False) else []
    tags = image.tag_v2 if isinstance(image, TiffImagePlugin.TiffImageFile) else {}
    white_is_zero = tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO
    orientation = orientation_of(image)
    image.load()  # the first frame; this turns a TIFF
    width, height = image.size
    if mode.startswith("I"):  # integers of more than 8 bits
        extremes = [extreme for rows in _bands(image) for extreme in (rows.min(), rows.max())]
        low, high = min(0, int(min(extremes))), int(max(extremes))
        if low < 0 or high > 65535:
            raise BadImageError(f"{kind} of values from {low} to {high}: 0 to 65535 are supported")
        depth = depth_of(high, 16)
        pixels = np.empty((height, width), np.uint8)
        fill(pixels, (to_8_bits(rows, depth) for rows in _bands(image)))
        steps += describe_depth(depth, 16)
        if white_is_zero:  # of 8 bits and less Pillow inverts them itself
            pixels = 255 - pixels
            steps.append("inverted (white is 0)")
    elif mode in _EIGHT_BITS:
        as_mode = "RGBA" if "transparency" in image.info else _EIGHT_BITS[mode]
        pixels = np.empty((height, width) if as_mode == "L" else (height, width, 3), np.uint8)
        steps += fill(pixels, _bands(image, as_mode))
    else:
        other = f"pixels of Pillow's mode {mode} are not read: save it in gray or RGB, as PNG"
        raise BadImageError(f"{kind}: {_NOT_READ.get(mode, other)}")
    if kind != "TIFF":
        pixels = turn(pixels, orientation)
    steps += describe_turn(orientation)
    return Decoded(pixels, kind, mode, tuple(steps))


def _bands(image: Image.Image, mode: str | None = None) -> Iterator[np.ndarray]:
    """The rows of an image, some at a time, in a mode of Pillow's (None: its own)."""
    width, height = image.size
    for rows in bands(height, width * 4):
        band = image.crop((0, rows.start, width, rows.stop))
        yield np.asarray(band if mode is None else band.convert(mode))


def _check_tiff(image: TiffImagePlugin.TiffImageFile, max_pixels: int) -> None:
    tags = image.tag_v2
    # A tile is made whole in memory, however small the image is.
    check_size(tags.get(_TILE_WIDTH, 1), tags.get(_TILE_LENGTH, 1), max_pixels)
    bits = tags.get(_BITS_PER_SAMPLE, (1,))
    if len(bits) > 1 and max(bits) > 8:
        raise BadImageError("TIFF of 16 bits a colour is not supported: convert it to PNG")
    if image.info.get("compression") in _FAX:
        # The decoder leaves a damaged row as the memory was, and says nothing.
        raise BadImageError("TIFF of fax compression is not supported: convert it to PNG")
    if image.info.get("compression") == _OLD_JPEG:
        # Its parts are not JPEG files that could be checked.
        raise BadImageError("TIFF of old JPEG compression (6) is not supported: convert it to PNG")
