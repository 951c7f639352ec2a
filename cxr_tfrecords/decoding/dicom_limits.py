"""What a DICOM file would unpack to, counted before a decoder makes room for it.

A decoder takes the size of an image from its own header, not from that of the DICOM file, and
pydicom checks the length of what was unpacked only when all of it is in memory.
"""

from __future__ import annotations

import io
import re
import struct
import zlib
from typing import TYPE_CHECKING, cast

from cxr_tfrecords.decoding.result import BadImageError, take_turn_if_large

if TYPE_CHECKING:
    from pydicom.dataset import Dataset
    from pydicom.uid import UID

_DEFLATED, _PLAIN = b"1.2.840.10008.1.2.1.99", b"1.2.840.10008.1.2.1\0\0\0"
_BLOCK = 1 << 20
# The header of a frame (ITU-T T.81 B.2.2, T.87 C.1.1): marker, length, precision, height, width and
# number of components. Image data cannot hold these markers.
_JPEG_FRAME = re.compile(
    rb"\xff[\xc0-\xc3\xc5-\xc7\xc9-\xcb\xcd-\xcf\xf7](..)[\x02-\x10](..)(..)(.)", re.DOTALL
)
_JP2_SIGNATURE = b"\0\0\0\x0cjP  "
_JPEG_2000_SIZE = b"\xff\x4f\xff\x51"  # SOC and SIZ (ITU-T T.800 A.5.1)
_MOST_READS = 300_000  # pydicom needs one to four for an element or fragment, in all about 3 µs
_LARGE_READ = 32 << 20  # bytes
_MOST_TABLE_BYTES = 1 << 20  # a lookup table has up to 131,072
_TABLE_GROUPS = (0x0008, 0x0010, 0x0028)
_MOST_TILES = 16_384  # the decoder keeps about 6 kB for each; usual are 1 to 1,000
_MOST_SCANS = 64
_MOST_SCANNED = 1 << 30  # pixels of all scans; of a progressive image 8 s for three times as many
_MOST_SAMPLES = 4  # of a pixel
_MOST_RUNS = 8_000_000  # of an RLE segment: pydicom needs about a microsecond for four


class CountedReads(io.BytesIO):
    """A file in memory which ends the reading of a file of millions of elements or fragments, and
    gives a large element, such as pixels, without a copy."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._reads, self._data = 0, memoryview(data)

    def read(self, size: int | None = -1, /) -> bytes:
        """As of any file, but for a `memoryview` of a large element.

        Raises:
          BadImageError: this is a read too many.
        """
        self._reads += 1
        if self._reads > _MOST_READS:
            raise BadImageError(
                f"DICOM of more than about {_MOST_READS:,} elements or fragments: images have a "
                "few hundred"
            )
        if size is None or size < _LARGE_READ:
            return super().read(size)
        start = self.tell()
        self.seek(min(len(self._data), start + size))
        return cast(bytes, self._data[start : self.tell()])


def check_tables(file: Dataset) -> None:
    """Refuses a file with millions of windows, or of items of a sequence, that decoding may read.

    Raises:
      BadImageError: an element of the groups that are read, other than pixels, is too long.
    """
    for tag in list(file.keys()):
        length = getattr(file.get_item(tag), "length", 0)  # known until pydicom unpacks it
        if tag.group in _TABLE_GROUPS and _MOST_TABLE_BYTES < length < 0xFFFFFFFF:
            raise BadImageError(f"DICOM whose element {tag} has {length:,} bytes")


def inflated(data: bytes, max_pixels: int) -> bytes:
    """A file of the deflated transfer syntax (PS3.5 A.5) as one of the same elements that is not;
    any other unchanged.

    Raises:
      BadImageError: it is larger than an image of 16 bits with `max_pixels`.
      zlib.error: it is damaged.
    """
    if _DEFLATED not in data[:_BLOCK]:
        return data
    from pydicom import filereader

    stream = io.BytesIO(data)
    try:
        filereader.read_preamble(stream, force=True)
        syntax = filereader._read_file_meta_info(stream).get("TransferSyntaxUID")
    except Exception:  # of many types: the reader of the whole file meets it again
        return data
    if syntax != _DEFLATED.decode():
        return data
    inflate, limit = zlib.decompressobj(-zlib.MAX_WBITS), 2 * max_pixels + _BLOCK
    plain = io.BytesIO()
    plain.write(data[: stream.tell()].replace(_DEFLATED, _PLAIN, 1))
    while not inflate.eof and (block := inflate.unconsumed_tail or stream.read(_BLOCK)):
        plain.write(inflate.decompress(block, _BLOCK))
        take_turn_if_large(plain.tell())
        if plain.tell() > limit:
            raise BadImageError(
                f"deflated DICOM that unpacks to more than {limit:,} bytes, 2 for each of "
                f"--max_pixels={max_pixels}"
            )
    if not inflate.eof:
        raise zlib.error("incomplete or truncated stream")
    return plain.getvalue()


def check_frame(file: Dataset, syntax: UID) -> None:
    """Compares the size in a compressed image's own header with that of the DICOM file.

    Raises:
      BadImageError: they differ, or it would unpack to more.
    """
    from pydicom import encaps, uid

    try:
        frame = encaps.get_frame(file.PixelData, 0, number_of_frames=1)
    except Exception:  # of many types: decoding meets it again
        return
    if syntax == uid.RLELossless:
        _check_rle(frame, file.Rows * file.Columns)
    elif syntax in (*uid.JPEGTransferSyntaxes, *uid.JPEGLSTransferSyntaxes):
        for header in _JPEG_FRAME.findall(frame):
            length, height, width, samples = (int.from_bytes(one, "big") for one in header)
            if length == 8 + 3 * samples:  # else these bytes are something else
                _compare(file, width, height, samples)
        scans = frame.count(b"\xff\xda")
        if scans > min(_MOST_SCANS, _MOST_SCANNED // (file.Rows * file.Columns)):
            raise BadImageError(
                f"JPEG of {scans} scans of {file.Columns} x {file.Rows} pixels in a DICOM: too many"
            )
    else:
        _check_boxes(frame)
        _check_codestream(file, frame)


def _compare(file: Dataset, width: int, height: int, samples: int) -> None:
    # An embedded preview is smaller. A height of 0 is given after the image data, up to 65,535.
    if width > file.Columns or (height or 65535) > file.Rows or samples > _MOST_SAMPLES:
        raise BadImageError(
            f"header says {file.Columns} x {file.Rows}, its compressed image {width} x {height} of "
            f"{samples} samples a pixel"
        )


def _check_boxes(frame: bytes) -> None:
    """Refuses a JP2 file in which pydicom would look for the image data for ever."""
    position = len(_JP2_SIGNATURE) + 4
    if not frame.startswith(_JP2_SIGNATURE):
        return
    while position < len(frame) and frame[position + 4 : position + 8] != b"jp2c":
        length = int.from_bytes(frame[position : position + 4], "big")
        if length < 8:
            raise BadImageError(f"damaged JPEG 2000: a box of {length} bytes")
        position += length


def _check_codestream(file: Dataset, frame: bytes) -> None:
    """Reads the size of JPEG 2000 from its bytes (ISO/IEC 15444-1, A.5.1): where something else in
    its header is damaged, OpenJPEG tells no size, and yet takes memory for it."""
    start = -1
    while (start := frame.find(_JPEG_2000_SIZE, start + 1)) >= 0 and start + 42 <= len(frame):
        width, height, left, top, tile_width, tile_height = struct.unpack_from(
            ">6I", frame, start + 8
        )
        tiles = -(-width // max(1, tile_width)) * -(-height // max(1, tile_height))
        if tiles > _MOST_TILES:
            raise BadImageError(f"JPEG 2000 of {tiles:,} tiles: more than {_MOST_TILES:,}")
        samples = int.from_bytes(frame[start + 40 : start + 42], "big")
        _compare(file, max(width - left, 0), max(height - top, 1), samples)


def _check_rle(frame: bytes, pixels: int) -> None:
    """Counts what the segments unpack to (PS3.5 G.3); a little padding is usual."""
    if len(frame) < 64:
        return
    count, *starts = struct.unpack("<16I", frame[:64])
    ends = [*starts[1:count], len(frame)]
    runs = 0
    for start, end in zip(starts[:count], ends, strict=False):
        position, total, end = start, 0, min(end, len(frame))
        while position < end:
            code = frame[position]
            runs += 1
            position += 2 if code > 128 else code + 2 if code < 128 else 1
            total += 257 - code if code > 128 else code + 1 if code < 128 else 0
            if total > 2 * pixels + _BLOCK or runs > _MOST_RUNS:
                raise BadImageError(
                    f"run lengths that unpack to more than {pixels:,} pixels, or of more than "
                    f"{_MOST_RUNS:,} runs"
                )
