"""DICOM becomes what a viewer shows; any other bytes become a reason."""

import pathlib

import numpy as np
import pydicom.data
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from cxr_tfrecords import images
from tests.dicom_files import dicom_file

RAMP = np.linspace(0, 4095, 48 * 64).round().astype(np.uint16).reshape(48, 64)


def gray(data):
    return images.decode(data).pixels


def test_the_whole_stored_range_is_shown_where_no_window_is_given():
    expected = np.rint(RAMP * 255.0 / 4095)
    for bits in (12, 16):  # files of 12-bit detectors often say 16
        np.testing.assert_array_equal(gray(dicom_file(RAMP, bits=bits)), expected)
    dim = gray(dicom_file(RAMP // 2, bits=12))  # … but a dark image stays dark
    assert dim.max() == 127
    eight = (RAMP // 16).astype(np.uint8)
    np.testing.assert_array_equal(gray(dicom_file(eight, bits=8)), eight)


def test_monochrome1_is_inverted():
    first, second = (gray(dicom_file(RAMP, kind=f"MONOCHROME{n}")) for n in (1, 2))
    np.testing.assert_array_equal(first, 255 - second)


def test_a_window_maps_its_ends_to_black_and_white():
    # PS3.3 C.11.2.1.2.1: of centre 2048 and width 1024, 1536 is the last black, 2559 the white.
    shown = gray(dicom_file(RAMP, WindowCenter=[2048, 9], WindowWidth=[1024, 9]))
    assert (shown[RAMP <= 1536] == 0).all()
    assert (shown[RAMP >= 2559] == 255).all()
    np.testing.assert_allclose(shown[(RAMP > 1540) & (RAMP < 2555)].mean(), 127.5, atol=1)
    # The modality LUT comes first: the same window, of rescaled values.
    tags = {"RescaleSlope": 2, "RescaleIntercept": -1000, "RescaleType": "US"}
    again = gray(dicom_file(RAMP, WindowCenter=3096, WindowWidth=2047, **tags))
    assert np.abs(again.astype(int) - shown).max() <= 1


def test_a_voi_lut_is_applied():
    lut = Dataset()
    curve = (np.sqrt(np.linspace(0, 1, 4096)) * 4095).astype(np.uint16)
    lut.LUTDescriptor = [4096, 0, 12]
    lut.add_new("LUTData", "US", curve.tolist())
    shown = gray(dicom_file(RAMP, VOILUTSequence=[lut]))
    np.testing.assert_allclose(shown, curve[RAMP] * 255.0 / 4095, atol=0.51)


def test_padding_is_black_and_the_patient_is_told():
    padded = RAMP.copy()
    padded[:4] = 4095
    data = dicom_file(padded, PixelPaddingValue=4095, PatientID=" P7 ", IssuerOfPatientID="A")
    decoded = images.decode(data)
    assert not decoded.pixels[:4].any()
    assert (decoded.format, decoded.mode) == ("DICOM", "MONOCHROME2;12")
    assert decoded.patient == "A/P7"
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
    if path.stat().st_size < 60_000 and images.dicom.is_dicom(path.read_bytes())
)


@settings(max_examples=150, deadline=None)
@given(
    name=st.sampled_from(SMALL),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=6),
    kept=st.floats(0.1, 1),
)
def test_damaged_dicom_gives_an_image_or_a_reason(name, changes, kept):
    data = bytearray(example(name))
    for place, value in changes:
        data[int(place * len(data))] = value
    try:
        decoded = images.decode(bytes(data[: int(kept * len(data))]))
    except images.BadImageError:
        return
    assert decoded.pixels.dtype == np.uint8
    assert decoded.pixels.ndim in (2, 3)
