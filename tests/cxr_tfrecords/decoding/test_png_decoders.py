"""The two decoders behind PNG give the same pixels, whichever of them a file gets."""

import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxr_tfrecords import images
from cxr_tfrecords.decoding import png
from tests.cxr_tfrecords.decoding.files import RAMP, as_file, chunk, chunks, gray, with_chunks

SAMPLES = {0: 1, 2: 3}
COMMON = ((8, 0), (16, 0), (8, 2))
OTHERS = ((1, 0), (4, 0), (16, 2))
# First column and row, and their steps, of the seven passes of an interlaced file (Adam7).
ADAM7 = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)


@st.composite
def files(draw, kinds):
    """A valid PNG: rows of any filter, interlaced or not, packed in any way into chunks IDAT."""
    bits, colour = draw(st.sampled_from(kinds))
    width, height, interlaced = (
        draw(st.integers(1, 20)),
        draw(st.integers(1, 20)),
        draw(st.booleans()),
    )
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    noise = draw(st.booleans())  # else flat rows, which pack into long matches
    rows = []
    for column, row, step, row_step in ADAM7 if interlaced else ((0, 0, 1, 1),):
        length = (len(range(column, width, step)) * SAMPLES[colour] * bits + 7) // 8
        for _ in range(row, height, row_step) if length else ():
            values = rng.integers(0, 256, length if noise else 1, np.uint8).tobytes()
            rows.append(bytes([rng.integers(0, 5)]) + values * (1 if noise else length))
    packer = zlib.compressobj(draw(st.integers(0, 9)), strategy=draw(st.integers(0, 4)))
    packed = packer.compress(b"".join(rows)) + packer.flush()
    cuts = sorted(draw(st.lists(st.integers(0, len(packed)), max_size=3)))
    parts = [packed[a:b] for a, b in zip([0, *cuts], [*cuts, None], strict=True)]
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlaced)
    body = [(b"IHDR", header), *((b"IDAT", part) for part in parts), (b"IEND", b"")]
    return png.SIGNATURE + b"".join(chunk(*one) for one in body)


@settings(max_examples=300, deadline=None)
@given(files(COMMON))
def test_both_decoders_give_the_same_pixels(data):
    fast, opencv = png._decode_common(data), png._decode(data)
    assert fast.dtype == opencv.dtype
    if fast.ndim == 3:
        opencv = cv2.cvtColor(opencv, cv2.COLOR_BGR2RGB)
    np.testing.assert_array_equal(fast, opencv)
    assert fast.flags.writeable  # later steps replace its values


@settings(max_examples=50, deadline=None)
@given(files(OTHERS))
def test_what_is_rare_is_left_to_opencv(data):
    assert png._decode_common(data) is None
    assert images.decode(data).format == "PNG"


def test_transparency_is_left_to_opencv():
    rgb = np.dstack([RAMP, RAMP, RAMP])
    value = b"".join(int(v).to_bytes(2, "big") for v in rgb[5, 5])
    decoded = images.decode(with_chunks(as_file(rgb, "PNG"), (b"tRNS", value)))
    assert decoded.steps == ("transparency drawn on black",)
    assert not decoded.pixels[5, 5].any()


@pytest.mark.parametrize("error", [ValueError, type("PanicException", (BaseException,), {})])
def test_what_one_decoder_refuses_the_other_one_reads_or_explains(monkeypatch, error):
    def refuse(*_):
        raise error

    monkeypatch.setattr(png, "_COMMON", {(8, 0): (refuse, "mono")})
    data = as_file(RAMP, "PNG")
    np.testing.assert_array_equal(gray(data), RAMP)
    without = [one for one in chunks(data) if one[0] != b"IDAT"]
    with pytest.raises(images.BadImageError, match="its image data do not decode"):
        images.decode(png.SIGNATURE + b"".join(chunk(*one) for one in without))


def test_ctrl_c_is_not_taken_for_a_refusal(monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(png, "_COMMON", {(8, 0): (interrupt, "mono")})
    with pytest.raises(KeyboardInterrupt):
        images.decode(as_file(RAMP, "PNG"))


def test_image_data_are_not_unpacked_beyond_the_image():
    rows = b"".join(b"\0" + row.tobytes() for row in RAMP)
    packer = zlib.compressobj()
    packed = packer.compress(rows) + packer.compress(bytes(1 << 20)) + packer.flush()
    damaged = packed[:-200] + bytes(200)  # which nobody sees who stops in time
    header = (b"IHDR", struct.pack(">IIBBBBB", *RAMP.shape[::-1], 8, 0, 0, 0, 0))
    body = [header, (b"IDAT", damaged), (b"IEND", b"")]
    np.testing.assert_array_equal(gray(png.SIGNATURE + b"".join(chunk(*one) for one in body)), RAMP)
