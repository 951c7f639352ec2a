"""DICOM radiographs to 8-bit pixels, as a viewer shows them when it opens the file.

pydicom does the reading; it comes with the extra `dicom`, which also brings a decoder for the
compressed transfer syntaxes. An optional tag that is present but empty counts as absent.
PatientOrientation and FieldOfViewHorizontalFlip do not turn the image, in viewers neither.
"""

from __future__ import annotations

import functools
import logging
import re
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from cxr_tfrecords.decoding import dicom_limits as limits
from cxr_tfrecords.decoding import dicom_values
from cxr_tfrecords.decoding.bands import bands
from cxr_tfrecords.decoding.result import (
    TOO_MUCH_MEMORY,
    BadImageError,
    CostlyError,
    Decoded,
    apart_if_costly,
    check_size,
    short,
)

if TYPE_CHECKING:
    from pydicom.dataset import Dataset
    from pydicom.uid import UID

GRAY = ("MONOCHROME1", "MONOCHROME2")
COLOUR = ("RGB", "PALETTE COLOR", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT")
# First element of a file without preamble: of group 2 or 8, with a value representation (explicit,
# little or big endian) or a length below 1024 (implicit).
_FIRST_ELEMENT = re.compile(
    rb"(\x02\0[\x00-\x16]\0|\x08\0[\x00-\x20]\0)"
    rb"(AE|AS|CS|DA|DT|LO|OB|SH|SQ|ST|TM|UI|UL|UN|US|[\x00-\xff][\x00-\x03]\0\0)"
    rb"|\0\x08\0[\x00-\x20](AE|AS|CS|DA|DT|LO|OB|SH|SQ|ST|TM|UI|UL|UN|US)"
)
_DECODERS = "pip install 'cxr-balance[dicom]' brings those there are"


def is_dicom(data: bytes) -> bool:
    """Whether bytes are a DICOM file (PS3.10 section 7.1: a preamble of 128 bytes, then `DICM`),
    or begin as one of which the preamble is missing."""
    return b"DICM" in (data[128:132], data[:4]) or bool(_FIRST_ELEMENT.match(data))


def decode_dicom(data: bytes, max_pixels: int) -> Decoded:
    """Decodes a DICOM file of one frame; see `dicom_values` for the way to 8 bits.

    Raises:
      BadImageError: no image, several frames, damaged, over `max_pixels`, or no decoder for its
        transfer syntax.
    """
    pydicom = _pydicom()
    if data[:4] == b"DICM":
        data = bytes(128) + data
    try:
        stream = limits.CountedReads(limits.inflated(data, max_pixels))
        file = pydicom.dcmread(stream, force=True)
        limits.check_tables(file)
        return _decode(file, max_pixels)
    except (BadImageError, CostlyError):
        raise
    except MemoryError as error:
        raise BadImageError(TOO_MUCH_MEMORY) from error
    except Exception as error:  # pydicom raises many types for a damaged header
        raise BadImageError(f"damaged DICOM ({short(error)})") from error


@functools.lru_cache(maxsize=1)
def _pydicom() -> Any:
    try:
        import pydicom
    except ImportError as error:
        raise BadImageError("DICOM needs a package: pip install 'cxr-balance[dicom]'") from error
    # It warns of each unusual header value: a build would print thousands of lines.
    warnings.filterwarnings("ignore", module="pydicom")
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    return pydicom


def _decode(file: Dataset, max_pixels: int) -> Decoded:
    if "PixelData" not in file or not file.get("Rows") or not file.get("Columns"):
        raise BadImageError(f"DICOM without an image ({file.get('Modality') or 'no modality'})")
    if int(file.get("NumberOfFrames") or 1) > 1:
        raise BadImageError(f"DICOM of {file.NumberOfFrames} frames: one image a file is expected")
    check_size(file.Columns, file.Rows, max_pixels)
    if not file.PixelData:
        raise BadImageError("DICOM without pixels: its PixelData is empty")
    kind = file.get("PhotometricInterpretation") or "none"
    if kind not in GRAY + COLOUR:
        raise BadImageError(f"DICOM of photometric interpretation {kind!r} is not supported")
    if file.get("BitsAllocated") not in (1, 8, 16):
        raise BadImageError(f"DICOM of {file.get('BitsAllocated')} bits a pixel is not supported")
    _fill_in(file, kind)
    # Of colours pydicom makes copies in floating point.
    values = 1 if file.SamplesPerPixel == 1 and kind in GRAY else 12
    check_size(file.Columns, file.Rows, max_pixels, values * file.BitsAllocated // 8 or 1)
    stored = _pixel_data(file)
    if stored.shape[:2] != (file.Rows, file.Columns):
        raise BadImageError(f"header says {file.Columns} x {file.Rows}, decoded {stored.shape}")
    if kind in GRAY:
        pixels, steps = dicom_values.show_gray(stored, file)
    elif kind == "PALETTE COLOR":
        pixels, steps = dicom_values.show_palette(stored, file)
    else:
        pixels, steps = dicom_values.show_colour(stored, file)
    patient, issuer = (
        str(file.get(name) or "").strip() for name in ("PatientID", "IssuerOfPatientID")
    )
    mode = f"{kind};{file.BitsStored}"
    return Decoded(np.ascontiguousarray(pixels), "DICOM", mode, steps, patient, issuer)


def _fill_in(file: Dataset, kind: str) -> None:
    """Gives the tags that decoding needs a value where they are missing or empty."""
    samples = 1 if kind in (*GRAY, "PALETTE COLOR") else 3
    file.BitsStored = file.get("BitsStored") or file.BitsAllocated
    for name, value in (
        ("HighBit", file.BitsStored - 1),
        ("PixelRepresentation", 0),
        ("SamplesPerPixel", samples),
        *((("PlanarConfiguration", 0),) if samples > 1 else ()),
    ):
        if not isinstance(file.get(name), int):
            setattr(file, name, value)
    if file.get("NumberOfFrames", 1) in (None, "", 0):
        file.NumberOfFrames = 1
    if not file.file_meta.get("TransferSyntaxUID"):
        file.file_meta.TransferSyntaxUID = _transfer_syntax(file)


def _transfer_syntax(file: Dataset) -> UID:
    """That of a file which does not say it: pydicom has found out how its header is written."""
    from pydicom import uid

    if file["PixelData"].is_undefined_length:
        raise BadImageError("compressed DICOM that does not say its transfer syntax")
    implicit, little_endian = file.original_encoding
    if implicit:
        return uid.ImplicitVRLittleEndian
    return uid.ExplicitVRLittleEndian if little_endian else uid.ExplicitVRBigEndian


def _pixel_data(file: Dataset) -> np.ndarray:
    from pydicom import uid
    from pydicom.pixels import get_decoder, pixel_array

    syntax = file.file_meta.TransferSyntaxUID
    if not syntax.is_compressed:
        stored = pixel_array(file, raw=True, view_only=True)  # not a copy
        return _in_rgb(stored, file.PhotometricInterpretation)
    # The decoder is chosen here, because others cannot cope with damaged files: GDCM aborts the
    # whole process on some, and pylibjpeg's run-length decoder panics.
    plugin = "pydicom" if syntax == uid.RLELossless else "pylibjpeg"
    try:
        decoder = get_decoder(syntax)
        available = decoder.available_plugins
    except NotImplementedError as error:
        raise BadImageError(f"the transfer syntax {syntax.name} is not supported") from error
    if plugin not in available:
        raise BadImageError(f"no decoder for the transfer syntax {syntax.name}: {_DECODERS}")
    file.PixelData = bytes(file.PixelData)  # pydicom divides nothing else into frames
    limits.check_frame(file, syntax)
    apart_if_costly(file.Rows * file.Columns)
    try:
        # One by one, because an array of all frames is a copy of what the decoder makes.
        frames = decoder.iter_array(file, raw=True, decoding_plugin=plugin)
        stored, properties = next(frames)
        if next(frames, None):
            raise BadImageError("DICOM of several frames: one image a file is expected")
        return _in_rgb(stored, str(properties["photometric_interpretation"]))
    except (BadImageError, MemoryError):
        raise
    except Exception as error:  # of many types, one for each decoder
        raise BadImageError(
            f"its pixel data do not decode as {syntax.name}{_cause(file, error)}"
        ) from error


def _in_rgb(stored: np.ndarray, kind: str) -> np.ndarray:
    """YBR as RGB, in bands: pydicom's floating point needs 24 bytes a pixel. Others unchanged."""
    from pydicom.pixels import convert_color_space

    if kind not in ("YBR_FULL", "YBR_FULL_422"):
        return stored
    shown = np.empty_like(stored)
    for rows in bands(len(stored), stored[:1].size):
        shown[rows] = convert_color_space(stored[rows], "YBR_FULL", "RGB")
    return shown


def _cause(file: Dataset, error: Exception) -> str:
    """`: …` where compressed pixel data do not begin as their transfer syntax must, or a decoder
    says that it lacks memory."""
    from pydicom import encaps, uid

    # Of a MemoryError pydicom gives the text, which is empty, behind the decoder's name.
    if "out of free memory" in str(error).lower() or str(error).rstrip().endswith(":"):
        return f": {TOO_MUCH_MEMORY}"
    syntax = file.file_meta.TransferSyntaxUID
    try:
        frame = encaps.get_frame(file.PixelData, 0, number_of_frames=1)
    except MemoryError:
        return f": {TOO_MUCH_MEMORY}"
    except Exception:  # of many types; it is the reason then
        return ": they are not divided into items"
    if not frame:
        return ": they are empty"
    jpeg = syntax in (*uid.JPEGTransferSyntaxes, *uid.JPEGLSTransferSyntaxes)
    if jpeg and not frame.startswith(b"\xff\xd8"):
        return ": they do not begin with a start marker, SOI (FF D8)"
    j2k = syntax in uid.JPEG2000TransferSyntaxes
    if j2k and not frame.startswith((b"\xff\x4f", b"\0\0\0\x0cjP")):
        return ": they do not begin with a start marker, SOC (FF 4F)"
    return ""
