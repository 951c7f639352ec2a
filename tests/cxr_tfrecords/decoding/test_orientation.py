"""EXIF orientation is followed as Pillow does it, wherever a file may have it."""

import zlib

import numpy as np
import pytest
from PIL import Image

from cxr_tfrecords import images
from tests.cxr_tfrecords.decoding.files import RAMP, as_file, by_pillow, gray, with_chunks


def exif(orientation):
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def xmp(orientation):
    return b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a tiff:Orientation="%d"/>' % orientation


def raw_profile(orientation):
    """What ImageMagick writes into a PNG."""
    body = b"Exif\0\0" + exif(orientation).tobytes().removeprefix(b"Exif\0\0")
    return b"\nexif\n%8d\n" % len(body) + body.hex().encode() + b"\n"


def itxt(text):
    return b"XML:com.adobe.xmp\0\0\0\0\0" + text


PLAIN = as_file(RAMP, "PNG")
FILES = {
    "JPEG": lambda n: as_file(RAMP, "JPEG", exif=exif(n)),
    "JPEG, XMP": lambda n: as_file(RAMP, "JPEG", xmp=xmp(n)),
    "PNG": lambda n: as_file(RAMP, "PNG", exif=exif(n)),
    "PNG, after its pixels": lambda n: with_chunks(
        PLAIN, (b"eXIf", exif(n).tobytes().removeprefix(b"Exif\0\0")), before=b"IEND"
    ),
    "PNG, raw profile": lambda n: with_chunks(
        PLAIN, (b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(raw_profile(n)))
    ),
    "PNG, XMP": lambda n: with_chunks(PLAIN, (b"iTXt", itxt(xmp(n)))),
    "WebP": lambda n: as_file(RAMP, "WEBP", lossless=True, exif=exif(n)),
    "TIFF": lambda n: as_file(RAMP, "TIFF", exif=exif(n)),
    "TIFF, compressed": lambda n: as_file(RAMP, "TIFF", exif=exif(n), compression="tiff_lzw"),
}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", FILES)
def test_files_are_turned_as_pillow_does(kind, orientation):
    data = FILES[kind](orientation)
    expected = by_pillow(data)
    assert expected.shape == (RAMP.shape if orientation < 5 else RAMP.shape[::-1])
    np.testing.assert_array_equal(gray(data), expected)
    turned = f"turned (EXIF orientation {orientation})" in images.decode(data).steps
    assert turned == (orientation > 1)


@pytest.mark.parametrize("value", [0, 9, 60000])
def test_another_value_is_upright(value):
    for kind in ("JPEG", "PNG"):
        data = as_file(RAMP, kind, exif=exif(value))
        np.testing.assert_array_equal(gray(data), gray(as_file(RAMP, kind)))


def test_damaged_exif_data_change_nothing():
    for body in (b"", b"MM", b"II*\0\xff\xff\xff\xff", bytes(100)):
        np.testing.assert_array_equal(gray(with_chunks(PLAIN, (b"eXIf", body))), RAMP)
        data = as_file(RAMP, "JPEG", exif=b"Exif\0\0" + body)
        np.testing.assert_array_equal(gray(data), gray(as_file(RAMP, "JPEG")))
    # Text that unpacks to more than Pillow reads is not unpacked further.
    bomb = b"Raw profile type exif\0\0" + zlib.compress(b"0" * 50_000_000)
    np.testing.assert_array_equal(gray(with_chunks(PLAIN, (b"zTXt", bomb))), RAMP)


def test_an_orientation_counts_in_colour_too():
    colour = np.dstack([RAMP, RAMP // 2, 255 - RAMP])
    pixels = images.decode(as_file(colour, "PNG", exif=exif(6))).pixels
    np.testing.assert_array_equal(pixels, np.rot90(colour, -1))
