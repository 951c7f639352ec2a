"""JPEG: stray bytes that leave no doubt are passed over, others are damage."""

import io
import random

import cv2
import numpy as np
import pytest
import simplejpeg
from PIL import Image

from cxr_tfrecords import images
from tests.cxr_tfrecords.decoding.files import RAMP, as_file, gray
from tests.fuzz import streams

NOISY = np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)
CLEAN = as_file(NOISY, "JPEG", quality=90)


def with_stray_bytes(data, where, stray):
    position = {"before the end": len(data) - 2, "after APP0": 20, "before the scan": 0}[where]
    position = position or data.index(b"\xff\xda")
    return data[:position] + stray + data[position:]


@pytest.mark.parametrize(
    ("where", "stray"),
    [
        ("before the end", bytes(40)),
        ("before the end", b"\x20" * 7),
        ("after APP0", bytes(4)),
        ("after APP0", b"\x12\x34\xff\x00\x56"),
        ("before the scan", b"abc"),
    ],
)
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"mode": "RGB"}], ids=str)
def test_stray_bytes_that_leave_no_doubt_are_passed_over(where, stray, options):
    clean = as_file(NOISY, "JPEG", quality=90, **options)
    data = with_stray_bytes(clean, where, stray)
    decoded = images.decode(data)
    np.testing.assert_array_equal(decoded.pixels, images.decode(clean).pixels)
    assert decoded.steps == ("stray bytes left out",)
    by_pillow = np.asarray(Image.open(io.BytesIO(data)))
    by_opencv = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if by_opencv.ndim == 3:
        by_opencv = by_opencv[..., ::-1]
    np.testing.assert_array_equal(decoded.pixels, by_pillow)
    np.testing.assert_array_equal(decoded.pixels, by_opencv)


def test_other_bytes_after_the_image_data_are_damage():
    with pytest.raises(images.BadImageError, match="extraneous bytes"):
        images.decode(with_stray_bytes(CLEAN, "before the end", bytes(range(1, 9))))


def test_no_flipped_bit_that_libjpeg_warns_of_passes_for_stray_bytes():
    choose = random.Random(0)
    first = CLEAN.index(b"\xff\xda") + 12
    extraneous = 0
    for _ in range(300):
        data = bytearray(CLEAN)
        data[choose.randrange(first, len(data) - 2)] ^= 1 << choose.randrange(8)
        try:
            simplejpeg.decode_jpeg(bytes(data), colorspace="GRAY", strict=True)
        except ValueError as warning:
            extraneous += "extraneous bytes" in str(warning)
            with pytest.raises(images.BadImageError):
                images.decode(bytes(data))
    assert extraneous > 10


def test_of_several_pictures_the_first_is_taken():
    buffer = io.BytesIO()
    second = Image.fromarray(255 - RAMP)
    Image.fromarray(RAMP).save(buffer, "MPO", save_all=True, append_images=[second])
    decoded = images.decode(buffer.getvalue())
    assert np.abs(decoded.pixels.astype(int) - RAMP).mean() < 3
    assert (decoded.format, decoded.steps) == ("JPEG", ("first of several frames",))


def test_a_jpeg_of_damaged_header_has_its_reason():
    with pytest.raises(images.BadImageError, match="JPEG"):
        gray(CLEAN[:30])
    for data in (streams.JPEG_LOSSLESS, streams.JPEG_12_BIT):
        with pytest.raises(images.BadImageError, match=r"not supported \(lossless, 12 bits\)"):
            gray(data)
