"""Decoding is strict, and every pixel layout ends as the same gray."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from cxr_tfrecords import images
from tests.shared import shared_path

RAMP = (np.add.outer(np.arange(60), np.arange(48)) * 2).astype(np.uint8)


def as_file(pixels: np.ndarray, kind: str = "PNG", mode: str | None = None, **options) -> bytes:
    buffer = io.BytesIO()
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P"])
def test_every_png_mode_gives_the_same_gray(mode):
    decoded = images.decode(as_file(RAMP, mode=mode))
    np.testing.assert_array_equal(images.to_channels(decoded.pixels, 1)[:, :, 0], RAMP)
    assert (decoded.format, decoded.mode) == ("PNG", mode)


def test_jpeg_gray_and_colour_decode_close_to_the_source():
    for mode in ("L", "RGB", "CMYK"):
        decoded = images.decode(as_file(RAMP, "JPEG", mode=mode, quality=95))
        gray = images.to_channels(decoded.pixels, 1)[:, :, 0].astype(int)
        assert np.abs(gray - RAMP).mean() < 3, mode


def test_transparent_pixels_become_black():
    rgba = np.dstack([RAMP, RAMP, RAMP, np.where(RAMP > 100, 255, 0).astype(np.uint8)])
    gray = images.to_channels(images.decode(as_file(rgba)).pixels, 1)[:, :, 0]
    np.testing.assert_array_equal(gray, np.where(RAMP > 100, RAMP, 0))


def test_every_flipped_byte_of_a_png_is_found():
    data = as_file(RAMP)
    for position in range(len(data)):
        damaged = bytearray(data)
        damaged[position] ^= 1
        with pytest.raises(images.BadImageError):
            images.decode(bytes(damaged))


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_truncation_is_found_wherever_it_falls(kind):
    data = as_file(RAMP, kind)
    for length in range(1, len(data) - 12, 37):
        with pytest.raises(images.BadImageError):
            images.decode(data[:length])


def test_reasons_name_the_fault():
    for data, reason in (
        (b"", "empty file"),
        (b"hello, radiograph", "not an image"),
        (as_file(RAMP, "PPM"), "format PPM is not supported"),
        (as_file(RAMP)[:-20], "truncated PNG"),
    ):
        with pytest.raises(images.BadImageError, match=reason):
            images.decode(data)


def test_a_huge_image_is_refused_by_its_header_alone():
    # A bomb: the header says 30,000 x 30,000, the data are ten bytes.
    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 0, 0, 0, 0)
    chunks = b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in ((b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b""))
    )
    with pytest.raises(images.BadImageError, match="--max_pixels=64000000"):
        images.decode(b"\x89PNG\r\n\x1a\n" + chunks)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("encoding", "tolerance"), [("png", 0), ("raw", 0), ("jpeg", 6)])
def test_stored_images_read_back(encoding, channels, tolerance):
    pixels = images.resize(images.to_channels(RAMP, channels), 32)
    stored = images.encode(pixels, encoding)
    back = images.decode_stored(stored, encoding, 32, channels)
    assert np.abs(back.astype(int) - pixels).max() <= tolerance
    with pytest.raises(images.BadImageError):
        images.decode_stored(stored, encoding, 31, channels)


def test_colour_order_survives_encoding():
    red = np.zeros((8, 8, 3), np.uint8)
    red[:, :, 0] = 200
    np.testing.assert_array_equal(images.decode_stored(images.encode(red, "png"), "png", 8, 3), red)


def test_resize_keeps_the_mean_and_changes_aspect():
    small = images.resize(RAMP[:, :, None], 16)
    assert small.shape == (16, 16, 1)
    assert abs(small.mean() - RAMP.mean()) < 1


def test_pixel_digest_ignores_the_file_format_but_not_the_shape():
    gray, colour = images.decode(as_file(RAMP)), images.decode(as_file(RAMP, mode="RGB"))
    assert images.pixel_digest(gray.pixels) == images.pixel_digest(colour.pixels)
    reshaped = RAMP.reshape(RAMP.shape[::-1])
    assert images.pixel_digest(gray.pixels) != images.pixel_digest(reshaped)


def test_messy_real_files_decode():
    for path in sorted(shared_path("data/formats").iterdir()):
        decoded = images.decode(path.read_bytes())
        assert decoded.pixels.dtype == np.uint8, path.name
        assert decoded.pixels.std() > 10, path.name


@settings(max_examples=300, deadline=None)
@given(data=st.binary(max_size=200))
@example(b"\x89PNG\r\n\x1a\n" + bytes(40))
@example(b"\xff\xd8\xff\xe0" + bytes(40))
@example(bytes(128) + b"DICM" + bytes(40))
def test_any_bytes_give_an_image_or_a_reason(data):
    with pytest.raises(images.BadImageError, match=r".{8}"):
        images.decode(data)


@settings(max_examples=200, deadline=None)
@given(
    kind=st.sampled_from([("PNG", "L"), ("PNG", "P"), ("PNG", "RGBA"), ("JPEG", "L")]),
    places=st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=4),
    value=st.integers(0, 255),
)
def test_damaged_files_never_give_wrong_pixels_of_a_png(kind, places, value):
    data = bytearray(as_file(RAMP, kind[0], mode=kind[1]))
    whole = images.decode(bytes(data)).pixels
    for place in places:
        data[int(place * len(data))] = value
    try:
        pixels = images.decode(bytes(data)).pixels
    except images.BadImageError:
        return
    assert pixels.dtype == np.uint8
    if kind[0] == "PNG":  # its checksums leave no other way; JPEG has none
        np.testing.assert_array_equal(pixels, whole)
