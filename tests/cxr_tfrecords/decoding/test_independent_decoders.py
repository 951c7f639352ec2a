"""Compressed and coloured DICOM against other libraries than those that the build decodes with."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image
from pydicom import uid

from cxr_tfrecords import images
from tests.dicom_files import compressed_file, dicom_file

SIDE = 48


def picture(channels=1, bits=8):
    """Smooth shapes with a little noise, [SIDE, SIDE] or [SIDE, SIDE, 3]."""
    rng = np.random.Generator(np.random.Philox(3))
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    waves = [np.sin(5 * x + k) * np.cos(4 * y - k) for k in range(channels)]
    values = (np.stack(waves, -1) + 1) / 2 * 0.9 + rng.uniform(0, 0.05, (SIDE, SIDE, channels))
    whole = np.round(values * (2**bits - 1)).astype(np.uint8 if bits == 8 else np.uint16)
    return whole[..., 0] if channels == 1 else whole


def with_frame(frame, syntax, kind, bits=8, samples=1):
    """A DICOM file of SIDE x SIDE pixels that holds a compressed image."""
    plain = dicom_file(picture(bits=bits), bits=bits, kind=kind)
    colour = {"PlanarConfiguration": 0} if samples == 3 else {}
    return compressed_file(plain, frame, syntax, SamplesPerPixel=samples, **colour)


def decoded(data):
    return images.decode(data).pixels


@pytest.mark.parametrize("bits", [8, 12])
def test_jpeg_ls_of_charls_gives_its_pixels_back(bits):
    encoder = pytest.importorskip("jpeg_ls", reason="CharLS of the package pyjpegls")
    pixels = picture(bits=bits)
    frame = bytes(encoder.encode_array(pixels))
    file = with_frame(frame, uid.JPEGLSLossless, "MONOCHROME2", bits)
    np.testing.assert_array_equal(decoded(file), decoded(dicom_file(pixels, bits=bits)))


def test_jpeg_2000_of_pillow_gives_its_pixels_back():
    buffer = io.BytesIO()
    Image.fromarray(picture()).save(buffer, "JPEG2000", irreversible=False, no_jp2=True)
    file = with_frame(buffer.getvalue(), uid.JPEG2000Lossless, "MONOCHROME2")
    np.testing.assert_array_equal(decoded(file), picture())


def test_gray_jpeg_is_what_opencv_decodes():
    _, frame = cv2.imencode(".jpg", picture(), [cv2.IMWRITE_JPEG_QUALITY, 90])
    theirs = cv2.imdecode(frame, cv2.IMREAD_GRAYSCALE)
    ours = decoded(with_frame(frame.tobytes(), uid.JPEGBaseline8Bit, "MONOCHROME2"))
    np.testing.assert_allclose(ours.astype(int), theirs.astype(int), atol=1)


@pytest.mark.parametrize(
    ("subsampling", "kind", "largest"), [(0, "YBR_FULL", 3), (1, "YBR_FULL_422", 4)]
)
def test_colour_jpeg_is_what_pillow_decodes(subsampling, kind, largest):
    buffer = io.BytesIO()
    Image.fromarray(picture(3)).save(buffer, "JPEG", quality=95, subsampling=subsampling)
    theirs = np.asarray(Image.open(buffer).convert("RGB"))
    ours = decoded(with_frame(buffer.getvalue(), uid.JPEGBaseline8Bit, kind, samples=3))
    difference = np.abs(ours.astype(int) - theirs.astype(int))
    assert difference.mean() < 1
    assert difference.max() <= largest


@pytest.mark.parametrize("planar", [0, 1])
@pytest.mark.parametrize("kind", ["RGB", "YBR_FULL"])
def test_plain_colours_are_those_that_were_written(kind, planar):
    pixels = picture(3)
    stored = pixels
    if kind == "YBR_FULL":  # OpenCV has Cr before Cb
        stored = cv2.cvtColor(pixels, cv2.COLOR_RGB2YCrCb)[..., [0, 2, 1]]
    order = np.moveaxis(stored, -1, 0) if planar else stored
    tags = {
        "SamplesPerPixel": 3,
        "PlanarConfiguration": planar,
        "PixelData": np.ascontiguousarray(order).tobytes(),
    }
    ours = decoded(dicom_file(pixels[..., 0], bits=8, kind=kind, **tags))
    np.testing.assert_allclose(ours.astype(int), pixels.astype(int), atol=2)


def test_run_lengths_give_their_pixels_back():
    """Encoded here, in literal runs of at most 128 bytes (PS3.5, G.3.1)."""
    flat = picture().tobytes()
    runs = [
        bytes([len(run) - 1]) + run for run in (flat[i : i + 128] for i in range(0, len(flat), 128))
    ]
    segment = b"".join(runs)
    header = np.array([1, 64, *[0] * 14], "<u4").tobytes()
    file = with_frame(header + segment + b"\0" * (len(segment) % 2), uid.RLELossless, "MONOCHROME2")
    np.testing.assert_array_equal(decoded(file), picture())
