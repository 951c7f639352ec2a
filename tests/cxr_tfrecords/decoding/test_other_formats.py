"""WebP, BMP, TIFF and GIF become what Pillow reads; limits hold before anything is decoded."""

import io
import struct

import cv2
import numpy as np
import pytest
from PIL import Image

from cxr_tfrecords import images
from tests.cxr_tfrecords.decoding.files import RAMP, as_file, by_pillow, gray

MODES = {
    "BMP": ("1", "L", "P", "RGB"),
    "GIF": ("1", "L", "P", "RGB"),
    "TIFF": ("1", "L", "LA", "P", "RGB", "CMYK"),
    "WEBP": ("L", "RGB"),
}
FILES = {(k, m): as_file(RAMP, k, mode=m) for k, modes in MODES.items() for m in modes}
FILES |= {
    ("TIFF", name): as_file(RAMP, "TIFF", compression=name)
    for name in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg")
}


@pytest.mark.parametrize("name", FILES, ids=str)
def test_pixels_are_those_of_pillow(name):
    data = FILES[name]
    assert images.decode(data).format == name[0]
    difference = np.abs(gray(data).astype(int) - by_pillow(data))
    assert difference.max() <= (0 if name[1] in ("1", "L") else 1)  # colour to gray rounds


@pytest.mark.parametrize("kind", ["WEBP", "TIFF"])
def test_transparency_is_drawn_on_black(kind):
    alpha = np.where(RAMP > 100, 255, 0).astype(np.uint8)
    rgba = np.dstack([RAMP, RAMP, RAMP, alpha])
    data = as_file(rgba, kind, **({"lossless": True} if kind == "WEBP" else {}))
    np.testing.assert_array_equal(gray(data), np.where(RAMP > 100, RAMP, 0))
    rgba[:, :, 3] = 0
    assert images.decode(as_file(rgba, kind)).steps == ("fully transparent",)


@pytest.mark.parametrize("depth", [8, 10, 12, 16])
def test_tiff_of_16_bits_is_scaled_as_png(depth):
    top = 2**depth - 1
    values = np.linspace(0, top, 256).round().reshape(16, 16)
    for order in ("<u2", ">u2"):
        data = as_file(values.astype(order), "TIFF")
        np.testing.assert_allclose(gray(data), values * 255 / top, atol=0.501)


@pytest.mark.parametrize("bits", [8, 16])
def test_tiff_whose_white_is_0_is_inverted(bits):
    values = RAMP.astype(np.uint16) * 257 if bits == 16 else RAMP
    data = as_file(values, "TIFF", tiffinfo={262: 0})
    if bits == 8:  # Pillow inverts when it writes, too
        np.testing.assert_array_equal(gray(data), by_pillow(data))
    else:
        np.testing.assert_array_equal(gray(data), 255 - RAMP)
        assert "inverted (white is 0)" in images.decode(data).steps


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "WEBP"])
def test_of_several_frames_the_first_is_taken(kind):
    buffer = io.BytesIO()
    frames = [Image.fromarray(np.roll(RAMP, 20 * n, axis=1)) for n in range(3)]
    frames[0].save(buffer, kind, save_all=True, append_images=frames[1:], lossless=True)
    decoded = images.decode(buffer.getvalue())
    np.testing.assert_array_equal(images.to_channels(decoded.pixels, 1)[:, :, 0], RAMP)
    assert decoded.steps == ("first of several frames",)


@pytest.mark.parametrize(
    "name", [n for n in FILES if n[0] in ("GIF", "WEBP", "BMP", "TIFF")], ids=str
)
def test_truncated_files_have_a_reason(name):
    data = FILES[name]
    for length in range(1, len(data) * 9 // 10, max(len(data) // 23, 1)):
        with pytest.raises(images.BadImageError):
            images.decode(data[:length])


def tiff(tags):
    """A TIFF of these tags (whole numbers of 32 bits) whose one tile has ten bytes."""
    tags = {**tags, 324: 8, 325: 10}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return (
        b"II*\0"
        + struct.pack("<I", 18)
        + bytes(10)
        + struct.pack("<H", len(tags))
        + entries
        + bytes(4)
    )


def webp(kind, header):
    body = b"WEBP" + kind + struct.pack("<I", len(header)) + header
    return b"RIFF" + struct.pack("<I", len(body)) + body


LARGE = {
    "VP8X": webp(b"VP8X", bytes(4) + b"\xff\xff\xff" * 2),
    "VP8L": webp(b"VP8L", b"\x2f" + b"\xff\xff\xff\x0f" + bytes(20)),
    "VP8 ": webp(b"VP8 ", bytes(3) + b"\x9d\x01\x2a" + b"\xff\x3f" * 2 + bytes(20)),
    "GIF": b"GIF89a" + b"\xff\xff" * 2 + FILES["GIF", "L"][10:],
    "BMP": FILES["BMP", "L"][:18] + struct.pack("<ii", 50_000, 50_000) + FILES["BMP", "L"][26:],
}


@pytest.mark.parametrize("name", LARGE)
def test_a_huge_image_is_refused_by_its_header_alone(name, monkeypatch):
    if name.startswith("VP8"):  # its library makes the whole picture when it opens it
        monkeypatch.setattr(Image, "open", None)
    with pytest.raises(images.BadImageError, match="--max_pixels=64000000"):
        images.decode(LARGE[name])


def test_the_limit_holds_for_every_format():
    for data in FILES.values():
        with pytest.raises(images.BadImageError, match="--max_pixels=100"):
            images.decode(data, max_pixels=100)
    with pytest.raises(images.BadImageError, match="50000 x 50000"):
        images.decode(tiff({256: 8, 257: 8, 258: 8, 259: 5, 262: 1, 322: 50_000, 323: 50_000}))


def test_what_is_not_supported_is_named():
    colour = np.dstack([RAMP.astype(np.uint16) * 16] * 3)
    for data, reason in (
        (cv2.imencode(".tiff", colour)[1].tobytes(), "16 bits a colour"),
        (as_file(RAMP.astype(np.float32), "TIFF"), "TIFF: its pixels are floats: save it with 8-"),
        (as_file(RAMP.astype(np.int32) - 5, "TIFF"), "from -5 to"),
        (as_file(RAMP, "PPM"), "format PPM is not supported"),
        (as_file(RAMP > 99, "TIFF", compression="group4"), "fax compression"),
    ):
        with pytest.raises(images.BadImageError, match=reason):
            images.decode(data)
