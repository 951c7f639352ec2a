"""DICOM becomes what a viewer shows; any other bytes become a reason."""

import io
import pathlib

import numpy as np
import pydicom.data
import pydicom.encaps
import pydicom.pixels.decoders.base
import pytest
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    MPEG2MPML,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
)

from cxr_tfrecords import images
from cxr_tfrecords.decoding import dicom
from tests.dicom_files import dicom_file

RAMP = np.linspace(0, 4095, 48 * 64).round().astype(np.uint16).reshape(48, 64)


def gray(data):
    return images.decode(data).pixels


def test_padding_is_black_and_the_patient_is_told():
    padded = RAMP.copy()
    padded[:4] = 4095
    data = dicom_file(padded, PixelPaddingValue=4095, PatientID=" P7 ", IssuerOfPatientID="A")
    decoded = images.decode(data)
    assert not decoded.pixels[:4].any()
    assert (decoded.format, decoded.mode) == ("DICOM", "MONOCHROME2;12")
    assert (decoded.patient, decoded.issuer) == ("P7", "A")
    assert images.decode(dicom_file(RAMP, PatientID="Anonymous")).patient == ""


# pydicom brings examples of most transfer syntaxes.
EXAMPLES = pathlib.Path(pydicom.data.__file__).parent / "test_files"


def example(name):
    return (EXAMPLES / f"{name}.dcm").read_bytes()


@pytest.mark.parametrize("packed", ["RLE", "jp2klossless", "jpeg_ls_lossless"])
def test_compressed_transfer_syntaxes_decode_to_the_same_pixels(packed):
    np.testing.assert_array_equal(gray(example(f"MR_small_{packed}")), gray(example("MR_small")))


def test_colour_is_decoded_and_the_rest_has_its_reason():
    assert images.decode(example("SC_rgb_jpeg_gdcm")).pixels.shape == (100, 100, 3)
    for data, reason in (
        (example("SC_rgb_rle_2frame"), "2 frames"),
        (example("test-SR"), r"without an image \(SR\)"),
        (example("MR_truncated"), "damaged DICOM"),
        (example("rtdose_1frame"), "32 bits a pixel"),
        (example("JPEG-lossy"), "do not decode as JPEG Extended"),
        (dicom_file(RAMP, kind="HSV"), "photometric interpretation 'HSV'"),
        (dicom_file(RAMP)[:-100], "damaged DICOM"),
    ):
        with pytest.raises(images.BadImageError, match=reason):
            images.decode(data)
    with pytest.raises(images.BadImageError, match="--max_pixels=100"):
        images.decode(dicom_file(RAMP), max_pixels=100)


SMALL = sorted(
    path.stem
    for path in EXAMPLES.glob("*.dcm")
    if path.stat().st_size < 60_000 and dicom.is_dicom(path.read_bytes())
)


def without_meta(data):
    """The data set alone, without preamble and file meta information."""
    file = pydicom.dcmread(io.BytesIO(data))
    syntax = file.file_meta.TransferSyntaxUID
    buffer = io.BytesIO()
    file.preamble, file.file_meta = None, FileMetaDataset()
    pydicom.dcmwrite(
        buffer,
        file,
        implicit_vr=syntax.is_implicit_VR,
        little_endian=syntax.is_little_endian,
    )
    return buffer.getvalue()


@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian]
)
def test_a_file_without_preamble_is_dicom(syntax):
    data = dicom_file(RAMP, syntax=syntax)
    for bare in (data[128:], data[132:], without_meta(data)):
        assert images.decode(bare).format == "DICOM"
        np.testing.assert_array_equal(gray(bare), gray(dicom_file(RAMP)))


def encapsulated(frame, syntax):
    data = dicom_file(RAMP, syntax=ExplicitVRLittleEndian)
    file = pydicom.dcmread(io.BytesIO(data))
    file.file_meta.TransferSyntaxUID = syntax
    file.PixelData = pydicom.encaps.encapsulate([frame])
    file["PixelData"].is_undefined_length = True
    buffer = io.BytesIO()
    file.save_as(buffer)
    return buffer.getvalue()


def test_reasons_name_the_true_cause():
    jpeg = b"\xff\xd8\xff\xe0" + bytes(40)
    for data, reason in (
        (encapsulated(jpeg[2:], JPEGBaseline8Bit), r"do not begin with a start marker, SOI"),
        (encapsulated(jpeg[2:], JPEGLSLossless), r"do not begin with a start marker, SOI"),
        (encapsulated(jpeg, JPEG2000Lossless), r"do not begin with a start marker, SOC"),
        (encapsulated(jpeg, JPEGBaseline8Bit), "do not decode as JPEG Baseline"),
        (encapsulated(jpeg, MPEG2MPML), "transfer syntax MPEG2 .* is not supported"),
        (dicom_file(RAMP, PixelData=b""), "PixelData is empty"),
        (dicom_file(RAMP, PhotometricInterpretation=""), "photometric interpretation 'none'"),
        (dicom_file(RAMP, Rows=""), "without an image"),
        (dicom_file(RAMP, Rows="", Modality="D\x07\n" * 999), r"^[ -~]{300}$"),
    ):
        with pytest.raises(images.BadImageError, match=reason) as caught:
            images.decode(data)
        assert "pip install" not in str(caught.value)


def test_a_decoder_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr(pydicom.pixels.decoders.base.Decoder, "available_plugins", ())
    with pytest.raises(
        images.BadImageError, match=r"no decoder .* pip install 'cxr-balance\[dicom"
    ):
        images.decode(example("JPGExtended"))
