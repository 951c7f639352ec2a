"""An image that is changed band by band becomes what it becomes as a whole."""

import io
import tracemalloc

import cv2
import numpy as np
import pydicom
import pytest

from cxr_tfrecords import images
from cxr_tfrecords.decoding import bands
from tests.cxr_tfrecords.decoding.files import as_file
from tests.dicom_files import dicom_file

RGBA = np.random.default_rng(0).integers(0, 256, (50, 30, 4)).astype(np.uint8)
RGBA[:10, :, 3] = 255  # bands that are opaque or fully transparent
RGBA[10:20, :, 3] = 0
DEEP = RGBA.astype(np.uint16) * 257
FILES = {
    "RGB": as_file(RGBA[:, :, :3], "PNG"),
    "RGBA": as_file(RGBA, "PNG"),
    "RGB, 16 bits": cv2.imencode(".png", DEEP[:, :, :3])[1].tobytes(),
    "RGBA, 16 bits": cv2.imencode(".png", DEEP)[1].tobytes(),
    "gray TIFF, 16 bits": as_file(DEEP[:, :, 0], "TIFF"),
    "RGBA TIFF": as_file(RGBA, "TIFF"),
    "palette with transparency": as_file(RGBA[:, :, 0], "GIF", transparency=3),
}


@pytest.mark.parametrize("name", FILES)
def test_bands_change_no_pixel(monkeypatch, name):
    whole = images.decode(FILES[name])
    monkeypatch.setattr(bands, "_AT_ONCE", 500)
    in_bands = images.decode(FILES[name])
    np.testing.assert_array_equal(in_bands.pixels, whole.pixels)
    assert in_bands.steps == whole.steps
    expected = RGBA[:, :, :3].astype(int)
    if name.startswith("RGBA"):
        expected = (expected * RGBA[:, :, 3:] + 127) // 255
    if name.startswith("RGB") and "TIFF" not in name:
        expected = expected[:, :, ::-1] if "16" in name else expected  # OpenCV writes BGR
        np.testing.assert_array_equal(whole.pixels, expected)


def test_transparency_is_told_from_all_bands(monkeypatch):
    monkeypatch.setattr(bands, "_AT_ONCE", 500)
    for alpha, steps in (
        (np.zeros(50), ("fully transparent",)),
        (np.repeat([255, 0], 25), ("transparency drawn on black",)),
        (np.full(50, 255), ()),
    ):
        pixels = np.dstack([RGBA[:, :, :3], np.tile(alpha[:, None], 30).astype(np.uint8)])
        assert images.decode(as_file(pixels, "PNG")).steps == steps


def peak(work, *arguments):
    """Most bytes that a call has beside what there was before."""
    tracemalloc.start()
    work(*arguments)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return most


def test_a_ybr_dicom_needs_no_floating_point_copy_of_all_pixels(monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 256, (700, 500, 3)).astype(np.uint8)
    tags = {"SamplesPerPixel": 3, "PlanarConfiguration": 0}
    rows = {"Rows": 700, "Columns": 500, "PixelData": pixels.tobytes()}
    data = dicom_file(pixels[..., 0], bits=8, kind="YBR_FULL", **tags, **rows)
    expected = pydicom.dcmread(io.BytesIO(data)).pixel_array
    monkeypatch.setattr(bands, "_AT_ONCE", 10_000)
    images.decode(data)
    assert peak(images.decode, data) < 5 * pixels.nbytes
    np.testing.assert_array_equal(images.decode(data).pixels, expected)
    assert (expected != pixels).any()


def test_whether_an_image_has_one_value_needs_little_memory():
    flat = images.Decoded(np.full((2000, 1000, 3), 7, np.uint8), "PNG", "RGB")
    assert peak(images.warning_of, flat) < flat.pixels.nbytes / 4
    assert images.warning_of(flat) == "all pixels have one value"
    flat.pixels[-1, -1, 2] = 8
    assert images.warning_of(flat) == ""


def test_an_image_of_zeros_and_ones_is_warned_of():
    """As of values that were divided by 255 and then saved as whole numbers."""
    dark = images.Decoded(np.zeros((2000, 1000), np.uint8), "PNG", "L")
    dark.pixels[:, ::2] = 1
    assert peak(images.warning_of, dark) < dark.pixels.nbytes / 4
    assert images.warning_of(dark).startswith("no pixel is above 1 of 255, as of values")
    dark.pixels[-1, -1] = 2
    assert images.warning_of(dark) == ""
