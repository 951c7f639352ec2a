"""PNG: any depth, animations, large text; damage that crashes a decoder is a reason."""

import contextlib
import io
import os
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cxr_tfrecords import images
from tests.cxr_tfrecords.decoding.files import (
    RAMP,
    SIGNATURE,
    as_file,
    by_pillow,
    chunk,
    chunks,
    gray,
    with_chunks,
)

PLAIN = as_file(RAMP, "PNG")


@pytest.mark.parametrize("depth", range(8, 17))
def test_16_bits_are_scaled_by_the_smallest_depth_that_holds_the_image(depth):
    top = 2**depth - 1
    values = np.linspace(0, top, 256).round().reshape(16, 16)
    decoded = images.decode(as_file(values.astype(np.uint16), "PNG"))
    np.testing.assert_allclose(decoded.pixels, values * 255 / top, atol=0.501)
    assert decoded.steps == (f"scaled from {depth}{' of 16' if depth < 16 else ''} bits",)
    assert decoded.mode == "I;16"


@pytest.mark.parametrize("default_image", [True, False])
def test_of_an_animation_the_default_image_is_taken(default_image):
    first, *others = (Image.fromarray(np.roll(RAMP, 20 * n, axis=1)) for n in range(3))
    buffer = io.BytesIO()
    first.save(buffer, "PNG", save_all=True, append_images=others, default_image=default_image)
    data = buffer.getvalue()
    np.testing.assert_array_equal(gray(data), RAMP)
    np.testing.assert_array_equal(gray(data), by_pillow(data))
    assert images.decode(data).steps == ("default image of an animation",)


def test_large_text_and_colour_profiles_are_passed_over():
    large = zlib.compress(bytes(4_000_000))
    for kind, name in ((b"zTXt", b"Comment\0\0"), (b"iCCP", b"ICC profile\0\0")):
        data = with_chunks(PLAIN, (kind, name + large))
        with pytest.raises(ValueError, match=r"MAX_TEXT_CHUNK|too large"):
            by_pillow(data)
        np.testing.assert_array_equal(gray(data), RAMP)


def test_a_fully_transparent_image_is_told():
    rgba = np.dstack([RAMP, RAMP, RAMP, np.zeros_like(RAMP)])
    decoded = images.decode(as_file(rgba, "PNG"))
    assert not decoded.pixels.any()
    assert decoded.steps == ("fully transparent",)
    rgba[0, 0, 3] = 1
    assert images.decode(as_file(rgba, "PNG")).steps == ("transparency drawn on black",)


@pytest.mark.parametrize("scale", [1, 257])
def test_the_transparent_value_of_a_gray_image_stays_as_it_is(scale):
    values = RAMP if scale == 1 else RAMP.astype(np.uint16) * 257
    key = int(values[5, 5]).to_bytes(2, "big")
    np.testing.assert_array_equal(gray(with_chunks(as_file(values, "PNG"), (b"tRNS", key))), RAMP)


def test_an_unknown_critical_chunk_is_damage():
    with pytest.raises(images.BadImageError, match="unknown critical chunk 'ABCD'"):
        images.decode(with_chunks(PLAIN, (b"ABCD", b"")))


PARTS = [
    *chunks(PLAIN),
    (b"IDAT", b""),
    (b"acTL", b"\0\0\0\1\0\0\0\0"),
    (b"fcTL", bytes(3) + b"\0\0\0\0\x30\0\0\0\x3c" + bytes(14)),
    (b"fdAT", b"\0\0\0\1" + dict(chunks(PLAIN))[b"IDAT"]),
    (b"PLTE", bytes(range(6))),
    (b"tRNS", b"\0\1"),
    (b"ABCD", b""),
    (b"tEXt", b"a\0b"),
]


@settings(max_examples=300, deadline=None)
@given(order=st.lists(st.sampled_from(PARTS), max_size=8))
def test_any_order_of_chunks_gives_an_image_or_a_reason(order):
    # OpenCV 5.0 crashes on some of them: the test would end with the process.
    header, end = PARTS[0], (b"IEND", b"")
    data = SIGNATURE + b"".join(chunk(*one) for one in [header, *order, end])
    with contextlib.suppress(images.BadImageError):
        assert gray(data).shape == RAMP.shape


def test_random_text_does_not_change_the_pixels():
    data = with_chunks(PLAIN, (b"iTXt", os.urandom(300)), (b"prVt", os.urandom(300)))
    np.testing.assert_array_equal(gray(data), RAMP)
