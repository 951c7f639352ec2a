"""Small files that would unpack to gigabytes, or take minutes, are refused before that."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pydicom
import pytest
from openjpeg.utils import encode_array
from pydicom import uid

from beam_pipelines.inputs.sources import SourceFile
from beam_pipelines.settings.config import BuildConfig
from beam_pipelines.shards import inspection
from cxr_tfrecords import images
from cxr_tfrecords.decoding import dicom_limits
from cxr_tfrecords.decoding.result import short
from tests.cxr_tfrecords.decoding.files import RAMP, SIGNATURE, as_file, chunk, with_chunks
from tests.dicom_files import compressed_file, dicom_file

SMALL = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)


def deflated(added: bytes) -> bytes:
    """A DICOM file of the deflated transfer syntax, with elements added behind its last."""
    file = pydicom.dcmread(io.BytesIO(dicom_file(SMALL)))
    file.file_meta.TransferSyntaxUID = uid.DeflatedExplicitVRLittleEndian
    buffer = io.BytesIO()
    file.save_as(buffer, enforce_file_format=True)
    data = buffer.getvalue()
    start = 144 + struct.unpack_from("<I", data, 140)[0]
    deflate = zlib.compressobj(wbits=-15)
    elements = deflate.compress(zlib.decompress(data[start:], -15) + added) + deflate.flush()
    return data[:start] + elements


def zeros(count: int) -> bytes:
    """The element for bytes that fill up a DICOM file."""
    return struct.pack("<HH2sHI", 0xFFFC, 0xFFFC, b"OB", 0, count) + bytes(count)


def compressed(frame: bytes, syntax: str) -> bytes:
    return compressed_file(dicom_file(SMALL), frame, syntax)


def jpeg_frame(marker: bytes) -> bytes:
    size = struct.pack(">HBHHB", 11, 8, 20_000, 20_000, 1) + b"\1\x11\0"
    scan = b"\xff\xda" + struct.pack(">HB", 8, 1) + b"\1\0\0\0\0" + bytes(99)
    return b"\xff\xd8" + marker + size + scan + b"\xff\xd9"


def jpeg_2000(size: int) -> bytes:
    """Code stream of 64 x 64 pixels whose own header says `size` x `size`, in one tile."""
    data = bytearray(encode_array(SMALL))
    start = data.index(b"\xff\x4f\xff\x51")
    struct.pack_into(">II", data, start + 8, size, size)
    struct.pack_into(">II", data, start + 24, size, size)
    return bytes(data)


def run_lengths(size: int) -> bytes:
    segment = b"\x81\0" * (size // 128)
    starts = 2, 64, 64 + len(segment), *[0] * 13
    return struct.pack("<16I", *starts) + segment * 2


@pytest.mark.parametrize(
    ("syntax", "frame"),
    [
        (uid.JPEGBaseline8Bit, jpeg_frame(b"\xff\xc0")),
        (uid.JPEGLosslessSV1, jpeg_frame(b"\xff\xc3")),
        (uid.JPEGLSLossless, jpeg_frame(b"\xff\xf7")),
        (uid.JPEG2000Lossless, jpeg_2000(20_000)),
        # Without coding parameters (COD) OpenJPEG tells no size.
        (uid.JPEG2000Lossless, jpeg_2000(20_000).replace(b"\xff\x52", b"\xff\x30", 1)),
    ],
    ids=["JPEG", "lossless JPEG", "JPEG-LS", "JPEG 2000", "JPEG 2000 without parameters"],
)
def test_a_compressed_dicom_is_refused_by_the_size_in_its_own_image(syntax, frame):
    with pytest.raises(images.BadImageError, match="64 x 64, its compressed image 20000 x 20000"):
        images.decode(compressed(frame, syntax))


def test_run_lengths_are_counted_before_they_are_unpacked():
    assert images.decode(compressed(run_lengths(4096), uid.RLELossless)).pixels.shape == (64, 64)
    with pytest.raises(images.BadImageError, match="unpack to more than 4,096 pixels"):
        images.decode(compressed(run_lengths(4 << 20), uid.RLELossless))


def test_a_jp2_box_without_length_does_not_hold_up_the_build():
    signature = struct.pack(">I4sI", 12, b"jP  ", 0x0D0A870A)
    with pytest.raises(images.BadImageError, match="a box of 0 bytes"):
        images.decode(compressed(signature + bytes(40), uid.JPEG2000Lossless))


def test_a_deflated_dicom_is_measured_before_it_is_kept():
    data = deflated(zeros(100_000))
    np.testing.assert_array_equal(
        images.decode(data, max_pixels=4096).pixels, images.decode(dicom_file(SMALL)).pixels
    )
    with pytest.raises(images.BadImageError, match="incomplete or truncated stream"):
        images.decode(data[:-50])
    with pytest.raises(images.BadImageError, match="unpacks to more than"):
        images.decode(deflated(zeros(8 << 20)), max_pixels=4096)


def test_elements_and_fragments_are_counted_while_they_are_read(monkeypatch):
    fragments = compressed(jpeg_frame(b"\xff\xc0"), uid.JPEGBaseline8Bit)[:-8]
    fragments += struct.pack("<HHI2s", 0xFFFE, 0xE000, 2, b"ab") * 500
    fragments += struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    elements = dicom_file(SMALL) + struct.pack("<HH2sH", 0x7FE1, 0x1010, b"LO", 0) * 500
    monkeypatch.setattr(dicom_limits, "_MOST_READS", 400)
    images.decode(dicom_file(SMALL))
    for data in (fragments, elements, deflated(b"\xe1\x7f\x10\x10LO\0\0" * 500)):
        with pytest.raises(images.BadImageError, match="more than about 400 elements or fragments"):
            images.decode(data)


def test_a_dicom_table_is_not_unpacked_where_it_is_too_long():
    windows = dicom_file(
        SMALL, syntax=uid.ImplicitVRLittleEndian, WindowCenter="1", WindowWidth="2"
    )
    start = windows.index(b"\x28\0\x50\x10")
    long = struct.pack("<I", 2 << 20) + b"1\\" * (1 << 20)
    with pytest.raises(images.BadImageError, match=r"element \(0028,1050\) has 2,097,152 bytes"):
        images.decode(windows[: start + 4] + long + windows[start + 10 :])


def test_scans_of_a_jpeg_in_a_dicom_are_counted(monkeypatch):
    data = as_file(np.zeros((64, 64), np.uint8), "JPEG", progressive=True)
    scan = data[data.rindex(b"\xff\xda") : -2]
    many = compressed(data[:-2] + scan * 10 + data[-2:], uid.JPEGBaseline8Bit)
    monkeypatch.setattr(dicom_limits, "_MOST_SCANNED", 64 * 64 * 9)
    with pytest.raises(images.BadImageError, match=r"JPEG of 1\d scans of 64 x 64 pixels"):
        images.decode(many)


def test_tiles_of_jpeg_2000_are_counted(monkeypatch):
    monkeypatch.setattr(dicom_limits, "_MOST_TILES", 4000)
    data = bytearray(encode_array(np.zeros((64, 64), np.uint8)))
    assert images.decode(compressed(bytes(data), uid.JPEG2000Lossless)).pixels.shape == (64, 64)
    struct.pack_into(">II", data, data.index(b"\xff\x4f\xff\x51") + 24, 1, 1)
    with pytest.raises(images.BadImageError, match="JPEG 2000 of 4,096 tiles"):
        images.decode(compressed(bytes(data), uid.JPEG2000Lossless))


def test_scans_of_a_jpeg_count_as_often_as_the_image_is_gone_over():
    data = as_file(RAMP, "JPEG", progressive=True)
    scan = data[data.rindex(b"\xff\xda") : -2]
    assert images.decode(data, max_pixels=RAMP.size).pixels.shape == RAMP.shape
    repeated = data[:-2] + scan * 12 + data[-2:]
    with pytest.raises(images.BadImageError, match=r"JPEG of \d+ scans"):
        images.decode(repeated, max_pixels=RAMP.size)
    with pytest.raises(images.BadImageError, match="Inconsistent progression"):  # by libjpeg
        images.decode(repeated)
    # Nine bytes for each pixel of RGB: its coefficients and itself.
    colour = as_file(np.dstack([RAMP] * 3), "JPEG", progressive=True)
    with pytest.raises(images.BadImageError, match="pixels of 9 bytes"):
        images.decode(colour, max_pixels=2 * RAMP.size)
    # Seven of CMYK: as it is stored, and as RGB.
    cmyk = as_file(np.dstack([RAMP] * 4), "JPEG", mode="CMYK")
    assert images.decode(cmyk, max_pixels=2 * RAMP.size).pixels.shape == (*RAMP.shape, 3)
    with pytest.raises(images.BadImageError, match="pixels of 7 bytes"):
        images.decode(cmyk, max_pixels=RAMP.size)
    with pytest.raises(images.BadImageError, match="fill bytes"):
        images.decode(data[:2] + b"\xff" * 2000 + data[2:])


def test_a_png_is_refused_by_its_bytes_and_its_chunks():
    header = struct.pack(">IIBBBBB", 40, 40, 16, 6, 0, 0, 0)
    rows = zlib.compress(bytes(40 * (1 + 40 * 8)))
    kinds = (b"IHDR", header), (b"IDAT", rows), (b"IEND", b"")
    rgba16 = SIGNATURE + b"".join(chunk(*one) for one in kinds)
    assert images.decode(rgba16, max_pixels=6400).pixels.shape == (40, 40, 3)
    with pytest.raises(images.BadImageError, match="40 x 40 pixels of 16 bytes"):
        images.decode(rgba16, max_pixels=6300)
    many = with_chunks(as_file(RAMP, "PNG"), *[(b"tEXt", b"a\0b")] * 100_001)
    with pytest.raises(images.BadImageError, match="more than 100,000 chunks"):
        images.decode(many)


def test_segments_of_a_jpeg_are_counted_before_its_image_data():
    data = as_file(RAMP, "JPEG")
    comment, stray = b"\xff\xfe\0\2", b"\0\xff\0"
    assert images.decode(data[:2] + comment * 9000 + data[2:]).pixels.shape == RAMP.shape
    for added in (comment, stray):
        with pytest.raises(images.BadImageError, match="more than 10,000 segments"):
            images.decode(data[:2] + added * 10_001 + data[2:])


@pytest.mark.parametrize("signed", [False, True])
def test_large_gray_images_become_what_small_ones_do(signed):
    values = np.random.default_rng(0).integers(0, 4096, (300, 260)).astype(np.int16)
    values = values - 2048 if signed else values.astype(np.uint16)
    for tags in (
        {},
        {"WindowCenter": 500, "WindowWidth": 1500, "RescaleSlope": -1.5, "RescaleIntercept": 9},
        {"PixelPaddingValue": int(values[0, 0])},
    ):
        pixels = images.decode(dicom_file(values, **tags)).pixels
        # Below 2^16 pixels values are worked out pixel by pixel.
        rows = [values[:200], values[100:]]
        for part, expected in zip(rows, (pixels[:200], pixels[100:]), strict=True):
            part = np.vstack([part, [values.min()] * 260, [values.max()] * 260]).astype(part.dtype)
            got = images.decode(dicom_file(part, **tags)).pixels
            np.testing.assert_array_equal(got[:200], expected)


def test_a_file_of_many_gigabytes_is_not_read():
    work = inspection.Work("/nowhere", ("A", "B"), BuildConfig())
    row, record, _ = inspection.inspect(SourceFile("A/x.png", 0, num_bytes=40 << 30), work)
    assert row["reason"].startswith("file of 42,949,672,960 bytes: more than 4 for each of")
    assert not record


def test_a_reason_has_no_address_of_memory():
    """It would be another one each time."""
    error = ValueError(f"an even multiple of bytes, not {memoryview(b'abc')}")
    assert short(error) == "an even multiple of bytes, not <memory>"
