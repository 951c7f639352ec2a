"""Stored DICOM values become what a viewer shows; pydicom's own functions say what that is."""

import io

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.pixels import apply_modality_lut, apply_voi_lut
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian

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


EMPTY = {
    "window": {"WindowCenter": "", "WindowWidth": ""},
    "centre without width": {"WindowCenter": 100},
    "centre with an empty width": {"WindowCenter": 100, "WindowWidth": ""},
    "width without centre": {"WindowWidth": 100},
    "width 0": {"WindowCenter": 100, "WindowWidth": 0},
    "negative width": {"WindowCenter": 100, "WindowWidth": -5},
    "function": {"VOILUTFunction": ""},
    "rescale": {"RescaleSlope": "", "RescaleIntercept": ""},
    "intercept": {"RescaleSlope": 1, "RescaleIntercept": ""},
    "slope 0": {"RescaleSlope": 0, "RescaleIntercept": 7},
    "lookup tables": {"VOILUTSequence": [], "ModalityLUTSequence": []},
    "lookup tables without data": {"VOILUTSequence": [Dataset()]},
    "padding": {"PixelPaddingValue": "", "PixelPaddingRangeLimit": ""},
    "high bit": {"HighBit": ""},
    "no high bit": {"HighBit": None},
    "sign": {"PixelRepresentation": ""},
    "samples": {"SamplesPerPixel": ""},
    "frames": {"NumberOfFrames": ""},
    "patient": {"PatientID": "", "IssuerOfPatientID": ""},
}


@pytest.mark.parametrize("tags", EMPTY.values(), ids=EMPTY)
def test_a_tag_without_a_value_counts_as_absent(tags):
    np.testing.assert_array_equal(gray(dicom_file(RAMP, **tags)), gray(dicom_file(RAMP)))


def test_empty_bits_stored_are_those_allocated():
    np.testing.assert_array_equal(
        gray(dicom_file(RAMP, BitsStored="")), gray(dicom_file(RAMP, bits=16))
    )


def test_the_first_window_with_centre_and_width_is_shown():
    shown = gray(dicom_file(RAMP, WindowCenter=[9, 2048, 9], WindowWidth=[0, 1024, 9]))
    expected = gray(dicom_file(RAMP, WindowCenter=2048, WindowWidth=1024))
    np.testing.assert_array_equal(shown, expected)


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize("width", [1, 1.5, 700])
@pytest.mark.parametrize("slope", [1, 0.5])
def test_windows_are_those_of_pydicom(function, width, slope):
    tags = {"RescaleSlope": slope, "RescaleIntercept": -100, "VOILUTFunction": function}
    data = dicom_file(RAMP, WindowCenter=900, WindowWidth=width, **tags)
    file = pydicom.dcmread(io.BytesIO(data))
    values = apply_voi_lut(apply_modality_lut(file.pixel_array, file), file)
    black, white = -100, 4095 * slope - 100
    expected = (values - black) * 255 / (white - black)
    np.testing.assert_allclose(gray(data), expected, atol=0.501)


def test_a_width_below_1_is_linear_exact():
    # PS3.3 C.11.2.1.3.2; LINEAR needs 1 or more, but files with rescaled values below 1 exist.
    slope = {"RescaleSlope": 1 / 4096, "RescaleIntercept": 0}
    shown = gray(dicom_file(RAMP, WindowCenter=0.5, WindowWidth=0.8, **slope))
    expected = np.clip((RAMP / 4096 - 0.5) / 0.8 + 0.5, 0, 1) * 255
    np.testing.assert_allclose(shown, expected, atol=0.501)


def test_below_a_window_is_black_if_the_slope_is_negative_too():
    tags = {"RescaleSlope": -1, "RescaleIntercept": 4095}
    shown = gray(dicom_file(RAMP, WindowCenter=2048, WindowWidth=1024, **tags))
    turned = gray(dicom_file(4095 - RAMP, WindowCenter=2048, WindowWidth=1024))
    np.testing.assert_array_equal(shown, turned)
    np.testing.assert_array_equal(gray(dicom_file(RAMP, **tags)), 255 - gray(dicom_file(RAMP)))


@pytest.mark.parametrize("depth", range(8, 17))
def test_16_bits_are_shown_at_the_smallest_depth_that_holds_the_image(depth):
    top = 2**depth - 1
    values = np.linspace(0, top, 48 * 64).round().reshape(48, 64)
    data = dicom_file(values.astype(np.uint16), bits=16)
    np.testing.assert_allclose(gray(data), values * 255 / top, atol=0.501)
    if depth < 16:
        np.testing.assert_array_equal(
            gray(dicom_file(values.astype(np.int16), bits=16)), gray(data)
        )


def test_signed_values_without_a_window():
    # None below 0: the picture of the unsigned twin, whatever bits are stored.
    for bits in (12, 13, 16):
        half = RAMP // 2
        np.testing.assert_array_equal(
            gray(dicom_file(half.astype(np.int16), bits=bits)), gray(dicom_file(half, bits=bits))
        )
    # Some below 0: the smallest signed depth.
    values = np.linspace(-1024, 1023, 48 * 64).round().astype(np.int16).reshape(48, 64)
    expected = (values.astype(int) + 1024) * 255 / 2047
    np.testing.assert_allclose(gray(dicom_file(values, bits=16)), expected, atol=0.501)
    # Padding far below the image does not count.
    padded = values.copy()
    padded[:2] = -32768
    shown = gray(dicom_file(padded, bits=16, PixelPaddingValue=-32768))
    np.testing.assert_allclose(shown[2:], expected[2:], atol=0.501)
    assert not shown[:2].any()


def lut(entries, first, bits=12):
    item = Dataset()
    item.add_new("LUTDescriptor", "US" if first >= 0 else "SS", [len(entries), first, bits])
    item.add_new("LUTData", "US", entries.tolist())
    return item


@pytest.mark.parametrize("first", [-1000, 64536, 0, 500])  # 64536 is -1000 written as unsigned
def test_a_voi_lut_may_begin_below_0(first):
    entries = np.linspace(4095, 0, 2048).round().astype(np.uint16)
    tags = {"RescaleSlope": 1, "RescaleIntercept": -1000}
    shown = gray(dicom_file(RAMP, VOILUTSequence=[lut(entries, first)], **tags))
    begin = first - 65536 if first > 32767 else first
    expected = entries[np.clip(RAMP.astype(int) - 1000 - begin, 0, 2047)] * 255.0 / 4095
    np.testing.assert_allclose(shown, expected, atol=0.501)
    pixels = RAMP.astype(np.int16)
    signed = gray(dicom_file(pixels, bits=16, VOILUTSequence=[lut(entries, first)], **tags))
    np.testing.assert_array_equal(signed, shown)


def test_a_lookup_table_of_16_bits_is_shown_at_the_depth_of_its_entries():
    entries = np.arange(4096, dtype=np.uint16)
    for name in ("VOILUTSequence", "ModalityLUTSequence"):
        shown = gray(dicom_file(RAMP, **{name: [lut(entries, 0, bits=16)]}))
        np.testing.assert_allclose(shown, RAMP * 255.0 / 4095, atol=0.501)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ExplicitVRBigEndian])
def test_palettes_have_either_byte_order(packed, syntax):
    indices = np.arange(256, dtype=np.uint8).reshape(16, 16)
    ramp = np.arange(256)
    channels = {"Red": ramp, "Green": 255 - ramp, "Blue": ramp // 2}
    order = "<u2" if syntax == ExplicitVRLittleEndian else ">u2"
    tags = {}
    for name, values in channels.items():
        tags[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, 8 if packed else 16]
        words = values.astype(np.uint8).view("<u2") if packed else values * 257
        tags[f"{name}PaletteColorLookupTableData"] = words.astype(order).tobytes()
    shown = gray(dicom_file(indices, bits=8, kind="PALETTE COLOR", syntax=syntax, **tags))
    np.testing.assert_array_equal(shown, np.stack(list(channels.values()), 1).reshape(16, 16, 3))


@pytest.mark.parametrize(("kind", "value", "limit"), [(1, 4095, 4000), (2, 0, 95), (2, 4, None)])
def test_a_range_of_padding_is_black(kind, value, limit):
    tags = {"PixelPaddingValue": value}
    if limit is not None:
        tags["PixelPaddingRangeLimit"] = limit
    low, high = sorted((value, value if limit is None else limit))
    expected = gray(dicom_file(RAMP, kind=f"MONOCHROME{kind}"))
    expected[np.isin(RAMP, range(low, high + 1))] = 0
    decoded = images.decode(dicom_file(RAMP, kind=f"MONOCHROME{kind}", **tags))
    np.testing.assert_array_equal(decoded.pixels, expected)
    assert decoded.steps[-1] == "padding black"


def test_the_steps_are_told():
    tags = {"WindowCenter": 2048, "WindowWidth": 1024}
    for data, steps in (
        (dicom_file(RAMP), ("scaled from 12 bits",)),
        (dicom_file(RAMP, bits=16), ("scaled from 12 of 16 bits",)),
        (
            dicom_file(RAMP, kind="MONOCHROME1", **tags),
            ("window 2048/1024 (LINEAR)", "inverted (MONOCHROME1)"),
        ),
    ):
        assert images.decode(data).steps == steps
