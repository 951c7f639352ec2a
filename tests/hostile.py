"""Files that cost a decoder much: the largest that a build accepts of each kind, and bombs.

python -m tests.hostile FOLDER      writes 54 files, 2.3 GB
"""

from __future__ import annotations

import io
import os
import struct
import sys
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pydicom
from PIL import Image
from pydicom import encaps, uid

from tests.cxr_tfrecords.decoding.files import SIGNATURE, chunk
from tests.dicom_files import dicom_file

PIXELS = 64_000_000  # --max_pixels
SMALL = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)


def noise(height: int, row_bytes: int, mask: int = 0xFF) -> np.ndarray:
    """uint8 [height, row_bytes] that does not pack."""
    values = np.frombuffer(np.random.default_rng(0).bytes(height * row_bytes), np.uint8)
    return (values & np.uint8(mask)).reshape(height, row_bytes)


def png(
    side: int, bits: int, colour: int, *, packs: bool = True, interlaced: bool = False
) -> bytes:
    """A square PNG, black or of noise."""
    samples = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    row = -(-side * bits * samples // 8)
    header = struct.pack(">IIBBBBB", side, side, bits, colour, 0, 0, int(interlaced))
    if packs:
        rows = bytes(side * (row + 1) + 8 * side * interlaced)
        body = zlib.compress(rows, 1)
    else:
        rows = np.hstack([np.zeros((side, 1), np.uint8), noise(side, row)]).tobytes()
        body = zlib.compress(rows, 0)
    parts = [(b"IHDR", header)]
    if colour == 3:
        parts.append((b"PLTE", bytes(range(256)) * 3))
    parts += [(b"IDAT", body), (b"IEND", b"")]
    return SIGNATURE + b"".join(chunk(*part) for part in parts)


def with_text(data: bytes, count: int, size: int) -> bytes:
    """A PNG with chunks of text before its image data."""
    text, start = chunk(b"tEXt", b"a\0" + bytes(size)), data.index(b"IDAT") - 4
    return data[:start] + text * count + data[start:]


def pillow(kind: str, mode: str, width: int, height: int, packs: bool = True, **how) -> bytes:
    """A file of Pillow's, black or of noise."""
    if packs:
        image = Image.new(mode, (width, height))
    else:
        values = noise(height, width * len(mode)).reshape(height, width, len(mode))
        image = Image.fromarray(values if len(mode) > 1 else values[:, :, 0], mode)
    buffer = io.BytesIO()
    image.save(buffer, kind, **how)
    return buffer.getvalue()


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif.tobytes()


def progressive(side: int, scans: int, dense: bool) -> bytes:
    """A gray progressive JPEG. Of empty scans, 117 bytes each; or `dense`: no coefficient is 0, and
    each scan after the second has one more bit of all of them."""
    blocks = (side // 8) ** 2

    def table(kind: int, symbols: bytes) -> bytes:  # of codes 0, 10, 110, …
        counts = [1] * len(symbols) + [0] * (16 - len(symbols))
        return b"\xff\xc4" + struct.pack(">HB16B", 19 + len(symbols), kind, *counts) + symbols

    def scan(first: int, last: int, high: int, low: int, bits: int) -> bytes:
        head = struct.pack(">HBBBBBB", 8, 1, 1, 0, first, last, high << 4 | low)
        return b"\xff\xda" + head + bytes(-(-bits // 8) + 1)

    parts = [
        b"\xff\xd8\xff\xdb\0\x43\0" + b"\1" * 64,
        b"\xff\xc2" + struct.pack(">HBHHB", 11, 8, side, side, 1) + b"\1\x11\0",
        table(0x00, b"\0"),
        scan(0, 0, 0, 0, blocks),
    ]
    runs = 15 * -(-blocks // 2**14)
    if dense:
        parts += [table(0x10, b"\1\xe0"), scan(1, 63, 0, 13, blocks * 126)]
        parts.append(table(0x10, b"\xe0"))
        parts += [scan(1, 63, 13 - i, 12 - i, runs + 63 * blocks) for i in range(scans - 2)]
    else:
        parts.append(table(0x10, b"\xe0"))
        order = [(k, high) for high in range(14, 0, -1) for k in range(1, 64)]
        for k, high in order[: scans - 1]:
            parts.append(scan(k, k, high % 14, high - 1, runs))
    return b"".join(parts) + b"\xff\xd9"


def dicom(
    frame: bytes | np.ndarray, width: int, height: int, syntax: str = "", bits: int = 16, **tags
) -> bytes:
    """A DICOM file around pixel data, which are a frame of a compressed syntax if it is named."""
    file = pydicom.dcmread(io.BytesIO(dicom_file(SMALL, bits=bits, **tags)))
    file.Rows, file.Columns, file.BitsAllocated = height, width, 8 if bits <= 8 else 16
    if syntax:
        file.file_meta.TransferSyntaxUID = uid.UID(syntax)
    if syntax in ("", uid.DeflatedExplicitVRLittleEndian, uid.ExplicitVRBigEndian):
        file.PixelData = bytes(frame)
    else:
        file.PixelData = encaps.encapsulate([bytes(frame)])
        file["PixelData"].VR, file["PixelData"].is_undefined_length = "OB", True
    buffer = io.BytesIO()
    file.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def run_lengths(pixels: int, planes: int) -> bytes:
    plane = b"\x81\0" * (pixels // 128)
    starts = [64 + i * len(plane) for i in range(planes)]
    return struct.pack("<16I", planes, *starts, *[0] * (15 - planes)) + plane * planes


def jpeg_2000(side: int, mask: int) -> bytes:
    from openjpeg.utils import encode_array

    return encode_array(noise(side, 2 * side, mask).view("<u2") & 0x0FFF)


def jpeg_ls(side: int, mask: int) -> bytes:
    import jpeg_ls as encoder

    return bytes(encoder.encode_array(noise(side, 2 * side, mask).view("<u2") & 0x0FFF))


def bitmap(side: int) -> bytes:
    """Of run lengths."""
    row = b"\xff\7" * (side // 255) + bytes([side % 255, 9]) + b"\0\0"
    size = len(row) * side
    header = struct.pack("<IiiHHII", 40, side, side, 1, 8, 1, size) + bytes(16)
    head = b"BM" + struct.pack("<IHHI", 1078 + size, 0, 0, 1078)
    return head + header + bytes(range(256)) * 4 + row * side


def _pngs() -> dict[str, Callable[[], bytes]]:
    return {
        "gray16.png": lambda: png(8000, 16, 0),
        "gray16-noise.png": lambda: png(8000, 16, 0, packs=False),
        "gray16-interlaced.png": lambda: png(8000, 16, 0, interlaced=True),
        "gray1.png": lambda: png(8000, 1, 0),
        "rgb.png": lambda: png(6500, 8, 2),
        "rgb-noise.png": lambda: png(6500, 8, 2, packs=False),
        "rgb-turned.png": lambda: pillow("PNG", "RGB", 6500, 6400, exif=turned()),
        "palette.png": lambda: png(5600, 8, 3),
        "gray-alpha.png": lambda: png(5600, 8, 4),
        "rgba.png": lambda: png(5600, 8, 6),
        "rgba16.png": lambda: png(8000, 16, 6),
        "rgba16-smaller.png": lambda: png(5600, 16, 6),
        "rgb16.png": lambda: png(5600, 16, 2),
        "texts.png": lambda: with_text(png(600, 8, 0), 1_000_000, 8),
        "texts-fewer.png": lambda: with_text(png(8000, 16, 0, packs=False), 90_000, 1400),
    }


def _jpegs() -> dict[str, Callable[[], bytes]]:
    return {
        "gray.jpg": lambda: pillow("JPEG", "L", 8000, 8000),
        "rgb.jpg": lambda: pillow("JPEG", "RGB", 8000, 8000),
        "rgb-noise.jpg": lambda: pillow(
            "JPEG", "RGB", 8000, 8000, packs=False, quality=98, subsampling=0
        ),
        "rgb-turned.jpg": lambda: pillow("JPEG", "RGB", 8000, 7900, exif=turned()),
        "cmyk.jpg": lambda: pillow("JPEG", "CMYK", 7900, 8000),
        "progressive-rgb.jpg": lambda: pillow("JPEG", "RGB", 5300, 5300, progressive=True),
        "progressive-noise.jpg": lambda: pillow(
            "JPEG", "L", 8000, 8000, packs=False, progressive=True, quality=95
        ),
        "scans-15.jpg": lambda: progressive(8000, 15, dense=True),
        "scans-882.jpg": lambda: progressive(8000, 882, dense=False),
        "scans-882-small.jpg": lambda: progressive(1000, 882, dense=False),
        "comments.jpg": lambda: b"\xff\xd8" + b"\xff\xfe\0\2" * 3_000_000,
    }


def _dicoms() -> dict[str, Callable[[], bytes]]:
    raw: dict[str, Any] = {"width": 8000, "height": 8000}
    rgb: dict[str, Any] = {"SamplesPerPixel": 3, "PlanarConfiguration": 0, "kind": "RGB", "bits": 8}
    rgb |= {"width": 4600, "height": 4600}
    small = dicom_file(SMALL)
    return {
        "plain.dcm": lambda: dicom(noise(8000, 16_000), **raw),
        "signed.dcm": lambda: dicom(noise(8000, 16_000), **raw, PixelRepresentation=1),
        "window.dcm": lambda: dicom(
            noise(8000, 16_000), **raw, WindowCenter=9, WindowWidth=500, PixelPaddingValue=3
        ),
        "deflated.dcm": lambda: dicom(
            bytes(128_000_000), syntax=uid.DeflatedExplicitVRLittleEndian, **raw
        ),
        "rle.dcm": lambda: dicom(run_lengths(PIXELS, 2), syntax=uid.RLELossless, **raw),
        "jpeg.dcm": lambda: dicom(
            pillow("JPEG", "L", 8000, 8000, packs=False), syntax=uid.JPEGBaseline8Bit, bits=8, **raw
        ),
        "progressive.dcm": lambda: dicom(
            pillow("JPEG", "L", 8000, 8000, packs=False, progressive=True),
            syntax=uid.JPEGBaseline8Bit,
            bits=8,
            **raw,
        ),
        "scans-15.dcm": lambda: dicom(
            progressive(8000, 15, dense=True), syntax=uid.JPEGBaseline8Bit, bits=8, **raw
        ),
        "scans-16-empty.dcm": lambda: dicom(
            progressive(8000, 16, dense=False), syntax=uid.JPEGBaseline8Bit, bits=8, **raw
        ),
        "jpeg-ls.dcm": lambda: dicom(jpeg_ls(8000, 0), syntax=uid.JPEGLSLossless, **raw),
        "jpeg-ls-noise.dcm": lambda: dicom(jpeg_ls(8000, 7), syntax=uid.JPEGLSLossless, **raw),
        "jpeg-2000.dcm": lambda: dicom(jpeg_2000(8000, 0), syntax=uid.JPEG2000Lossless, **raw),
        "jpeg-2000-noise.dcm": lambda: dicom(
            jpeg_2000(8000, 7), syntax=uid.JPEG2000Lossless, **raw
        ),
        "jpeg-rgb.dcm": lambda: dicom(
            pillow("JPEG", "RGB", 4600, 4600), syntax=uid.JPEGBaseline8Bit, **rgb
        ),
        "rgb.dcm": lambda: dicom(noise(4600, 13_800), **rgb),
        "ybr.dcm": lambda: dicom(noise(4600, 13_800), **{**rgb, "kind": "YBR_FULL"}),
        "bomb.dcm": lambda: dicom(
            bytes(2_000_000_000), 64, 64, uid.DeflatedExplicitVRLittleEndian, 16
        ),
        "elements.dcm": lambda: small + struct.pack("<HH2sH", 0x7FE1, 0x1010, b"LO", 0) * 9_000_000,
        "windows.dcm": lambda: dicom_file(
            SMALL, syntax=uid.ImplicitVRLittleEndian, WindowCenter=[1] * 9_000_000
        ),
    }


def _others() -> dict[str, Callable[[], bytes]]:
    return {
        "rgb.bmp": lambda: pillow("BMP", "RGB", 6500, 6500, packs=False),
        "run-lengths.bmp": lambda: bitmap(4096),
        "gray16.tiff": lambda: pillow("TIFF", "I;16", 8000, 8000),
        "rgb.tiff": lambda: pillow("TIFF", "RGB", 6500, 6500, packs=False),
        "lzw.tiff": lambda: pillow("TIFF", "RGB", 6500, 6500, compression="tiff_lzw"),
        "deflate.tiff": lambda: pillow("TIFF", "RGBA", 6500, 6500, compression="tiff_deflate"),
        "gif.gif": lambda: pillow("GIF", "L", 6500, 6500),
        "lossless.webp": lambda: pillow("WEBP", "RGB", 4600, 4600, lossless=True, method=0),
        "alpha.webp": lambda: pillow("WEBP", "RGBA", 4600, 4600, packs=False, method=0),
    }


def makers() -> dict[str, Callable[[], bytes]]:
    """What makes each file, by its name."""
    return {**_pngs(), **_jpegs(), **_dicoms(), **_others()}


def write(folder: str) -> Iterator[str]:
    """Writes the files that are not there yet; yields the path of each."""
    os.makedirs(folder, exist_ok=True)
    for name, make in makers().items():
        path = os.path.join(folder, name)
        if not os.path.exists(path):
            data = make()
            with open(f"{path}.tmp", "wb") as file:
                file.write(data)
            os.replace(f"{path}.tmp", path)
        yield path


if __name__ == "__main__":
    for path in write(sys.argv[1]):
        print(path, flush=True)
