"""JPEG inside TIFF (compression 7): each strip or tile is a JPEG of its own, of which libtiff only
warns if it is damaged or too small. The rest of the picture is then what the memory held.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import simplejpeg

from cxr_tfrecords.decoding.jpeg import MOST_SCANS
from cxr_tfrecords.decoding.result import BadImageError, check_size, short

# Tags of TIFF 6.0, and of TIFF Technical Note 2.
_WIDTH, _HEIGHT, _STRIPS, _STRIP_ROWS, _STRIP_BYTES = 256, 257, 273, 278, 279
_TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_BYTES, _TABLES = 322, 323, 324, 325, 347
_MOST_TABLES = 1 << 16  # bytes; usual are 300 to 600


def check_jpeg_parts(data: bytes, tags: Mapping[int, Any], max_pixels: int) -> None:
    """Decodes each strip or tile as strictly as a JPEG file.

    Args:
      tags: of the first picture, as Pillow reads them.

    Raises:
      BadImageError: one is damaged or smaller than the tags say, or they overlap.
      KeyError, ValueError: a tag is missing, or has a wrong number of values.
    """
    pixels = num_bytes = scanned = 0
    for number, (part, height, width) in enumerate(_parts(data, tags)):
        try:
            found_height, found_width, space, _ = simplejpeg.decode_jpeg_header(part)
            pixels, num_bytes = pixels + found_height * found_width, num_bytes + len(part)
            if pixels > 4 * max_pixels or num_bytes > 2 * len(data) + _MOST_TABLES:
                raise BadImageError("TIFF whose JPEG parts overlap, or are larger than the picture")
            scanned += part.count(b"\xff\xda") * found_height * found_width
            if scanned > MOST_SCANS * max_pixels:
                raise BadImageError(
                    f"TIFF of JPEG parts with more than {MOST_SCANS} scans of "
                    f"--max_pixels={max_pixels}"
                )
            check_size(found_width, found_height, max_pixels)
            if found_height < height or found_width < width:
                raise ValueError(f"{found_width} x {found_height} pixels, not {width} x {height}")
            space = "GRAY" if space == "Gray" else "RGB"
            simplejpeg.decode_jpeg(part, colorspace=space, strict=True)
        except ValueError as error:
            raise BadImageError(f"damaged TIFF: part {number} of it ({short(error)})") from error


def _parts(data: bytes, tags: Mapping[int, Any]) -> Iterator[tuple[bytes, int, int]]:
    """Each strip's or tile's JPEG with its tables, and how many rows and columns it must have."""
    height, width = int(tags[_HEIGHT]), int(tags[_WIDTH])
    tables = tags.get(_TABLES) or b""
    if len(tables) > _MOST_TABLES:
        raise BadImageError(f"TIFF whose JPEG tables have {len(tables):,} bytes")
    tiled = _TILES in tags
    names = (_TILES, _TILE_BYTES) if tiled else (_STRIPS, _STRIP_BYTES)
    starts, lengths = (tags[name] for name in names)
    rows = int(tags[_TILE_HEIGHT] if tiled else min(tags.get(_STRIP_ROWS, height), height))
    columns = int(tags[_TILE_WIDTH]) if tiled else width
    in_plane = max(1, -(-height // max(1, rows)))
    for number, (start, length) in enumerate(zip(starts, lengths, strict=True)):
        part = data[start : start + length]
        # The last strip may be shorter than the others.
        left = rows if tiled else min(rows, height - number % in_plane * rows)
        yield (tables[:-2] + part[2:] if tables else part), left, columns
