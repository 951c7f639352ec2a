"""DICOM radiographs to 8-bit pixels, as a viewer shows them when it opens the file.

The grayscale pipeline of DICOM PS3.4 N.2.1: modality LUT (PS3.3 C.11.1), then the first VOI LUT
or window (C.11.2), then MONOCHROME1 inverted (C.7.6.3.1.2). pydicom does the reading; it comes
with the extra `dicom`, which also brings a decoder for the compressed transfer syntaxes.
"""

from __future__ import annotations

import dataclasses
import functools
import io
import logging
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from cxr_tfrecords.tables import is_unknown_id

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

GRAY = ("MONOCHROME1", "MONOCHROME2")
COLOUR = ("RGB", "PALETTE COLOR", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT")
_DETECTOR_BITS = (12, 14, 16)


class DicomError(Exception):
    """A DICOM file that cannot be used; the message is the reason that the user reads."""


@dataclasses.dataclass(frozen=True)
class DicomImage:
    """A decoded DICOM file.

    Attributes:
      pixels: uint8, [height, width] gray or [height, width, 3] RGB.
      mode: photometric interpretation and stored bits, as `MONOCHROME2;12`.
      patient: issuer and PatientID; '' if the file does not identify the patient.
    """

    pixels: np.ndarray
    mode: str
    patient: str


def is_dicom(data: bytes) -> bool:
    """Whether bytes are a DICOM file (PS3.10 section 7.1: a preamble, then `DICM`)."""
    return data[128:132] == b"DICM"


def decode_dicom(data: bytes, *, max_pixels: int) -> DicomImage:
    """Decodes a DICOM file of one frame.

    Without a VOI LUT or window the whole stored range is shown: BitsStored, or fewer of 12 and
    14 bits where those hold the image (files of 12-bit detectors often say 16).

    Raises:
      DicomError: no image, several frames, damaged, over `max_pixels`, or no decoder for its
        transfer syntax.
    """
    pydicom = _pydicom()
    try:
        return _decode(pydicom.dcmread(io.BytesIO(data)), max_pixels)
    except DicomError:
        raise
    except Exception as error:  # pydicom raises many types for a damaged header
        raise DicomError(f"damaged DICOM ({_short(error)})") from error


@functools.lru_cache(maxsize=1)
def _pydicom() -> Any:
    try:
        import pydicom
    except ImportError as error:
        raise DicomError("DICOM needs a package: pip install 'cxr-balance[dicom]'") from error
    # It warns of each unusual header value: a build would print thousands of lines.
    warnings.filterwarnings("ignore", module="pydicom")
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    return pydicom


def _decode(file: Dataset, max_pixels: int) -> DicomImage:
    if "PixelData" not in file or "Rows" not in file or "Columns" not in file:
        raise DicomError(f"DICOM without an image ({file.get('Modality', 'no modality')})")
    if int(file.get("NumberOfFrames") or 1) > 1:
        raise DicomError(f"DICOM of {file.NumberOfFrames} frames: one image a file is expected")
    if file.Rows * file.Columns > max_pixels:
        raise DicomError(
            f"{file.Columns} x {file.Rows} pixels are more than --max_pixels={max_pixels}"
        )
    kind = file.PhotometricInterpretation
    if kind not in GRAY + COLOUR:
        raise DicomError(f"DICOM of photometric interpretation {kind!r} is not supported")
    if file.BitsAllocated not in (1, 8, 16):
        raise DicomError(f"DICOM of {file.BitsAllocated} bits a pixel is not supported")
    stored = _pixel_data(file)
    if stored.shape[:2] != (file.Rows, file.Columns):
        raise DicomError(f"header says {file.Columns} x {file.Rows}, decoded {stored.shape}")
    pixels = _show_gray(stored, file) if kind in GRAY else _show_colour(stored, file)
    return DicomImage(np.ascontiguousarray(pixels), f"{kind};{file.BitsStored}", _patient(file))


def _pixel_data(file: Dataset) -> np.ndarray:
    from pydicom import uid
    from pydicom.pixels import pixel_array

    syntax = file.file_meta.TransferSyntaxUID
    # The decoder is chosen here, because others cannot cope with damaged files: GDCM aborts the
    # whole process on some, and pylibjpeg's run-length decoder panics.
    plugin = ""
    if syntax.is_compressed:
        plugin = "pydicom" if syntax == uid.RLELossless else "pylibjpeg"
    try:
        return pixel_array(file, decoding_plugin=plugin)
    except (NotImplementedError, RuntimeError, ValueError, KeyError) as error:
        if not syntax.is_compressed:
            raise
        if "missing" in str(error) or "not available" in str(error):
            raise DicomError(
                f"no decoder for the transfer syntax {syntax.name}: pip install "
                "'cxr-balance[dicom]' brings those there are"
            ) from error
        raise DicomError(f"its pixel data do not decode as {syntax.name}") from error


def _show_gray(stored: np.ndarray, file: Dataset) -> np.ndarray:
    """Stored values to uint8 [height, width], in which 255 is white."""
    from pydicom.pixels import apply_modality_lut, apply_voi_lut

    if stored.ndim != 2:
        raise DicomError(f"gray DICOM with pixels of shape {stored.shape}")
    low, high = _stored_range(stored, file)
    # The ends of the stored range go through the same steps as the pixels, and so become the values
    # of black and white.
    ends = apply_modality_lut(np.array([low, high], stored.dtype), file)
    values = apply_modality_lut(stored, file)
    if "VOILUTSequence" in file or "WindowCenter" in file:
        values = apply_voi_lut(values, file)
        reach = 2.0**31 if "VOILUTSequence" not in file else 2**16 - 1
        floor = 0 if "VOILUTSequence" in file else -reach
        ends = apply_voi_lut(np.array([floor, reach]), file)
    black, white = float(ends.min()), float(ends.max())
    if white <= black:
        raise DicomError("its modality or VOI LUT gives all pixels one value")
    # float32 is exact enough for a result of eight bits.
    scaled = (values.astype(np.float32) - black) * np.float32(255 / (white - black))
    shown = np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
    if file.PhotometricInterpretation == "MONOCHROME1":
        shown = 255 - shown
    padding = file.get("PixelPaddingValue")
    if isinstance(padding, int):
        shown[stored == padding] = 0
    return shown


def _stored_range(stored: np.ndarray, file: Dataset) -> tuple[int, int]:
    bits, most = int(file.BitsStored), int(stored.max(initial=0))
    if file.PixelRepresentation:
        return -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    return 0, next((2**b - 1 for b in _DETECTOR_BITS if b < bits and most < 2**b), 2**bits - 1)


def _show_colour(stored: np.ndarray, file: Dataset) -> np.ndarray:
    if file.PhotometricInterpretation == "PALETTE COLOR":
        from pydicom.pixels import apply_color_lut

        coloured = apply_color_lut(stored, file)
        return coloured[..., :3] if coloured.dtype == np.uint8 else (coloured >> 8).astype(np.uint8)
    # pydicom has turned YBR into RGB already.
    bits = int(file.BitsStored)
    if bits > 8:
        stored = (stored.astype(np.uint32) * 255 // (2**bits - 1)).astype(np.uint8)
    return stored.astype(np.uint8)


def _patient(file: Dataset) -> str:
    """PatientIDs are unique within their issuer only (PS3.3 C.2.2)."""
    name = str(file.get("PatientID") or "").strip()
    # Anonymisers write one id into every file.
    if name == "0" or is_unknown_id(name):
        return ""
    return f"{str(file.get('IssuerOfPatientID') or '').strip()}/{name}"


def _short(error: Any) -> str:
    text = str(error).strip().splitlines()
    return text[0][:100] if text else type(error).__name__
