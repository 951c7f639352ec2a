"""What a WebP, BMP, TIFF or GIF file would cost, counted before Pillow opens it.

Pillow reads the tags of a TIFF, the blocks of a GIF and the runs of a BMP one by one in Python, and
makes the whole picture of a WebP, when it opens or loads a file.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from cxr_tfrecords.decoding.result import BadImageError, check_size

# Of a WebP: RGBA of this frame and the one before, of the result and of Pillow's copies.
_WEBP_BYTES = 16
_MOST_TAG_VALUES = 200_000  # a palette of 16 bits has 196,608, an image one for each strip or tile
_TAG_SLACK = 1 << 16  # for tags that share their bytes
# TIFF 6.0, section 2: bytes of one value of each type; of those below 3 values are not unpacked.
_TAG_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 16: 8}
_TAGS_OF_BYTES = (1, 2, 6, 7)
_GIF_EXTENSION, _GIF_FRAME, _GIF_END = b"!,;"
_MOST_GIF_BLOCKS = 1_200_000  # of 255 bytes: 306 MB
_MOST_GIF_TEXTS = 10_000  # Pillow copies a comment for each of its blocks
_RLE_BITMAPS = (1, 2)
_MOST_RLE_BYTES = 8 << 20
_MOST_RLE_PIXELS = 1 << 24
_MOST_RLE_WIDTH = 1 << 15


def check_other(data: bytes, max_pixels: int) -> None:
    """Checks what the header and the directories of a file say.

    Raises:
      BadImageError: it would take too long, or too much memory.
    """
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        _check_webp(data, max_pixels)
    elif data[:2] == b"BM":
        _check_bmp(data)
    elif data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        _check_tiff(data)
    elif data[:6] in (b"GIF87a", b"GIF89a"):
        _check_gif(data)


def _check_webp(data: bytes, max_pixels: int) -> None:
    kind, header = data[12:16], data[20:30].ljust(10, b"\0")
    if kind == b"VP8X":
        width, height = (int.from_bytes(header[i : i + 3], "little") + 1 for i in (4, 7))
    elif kind == b"VP8L":
        both = int.from_bytes(header[1:5], "little")
        width, height = (both & 0x3FFF) + 1, (both >> 14 & 0x3FFF) + 1
    else:  # VP8
        width, height = (int.from_bytes(header[i : i + 2], "little") & 0x3FFF for i in (6, 8))
    check_size(width, height, max_pixels, _WEBP_BYTES)


def _check_bmp(data: bytes) -> None:
    """Run lengths, which Pillow unpacks in Python; it fills what a jump leaves out, too."""
    if len(data) < 34 or struct.unpack_from("<I", data, 30)[0] not in _RLE_BITMAPS:
        return
    width, height = struct.unpack_from("<ii", data, 18)
    if (
        len(data) > _MOST_RLE_BYTES
        or abs(width * height) > _MOST_RLE_PIXELS
        or abs(width) > _MOST_RLE_WIDTH
    ):
        raise BadImageError(
            f"BMP with run lengths of {width} x {abs(height)} pixels and {len(data):,} bytes is "
            "too large: convert it to PNG"
        )


def _check_tiff(data: bytes) -> None:
    """The values of the first directory."""
    order = "<" if data[:2] == b"II" else ">"
    big = b"+" in data[2:4]
    count, offset = ("Q", "Q") if big else ("H", "I")
    entry = struct.Struct(order + ("HHQ8x" if big else "HHI4x"))
    try:
        (start,) = struct.unpack_from(order + offset, data, 8 if big else 4)
        (tags,) = struct.unpack_from(order + count, data, start)
    except (struct.error, OverflowError):  # Pillow says what it misses
        return
    start += struct.calcsize(order + count)
    stop = min(len(data), start + min(tags, _MOST_TAG_VALUES) * entry.size)
    total = 0
    for tag, kind, values in entry.iter_unpack(data[start : stop - (stop - start) % entry.size]):
        size = values * _TAG_BYTES.get(kind, 0)
        if size > len(data):  # Pillow leaves out such a tag
            continue
        if kind not in _TAGS_OF_BYTES and values > _MOST_TAG_VALUES:
            raise BadImageError(
                f"TIFF whose tag {tag} has {values:,} values: more than {_MOST_TAG_VALUES:,}"
            )
        total += size
        if total > len(data) + _TAG_SLACK:
            raise BadImageError("TIFF whose tags have more bytes than the file")


def _check_gif(data: bytes) -> None:
    for kind, blocks in _gif_blocks(data):
        if blocks > (_MOST_GIF_TEXTS if kind == _GIF_EXTENSION else _MOST_GIF_BLOCKS):
            raise BadImageError(
                f"GIF of more than {blocks - 1:,} blocks of "
                f"{'text' if kind == _GIF_EXTENSION else 'image data'}"
            )


def _gif_blocks(data: bytes) -> Iterator[tuple[int, int]]:
    """Kind and number so far of each block of the first frame, and of those before the next.

    Bytes that are no block count as image data: Pillow goes over them one by one.
    """
    position, frames, blocks, texts = 13 + _palette_bytes(data[10:11]), 0, 0, 0
    while position < len(data) and data[position] != _GIF_END and frames < 2:
        kind = data[position]
        if kind == _GIF_FRAME:
            frames += 1
            position += 11 + _palette_bytes(data[position + 9 : position + 10])
        elif kind == _GIF_EXTENSION:
            position += 2
        else:
            position, blocks = position + 1, blocks + 1
            yield _GIF_FRAME, blocks
            continue
        while position < len(data) and data[position]:
            position += 1 + data[position]
            if kind == _GIF_FRAME:
                blocks += 1
                yield kind, blocks
            else:
                texts += 1
                yield kind, texts
        position += 1  # the block of length 0


def _palette_bytes(flags: bytes) -> int:
    return 3 << (flags[0] & 7) + 1 if flags and flags[0] & 0x80 else 0
