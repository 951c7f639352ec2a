"""Files as lists of their parts, and back: with right lengths and checksums, so that a change of
one part gets past the first check of a decoder."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator

import google_crc32c

from tests.cxr_tfrecords.decoding.files import SIGNATURE, chunk, chunks

# What stays as it is before a part's content (a name, a marker, a tag), and the content.
Part = tuple[bytes, bytes]
_DEFLATED = b"1.2.840.10008.1.2.1.99"
_LONG = (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")


def split(kind: str, data: bytes) -> list[Part]:
    """The parts of a valid file; `kind` is a key of `_FORMATS`, or of a format without parts."""
    return _FORMATS[kind][0](data) if kind in _FORMATS else [(b"", data)]


def join(kind: str, parts: list[Part]) -> bytes:
    """The inverse of `split`, for any parts."""
    return _FORMATS[kind][1](parts) if kind in _FORMATS else b"".join(body for _, body in parts)


def _split_png(data: bytes) -> list[Part]:
    """Chunks; the image data unpacked, under a name of their own."""
    parts = list(chunks(data))
    return [
        (b"rows", zlib.decompress(body)) if kind == b"IDAT" else (kind, body)
        for kind, body in parts
    ]


def _join_png(parts: list[Part]) -> bytes:
    return SIGNATURE + b"".join(
        chunk(b"IDAT", zlib.compress(body, 1)) if kind == b"rows" else chunk(kind, body)
        for kind, body in parts
    )


def _split_jpeg(data: bytes) -> list[Part]:
    """Segments of JPEG, JPEG-LS and JPEG 2000 by their markers, and image data."""
    parts, position = [(b"", data[:2])], 2
    first = 0x4F if data[1] == 0x4F else 0xC0
    while position < len(data) - 2:
        marker = data[position : position + 2]
        if marker in (b"\xff\x93", b"\xff\xd9"):  # JPEG 2000's image data; the end
            break
        end = position + 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        parts.append((marker, data[position + 4 : end]))
        stop = end
        while stop < len(data) - 2 and not (
            data[stop] == 0xFF and data[stop + 1] >= first and data[stop + 1] & 0xF8 != 0xD0
        ):
            stop += 1
        if stop > end:
            parts.append((b"", data[end:stop]))
        position = stop
    return [*parts, (b"", data[position:])]


def _join_jpeg(parts: list[Part]) -> bytes:
    return b"".join(
        marker + ((len(body) + 2) % 2**16).to_bytes(2, "big") + body if marker else body
        for marker, body in parts
    )


def _split_webp(data: bytes) -> list[Part]:
    parts, position = [], 12
    while position < len(data):
        kind, length = data[position : position + 4], struct.unpack_from("<I", data, position + 4)
        parts.append((kind, data[position + 8 : position + 8 + length[0]]))
        position += 8 + length[0] + length[0] % 2
    return parts


def _join_webp(parts: list[Part]) -> bytes:
    body = b"WEBP" + b"".join(
        kind + struct.pack("<I", len(one)) + one + b"\0" * (len(one) % 2) for kind, one in parts
    )
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _split_dicom(data: bytes) -> list[Part]:
    """Elements; the first part is the file's meta information, the data set of a deflated file is
    unpacked. Each tag keeps its byte order, value representation and reserved bytes."""
    start = 144 + struct.unpack_from("<I", data, 140)[0]
    meta, rest = data[:start], data[start:]
    if _DEFLATED in meta:
        rest = zlib.decompress(rest, -zlib.MAX_WBITS)
    return [(b"", meta), *_elements(rest)]


def _elements(rest: bytes) -> Iterator[Part]:
    position = 0
    while position < len(rest):
        order = _order(rest[position : position + 4])
        head = position + 4
        if rest[head : head + 2].isalpha():
            head += 4 if rest[head : head + 2] in _LONG else 2
            size = 4 if head == position + 8 else 2
        else:
            size = 4
        (length,) = struct.unpack_from(order + {2: "H", 4: "I"}[size], rest, head)
        # Of undefined length, with its items: pixel data, the last element.
        end = len(rest) if length == 2**32 - 1 else head + size + length
        yield rest[position:head], rest[head + size : end]
        position = end


def _join_dicom(parts: list[Part]) -> bytes:
    meta = next((body for head, body in parts if not head), b"")
    rest = b"".join(_element(head, body) for head, body in parts if head)
    if _DEFLATED in meta:
        packer = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
        rest = packer.compress(rest) + packer.flush()
    return meta + rest


def _element(head: bytes, body: bytes) -> bytes:
    order = _order(head)
    if head[:4] == b"\xe0\x7f\x10\0" and body[:4] == b"\xfe\xff\0\xe0":
        return head + b"\xff" * 4 + body
    if len(head) == 6:
        return head + struct.pack(order + "H", len(body) % 2**16) + body
    return head + struct.pack(order + "I", len(body)) + body


def _order(tag: bytes) -> str:
    """Byte order, for `struct`, of a tag of the groups that the corpus has."""
    return ">" if tag[0] in (0x00, 0x7F) else "<"


def split_frame(body: bytes) -> tuple[str, list[Part]] | None:
    """Kind and parts of the compressed image in pixel data; None if they are not compressed, or
    changed already."""
    if body[:4] != b"\xfe\xff\0\xe0":
        return None
    try:
        # The item of offsets, then one item.
        start = 16 + struct.unpack_from("<I", body, 4)[0]
        frame = body[start : start + struct.unpack_from("<I", body, start - 4)[0]]
        kind = "jpeg" if frame[:2] in (b"\xff\xd8", b"\xff\x4f") else "bytes"
        return kind, split(kind, frame)
    except (struct.error, IndexError):
        return None


def join_frame(kind: str, parts: list[Part]) -> bytes:
    """The inverse of `split_frame`."""
    frame = join(kind, parts)
    frame += b"\0" * (len(frame) % 2)
    table, end = b"\xfe\xff\0\xe0" + bytes(4), b"\xfe\xff\xdd\xe0" + bytes(4)
    return table + b"\xfe\xff\0\xe0" + struct.pack("<I", len(frame)) + frame + end


def _split_tfrecord(data: bytes) -> list[Part]:
    parts, position = [], 0
    while position < len(data):
        (length,) = struct.unpack_from("<Q", data, position)
        parts.append((b"", data[position + 12 : position + 12 + length]))
        position += 16 + length
    return parts


def _join_tfrecord(parts: list[Part]) -> bytes:
    return b"".join(_record(len(body), body) for _, body in parts)


def _record(length: int, body: bytes) -> bytes:
    number = struct.pack("<Q", length)
    return number + _crc(number) + body + _crc(body)


def _crc(data: bytes) -> bytes:
    crc = google_crc32c.value(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def wrong_length(data: bytes, length: int) -> bytes:
    """A shard that begins with a record of another length, with a right checksum of it."""
    number = struct.pack("<Q", length)
    return number + _crc(number) + data[12:]


_FORMATS: dict[str, tuple[Callable[[bytes], list[Part]], Callable[[list[Part]], bytes]]] = {
    "png": (_split_png, _join_png),
    "mask": (_split_png, _join_png),
    "jpeg": (_split_jpeg, _join_jpeg),
    "webp": (_split_webp, _join_webp),
    "dicom": (_split_dicom, _join_dicom),
    "tfrecord": (_split_tfrecord, _join_tfrecord),
}
