"""DICOM files for tests, written with pydicom."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from pydicom import dcmread, encaps
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import UID, DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian


def dicom_file(
    pixels: np.ndarray,
    *,
    bits: int = 12,
    kind: str = "MONOCHROME2",
    syntax: str = ExplicitVRLittleEndian,
    **tags: Any,
) -> bytes:
    """Bytes of a DICOM file of [height, width] pixels, of 8 or 16 bits, signed or not.

    Args:
      tags: values by keyword; empty ones are written, None leaves a tag out.
    """
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = syntax
    meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = "1.2.3.4"
    little_endian = meta.TransferSyntaxUID.is_little_endian
    file = FileDataset(
        "",
        {},
        file_meta=meta,
        preamble=bytes(128),
        is_implicit_VR=meta.TransferSyntaxUID.is_implicit_VR,
        is_little_endian=little_endian,
    )
    file.SOPClassUID, file.SOPInstanceUID = meta.MediaStorageSOPClassUID, "1.2.3.4"
    file.Modality = "DX"
    file.Rows, file.Columns = pixels.shape
    file.SamplesPerPixel = 1
    file.PhotometricInterpretation = kind
    file.BitsAllocated = 8 * pixels.dtype.itemsize
    file.BitsStored, file.HighBit = bits, bits - 1
    file.PixelRepresentation = int(pixels.dtype.kind == "i")
    order = "<" if little_endian else ">"
    file.PixelData = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    for name, value in tags.items():
        if value is None:
            delattr(file, name)
        else:
            setattr(file, name, value)
    buffer = io.BytesIO()
    file.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def compressed_file(plain: bytes, frame: bytes, syntax: str, **tags: Any) -> bytes:
    """A DICOM file with a compressed image in the place of its pixels, and other tags."""
    file = dcmread(io.BytesIO(plain))
    file.file_meta.TransferSyntaxUID = UID(syntax)
    file.PixelData = encaps.encapsulate([frame])
    file["PixelData"].VR, file["PixelData"].is_undefined_length = "OB", True
    for name, value in tags.items():
        setattr(file, name, value)
    buffer = io.BytesIO()
    file.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()
