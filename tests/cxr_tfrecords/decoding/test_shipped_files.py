"""Every DICOM and image file that common packages ship, against pydicom's formulas and Pillow."""

import importlib.util
import io
import pathlib
import re

import numpy as np
import pydicom
import pytest
from PIL import Image, ImageOps
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi_lut
from pydicom.uid import ImplicitVRLittleEndian

from cxr_tfrecords import images
from tests.shared import shared_path

# Why files of these packages are refused; each of them is right.
REASONS = re.compile(
    r"not an image|DICOM of \d+ frames|without an image|32 bits a pixel|damaged DICOM"
    r"|do not decode as JPEG Extended|JPEG 2000 of 14,540,801 tiles"
)
# Where pydicom's functions are wrong themselves: palettes in big endian.
TWINS = {"OBXXXX1A_expb.dcm": "OBXXXX1A.dcm"}
PACKAGES = {
    "pydicom": ("data/test_files", 100),
    "data_store": ("data", 60),  # of the distribution pydicom-data
    "skimage": ("data", 20),  # of scikit-image
}


def shipped(package):
    folder, fewest = PACKAGES[package]
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(f"{package} is not installed")
    root = pathlib.Path(next(iter(spec.submodule_search_locations))) / folder
    paths = [path for path in sorted(root.rglob("*")) if path.is_file()]
    paths = [path for path in paths if path.suffix not in (".py", ".pyc", ".npy", ".npz")]
    assert len(paths) >= fewest, f"{root} holds {len(paths)} files"
    return paths


def by_pydicom(data, path):
    """Values 0 to 255 as floats, and where they are padding, which pydicom does not treat."""
    file = pydicom.dcmread(io.BytesIO(data), force=True)
    if "TransferSyntaxUID" not in file.file_meta:
        file.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    stored = file.pixel_array
    kind = file.PhotometricInterpretation
    if kind == "PALETTE COLOR":
        if path.name in TWINS:
            return by_pydicom((path.parent / TWINS[path.name]).read_bytes(), path.parent)
        coloured = apply_color_lut(stored, file)[..., :3]
        return coloured >> 8 if coloured.dtype == np.uint16 else coloured, None
    if not kind.startswith("MONOCHROME"):
        return stored * 255.0 / (2**file.BitsStored - 1), None
    padding = stored == file.get("PixelPaddingValue") if "PixelPaddingValue" in file else None
    values = apply_voi_lut(apply_modality_lut(stored, file), file)
    low, high = shown_range(file, stored if padding is None else stored[~padding])
    shown = np.clip((values - low) * 255.0 / (high - low), 0, 255)
    return 255 - shown if kind == "MONOCHROME1" else shown, padding


def shown_range(file, inside):
    """The values that become black and white, after the steps that the file asks for."""
    for name in ("VOILUTSequence", "ModalityLUTSequence"):
        if name in file:
            return 0, 2 ** file[name][0].LUTDescriptor[2] - 1
    low, high = 0, 2**file.BitsStored - 1
    if "WindowCenter" in file:
        if file.PixelRepresentation:
            low, high = -(2 ** (file.BitsStored - 1)), 2 ** (file.BitsStored - 1) - 1
    elif file.BitsStored == 16:
        signed = inside.min() < 0
        depth = 8
        while inside.max() >= 2 ** (depth - signed) or inside.min() < -(2 ** (depth - signed)):
            depth += 1
        low, high = (-(2 ** (depth - 1)), 2 ** (depth - 1) - 1) if signed else (0, 2**depth - 1)
    slope, intercept = file.get("RescaleSlope", 1), file.get("RescaleIntercept", 0)
    return low * slope + intercept, high * slope + intercept


def by_pillow(data):
    with Image.open(io.BytesIO(data)) as image:
        upright = ImageOps.exif_transpose(image)
        if upright.mode.startswith("I"):
            values = np.asarray(upright).astype(float)
            return values * 255 / (2 ** max(8, int(values.max()).bit_length()) - 1)
        if upright.mode in ("P", "PA", "LA", "RGBA"):
            black = Image.new("RGBA", upright.size, (0, 0, 0, 255))
            upright = Image.alpha_composite(black, upright.convert("RGBA"))
        return np.asarray(upright.convert("L" if upright.mode in ("1", "L") else "RGB"))


@pytest.mark.slow
@pytest.mark.parametrize("package", PACKAGES)
def test_pixels_of_shipped_files_are_those_of_an_independent_reader(package):
    compared = 0
    for path in shipped(package):
        data = path.read_bytes()
        try:
            decoded = images.decode(data)
        except images.BadImageError as error:
            if not REASONS.search(str(error)):
                pytest.fail(f"{path}: {error}")
            continue
        dicom = decoded.format == "DICOM"
        expected, padding = by_pydicom(data, path) if dicom else (by_pillow(data), None)
        pixels = decoded.pixels
        if expected.ndim > pixels.ndim:  # a palette of grays
            pixels = images.to_channels(pixels, 3)
        elif pixels.ndim > expected.ndim:
            pixels = images.to_channels(pixels, 1)[:, :, 0]
        difference = np.abs(pixels - expected.astype(np.float64))
        if padding is not None:
            difference[padding] = 0
        tolerance = 1 if expected.dtype == np.uint8 else 0.501
        assert difference.max() <= tolerance, f"{path}: {difference.max()} ({decoded.steps})"
        compared += 1
    print(f"{package}: {compared} files compared")
    assert compared >= 15


CASES = {
    "01_dicom_empty_window/a.dcm": (0, 255),
    "01_dicom_empty_window/b.dcm": (0, 255),
    "02_dicom_signed_no_window/a.dcm": (0, 255),
    "02_dicom_signed_no_window/b.dcm": (0, 255),
    "08_dicom_window_width_zero/a.dcm": (0, 255),
    "08_dicom_window_width_zero/b.dcm": (0, 255),
    "14_png_big_metadata/a.png": (0, 255),
    "14_png_big_metadata/b.png": (0, 255),
}


@pytest.mark.parametrize("name", CASES)
def test_reported_files_show_their_whole_range(name):
    pixels = images.decode((shared_path("cases") / name).read_bytes()).pixels
    assert (pixels.min(), pixels.max()) == CASES[name]
    assert len(np.unique(pixels)) > 250


def test_reported_files_equal_their_twins():
    cases = shared_path("cases")
    for name, twin, tolerance in (
        ("02_dicom_signed_no_window/a.dcm", "02_dicom_signed_no_window/c.dcm", 0),
        ("06_exif_orientation/phone.jpg", "06_exif_orientation/upright.png", 2),  # JPEG
        ("15_jpeg_extraneous_bytes/a.jpg", "15_jpeg_extraneous_bytes/clean.jpg", 0),
        ("15_jpeg_extraneous_bytes/b.jpg", "15_jpeg_extraneous_bytes/clean.jpg", 0),
    ):
        one, other = (images.decode((cases / file).read_bytes()).pixels for file in (name, twin))
        assert np.abs(one.astype(int) - other).max() <= tolerance, name
    with pytest.raises(images.BadImageError, match="damaged PNG"):
        images.decode((cases / "21_png_segfault/segv.png").read_bytes())
