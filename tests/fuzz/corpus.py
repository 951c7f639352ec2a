"""Small valid files of every format that a build reads, made by code."""

from __future__ import annotations

import functools
import io
import os
import struct
import tempfile
import zlib

import cv2
import numpy as np
import pydicom
from openjpeg.utils import encode_array
from PIL import Image
from pydicom import encaps, uid
from pydicom.dataset import Dataset

from cxr_tfrecords import images, records, tfrecord
from tests.cxr_tfrecords.decoding.files import SIGNATURE, as_file, chunk, with_chunks
from tests.dicom_files import dicom_file
from tests.fuzz import streams

GRAY = (np.add.outer(np.arange(24), np.arange(20)) * 6 % 251).astype(np.uint8)
RGB = np.dstack([GRAY, GRAY[::-1], GRAY.T.reshape(GRAY.shape)])
DEEP = GRAY.astype(np.uint16) * 16 + 7
RGBA = np.dstack([RGB, GRAY])


@functools.lru_cache(maxsize=1)
def corpus() -> dict[str, bytes]:
    """Valid files by name; the part of a name before the colon is the kind of its structure."""
    files = {**_png(), **_jpeg(), **_others(), **_dicom(), **_shards()}
    return {name: bytes(data) for name, data in files.items()}


def _png() -> dict[str, bytes]:
    gray, palette = as_file(GRAY, "PNG"), as_file(RGB, "PNG", "P")
    _, deep_rgb = cv2.imencode(".png", RGB.astype(np.uint16) * 257)
    exif = Image.Exif()
    exif[0x0112] = 6
    animated = with_chunks(
        gray,
        (b"acTL", struct.pack(">II", 2, 0)),
        (b"fcTL", struct.pack(">IIIIIHHBB", 0, 20, 24, 0, 0, 1, 10, 0, 0)),
    )
    # Adam7 of an image of one pixel is its first pass alone.
    interlaced = SIGNATURE + b"".join(
        chunk(*one)
        for one in (
            (b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 1)),
            (b"IDAT", zlib.compress(_adam7(GRAY[:8, :8]))),
            (b"IEND", b""),
        )
    )
    return {
        "png:gray": gray,
        "png:1 bit": as_file(GRAY > 99, "PNG"),
        "png:rgb": as_file(RGB, "PNG"),
        "png:rgba": as_file(RGBA, "PNG"),
        "png:gray with alpha": as_file(RGBA, "PNG", "LA"),
        "png:16 bits": as_file(DEEP, "PNG"),
        "png:16 bits rgb": deep_rgb.tobytes(),
        "png:palette": palette,
        "png:palette tRNS": with_chunks(palette, (b"tRNS", bytes(range(0, 250, 5)))),
        "png:gray tRNS": with_chunks(gray, (b"tRNS", b"\0\6")),
        "png:animation": animated,
        "png:interlaced": interlaced,
        "png:turned": as_file(GRAY, "PNG", exif=exif.tobytes()),
        "png:text": with_chunks(gray, (b"tEXt", b"Raw profile type exif\0\nexif\n  4\n4949")),
    }


def _adam7(pixels: np.ndarray) -> bytes:
    """The seven passes (PNG specification, 8.2), each row with filter 0."""
    passes = (0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2)
    rows = (
        row
        for top, left, down, right in (*passes, (1, 0, 2, 1))
        for row in pixels[top::down, left::right]
    )
    return b"".join(b"\0" + row.tobytes() for row in rows)


def _jpeg() -> dict[str, bytes]:
    exif = Image.Exif()
    exif[0x0112] = 3
    return {
        "jpeg:gray": as_file(GRAY, "JPEG"),
        "jpeg:rgb": as_file(RGB, "JPEG", exif=exif.tobytes()),
        "jpeg:progressive": as_file(RGB, "JPEG", progressive=True),
        "jpeg:restart": as_file(GRAY, "JPEG", restart_marker_blocks=2),
        "jpeg:cmyk": as_file(RGBA, "JPEG", "CMYK"),
        "jpeg:arithmetic": streams.JPEG_ARITHMETIC,
        "jpeg:arithmetic progressive": streams.JPEG_ARITHMETIC_PROGRESSIVE,
        "jpeg:12 bits": streams.JPEG_12_BIT,
        "jpeg:lossless": streams.JPEG_LOSSLESS,
    }


def _others() -> dict[str, bytes]:
    exif = Image.Exif()
    exif[0x0112] = 8
    frames = [Image.fromarray(GRAY[::-1])]
    tiff = {
        f"tiff:{name}": as_file(GRAY, "TIFF", compression=name)
        for name in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits")
    }
    return {
        **tiff,
        "tiff:16 bits": as_file(DEEP, "TIFF"),
        "tiff:rgb": as_file(RGB, "TIFF", compression="jpeg"),
        "tiff:1 bit": as_file(GRAY > 99, "TIFF", compression="group4"),
        "webp:lossy": as_file(RGB, "WEBP"),
        "webp:lossless": as_file(RGBA, "WEBP", lossless=True, exif=exif.tobytes()),
        "webp:animation": as_file(RGB, "WEBP", save_all=True, append_images=frames),
        "bmp:gray": as_file(GRAY, "BMP"),
        "bmp:rgb": as_file(RGB, "BMP"),
        "bmp:1 bit": as_file(GRAY > 99, "BMP"),
        "gif:gray": as_file(GRAY, "GIF"),
        "gif:animation": as_file(GRAY, "GIF", save_all=True, append_images=frames),
        "mask:png": as_file(np.where(GRAY > 99, 255, 0).astype(np.uint8), "PNG"),
    }


def _dicom() -> dict[str, bytes]:
    table = Dataset()
    table.LUTDescriptor, table.LUTData = (
        [16, 0, 16],
        np.arange(0, 65536, 4096).astype("<u2").tobytes(),
    )
    signed = DEEP.astype(np.int16) - 900
    palette = {
        f"{colour}PaletteColorLookupTable{part}": value
        for colour in ("Red", "Green", "Blue")
        for part, value in (("Descriptor", [256, 0, 16]), ("Data", bytes(range(256)) * 2))
    }
    plain = {
        "explicit": dicom_file(DEEP, PatientID="17", WindowCenter=900, WindowWidth=700),
        "implicit": dicom_file(DEEP, syntax=uid.ImplicitVRLittleEndian, RescaleSlope=2),
        "big endian": dicom_file(DEEP, syntax=uid.ExplicitVRBigEndian, kind="MONOCHROME1"),
        "signed": dicom_file(signed, RescaleIntercept=-5, PixelPaddingValue=-900),
        "VOI LUT": dicom_file(DEEP, VOILUTSequence=[table]),
        "modality LUT": dicom_file(DEEP, ModalityLUTSequence=[table], VOILUTFunction="SIGMOID"),
        "palette": dicom_file(GRAY, bits=8, kind="PALETTE COLOR", **palette),
    }
    rgb = {"SamplesPerPixel": 3, "PixelData": RGB.tobytes()}
    for kind, planar in (("RGB", 0), ("RGB", 1), ("YBR_FULL", 0)):
        plain[f"{kind} {planar}"] = dicom_file(
            GRAY, bits=8, kind=kind, PlanarConfiguration=planar, **rgb
        )
    half = np.ascontiguousarray(np.dstack([RGB[:, ::2], RGB[:, ::2, :1]])).tobytes()
    plain["YBR_FULL_422"] = dicom_file(
        GRAY,
        bits=8,
        kind="YBR_FULL_422",
        PlanarConfiguration=0,
        **{**rgb, "PixelData": half},
    )
    plain["deflated"] = _deflated(plain["explicit"])
    deep16, larger = DEEP[:16, :16], np.tile(DEEP, (2, 2))  # its encoder needs 32 pixels
    frames = {
        "JPEG": (as_file(GRAY, "JPEG"), uid.JPEGBaseline8Bit, GRAY, 8),
        "JPEG 12 bits": (streams.JPEG_12_BIT, uid.JPEGExtended12Bit, deep16, 12),
        "JPEG lossless": (streams.JPEG_LOSSLESS, uid.JPEGLosslessSV1, deep16, 12),
        "JPEG-LS": (_jpeg_ls(DEEP), uid.JPEGLSLossless, DEEP, 12),
        "JPEG 2000": (encode_array(larger), uid.JPEG2000Lossless, larger, 12),
        "HTJ2K": (streams.HTJ2K, uid.HTJ2KLossless, deep16, 12),
        "RLE": (_run_lengths(DEEP), uid.RLELossless, DEEP, 12),
    }
    for name, (frame, syntax, pixels, bits) in frames.items():
        plain[name] = compressed(dicom_file(pixels, bits=bits), [frame], syntax)
    return {f"dicom:{name}": data for name, data in plain.items()}


def compressed(file: bytes, frames: list[bytes], syntax: str) -> bytes:
    """A DICOM file with other pixel data, of a compressed transfer syntax."""
    dataset = pydicom.dcmread(io.BytesIO(file))
    dataset.file_meta.TransferSyntaxUID = uid.UID(syntax)
    dataset.PixelData = encaps.encapsulate(frames)
    dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
    return _written(dataset)


def _deflated(file: bytes) -> bytes:
    dataset = pydicom.dcmread(io.BytesIO(file))
    dataset.file_meta.TransferSyntaxUID = uid.DeflatedExplicitVRLittleEndian
    return _written(dataset)


def _written(dataset: Dataset) -> bytes:
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _jpeg_ls(pixels: np.ndarray) -> bytes:
    import jpeg_ls

    return bytes(jpeg_ls.encode_array(pixels))


def _run_lengths(pixels: np.ndarray) -> bytes:
    """An RLE frame (PS3.5 annex G): the upper bytes, then the lower ones, in literal runs."""
    planes = pixels.astype(">u2").view(np.uint8).reshape(-1, 2).T
    segments = [
        b"".join(
            bytes([len(run) - 1]) + run
            for run in (plane[i : i + 128].tobytes() for i in range(0, len(plane), 128))
        )
        for plane in planes
    ]
    segments = [segment + b"\x80" * (len(segment) % 2) for segment in segments]
    starts = 2, 64, 64 + len(segments[0]), *[0] * 13
    return struct.pack("<16I", *starts) + b"".join(segments)


def _shards() -> dict[str, bytes]:
    stored = {
        encoding: records.serialize_example(
            records.Record(
                encoded=images.encode(GRAY[:16, :16, None], encoding),
                label=1,
                class_name="COVID",
                filename="COVID/a.png",
                sha256="0" * 64,
                group="0" * 32,
                source_height=24,
                source_width=20,
                source_format="PNG",
                mask=images.encode_mask(np.full((16, 16), 255, np.uint8)),
            )
        )
        for encoding in records.ENCODINGS
    }
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "shard")
        result = {}
        for encoding, record in stored.items():
            tfrecord.write_records(path, [record, record])
            with open(path, "rb") as file:
                result[f"tfrecord:{encoding}"] = file.read()
    return result
