"""JPEG inside a TIFF is decoded only if every strip and tile of it is whole."""

import io
import struct

import numpy as np
import pytest
from PIL import Image

from cxr_tfrecords import images
from cxr_tfrecords.decoding import tiff_jpeg
from tests.cxr_tfrecords.decoding.files import RAMP, as_file

COLOUR = np.dstack([RAMP, RAMP[::-1], RAMP // 2])


def tiff(pixels=COLOUR, **options):
    return as_file(pixels, "TIFF", compression="jpeg", **options)


@pytest.mark.parametrize("shape", ["gray", "colour", "many strips"])
def test_whole_files_are_decoded_as_by_pillow(shape):
    pixels = {"gray": RAMP, "colour": COLOUR, "many strips": np.tile(COLOUR, (30, 3, 1))}[shape]
    data = tiff(pixels, **({"strip_size": 4096} if shape == "many strips" else {}))
    with Image.open(io.BytesIO(data)) as image:
        assert (len(image.tag_v2[273]) > 9) == (shape == "many strips")
        np.testing.assert_array_equal(images.decode(data).pixels, np.asarray(image))


def damaged(part, rows):
    """A TIFF whose JPEG has another number of rows in its header, or other last bytes."""
    data = tiff()
    with Image.open(io.BytesIO(data)) as image:
        start, length = image.tag_v2[273][0], image.tag_v2[279][0]
    jpeg = data[start : start + length]
    header = b"\xff\xc0\0\x11\x08\0"
    assert header + bytes([60]) in jpeg
    if part == "header":
        jpeg = jpeg.replace(header + bytes([60]), header + bytes([rows]))
    else:
        jpeg = jpeg[:-9] + bytes(7) + jpeg[-2:]
    return data[:start] + jpeg + data[start + length :]


@pytest.mark.parametrize(("part", "rows"), [("header", 59), ("header", 8), ("data", 60)])
def test_a_damaged_strip_is_not_filled_with_what_was_in_memory(part, rows):
    data = damaged(part, rows)
    with Image.open(io.BytesIO(data)) as image:
        image.load()  # libtiff takes it
    with pytest.raises(images.BadImageError, match="damaged TIFF: part 0 of it"):
        images.decode(data)


def test_parts_that_overlap_are_not_decoded_each(monkeypatch):
    data = tiff(np.tile(COLOUR, (30, 1, 1)), strip_size=4096)
    monkeypatch.setattr(tiff_jpeg, "_MOST_TABLES", 600)
    with Image.open(io.BytesIO(data)) as image:
        tags = dict(image.tag_v2)
    tags[273], tags[279] = [tags[273][0]] * len(tags[273]), [len(data)] * len(tags[279])
    with pytest.raises(images.BadImageError, match="parts overlap"):
        tiff_jpeg.check_jpeg_parts(data, tags, 10**6)


def test_scans_of_the_parts_are_counted():
    jpeg = as_file(RAMP, "JPEG", progressive=True)
    scan = jpeg[jpeg.rindex(b"\xff\xda") : -2]
    height, width = RAMP.shape
    tags = {256: width, 257: height, 273: [0], 279: [len(jpeg)]}
    tiff_jpeg.check_jpeg_parts(jpeg, tags, RAMP.size)
    many = jpeg[:-2] + scan * 12 + jpeg[-2:]
    with pytest.raises(images.BadImageError, match="more than 16 scans"):
        tiff_jpeg.check_jpeg_parts(many, {**tags, 279: [len(many)]}, RAMP.size)


def test_old_jpeg_compression_is_refused():
    data = bytearray(tiff())
    with Image.open(io.BytesIO(bytes(data))) as image:
        order = "<" if image.tag_v2.prefix == b"II" else ">"
    entry = struct.pack(order + "HHIH", 259, 3, 1, 7)
    at = data.index(entry)
    data[at : at + len(entry)] = struct.pack(order + "HHIH", 259, 3, 1, 6)
    with pytest.raises(images.BadImageError, match="old JPEG compression"):
        images.decode(bytes(data))
