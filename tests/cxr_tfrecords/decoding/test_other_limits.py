"""WebP, BMP, TIFF and GIF that would take minutes or gigabytes are refused unopened."""

import struct

import numpy as np
import pytest

from cxr_tfrecords import images
from cxr_tfrecords.decoding import other_limits
from tests.cxr_tfrecords.decoding.files import RAMP, as_file


def tiff(*tags: tuple[int, int, int], order: str = "<", big: bool = False) -> bytes:
    """The first directory of a TIFF, of tags of tag, type and number of values, and 400 kB."""
    head = b"II" if order == "<" else b"MM"
    head += struct.pack(order + ("HHHQ" if big else "HI"), *((43, 8, 0, 16) if big else (42, 8)))
    entries = (struct.pack(order + ("HHQQ" if big else "HHII"), *tag, 500) for tag in tags)
    return head + struct.pack(order + "HQ"[big], len(tags)) + b"".join(entries) + bytes(400_000)


@pytest.mark.parametrize(("kind", "size"), [("BMP", 6), ("WEBP", 16)])
def test_colours_count_the_bytes_that_pillow_needs(kind, size):
    data = as_file(np.dstack([RAMP] * 3), kind)
    assert images.decode(data, max_pixels=4 * RAMP.size).pixels.shape == (*RAMP.shape, 3)
    with pytest.raises(images.BadImageError, match=f"pixels of {size} bytes"):
        images.decode(data, max_pixels=RAMP.size)


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("order", "<>")
def test_the_tags_of_a_tiff_are_counted(order, big):
    for tags, reason in (
        ([(273, 3, 200_001)], "tag 273 has 200,001 values"),
        ([(40_000 + i, 1, 300_000) for i in range(2)], "more bytes than the file"),
        ([(273, 4, 2**31), (34_377, 7, 390_000)], "not an image|not a readable image"),
    ):
        with pytest.raises(images.BadImageError, match=reason):
            images.decode(tiff(*tags, order=order, big=big))


@pytest.mark.parametrize(
    ("width", "height", "size"), [(4097, 4096, 99), (40_000, 9, 99), (9, 9, 9 << 20)]
)
def test_run_lengths_of_a_bitmap_are_limited(width, height, size):
    def bitmap(width: int, height: int, size: int) -> bytes:
        header = struct.pack("<IiiHHII", 40, width, height, 1, 8, 1, size) + bytes(16)
        head = b"BM" + struct.pack("<IHHI", 1078 + size, 0, 0, 1078)
        return head + header + bytes(range(256)) * 4 + b"\x09\7\0\0" * (size // 4)

    assert images.decode(bitmap(9, 9, 36)).pixels.shape == (9, 9, 3)
    with pytest.raises(images.BadImageError, match=r"with run lengths .* is too large"):
        images.decode(bitmap(width, height, size))


def test_the_blocks_of_a_gif_are_counted(monkeypatch):
    data = as_file(RAMP, "GIF", save_all=True, append_images=[])
    start = data.index(b",\0\0\0\0")
    comments = data[:start] + (b"!\xfe\1a\0" * 20_000) + data[start:]
    with pytest.raises(images.BadImageError, match="more than 10,000 blocks of text"):
        images.decode(comments)
    assert images.decode(data[:start] + b"!\xfe\1a\0" * 9000 + data[start:]).format == "GIF"
    behind = data[:-1] + b"!\xfe" + b"\1a" * 20_000 + b"\0;"
    with pytest.raises(images.BadImageError, match="more than 10,000 blocks of text"):
        images.decode(behind)
    monkeypatch.setattr(other_limits, "_MOST_GIF_BLOCKS", 3)
    with pytest.raises(images.BadImageError, match="more than 3 blocks of image data"):
        images.decode(data)
    with pytest.raises(images.BadImageError, match="more than 3 blocks of image data"):
        images.decode(data[:start] + bytes(99) + data[start:])
