"""The TFRecord format, read and written without TensorFlow.

A build needs nothing else of it, and importing TensorFlow costs every worker 3 CPU seconds and
400 MB. A record is its length (uint64), the length's masked CRC-32C, the bytes, and their masked
CRC-32C, all little-endian (tensorflow/core/lib/io/record_writer.h).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

import google_crc32c

from cxr_tfrecords import files

_HEADER = struct.Struct("<QI")
_FOOTER = struct.Struct("<I")
_MASK_DELTA = 0xA282EAD8
_BUFFER = 1 << 20


class DamagedRecordError(Exception):
    """A record whose checksum is wrong or whose end is missing; the message says where."""


def write_records(path: str, records: Iterable[bytes]) -> int:
    """Writes a TFRecord file under a temporary name and renames it once it is whole.

    Returns:
      The number of records. After an error no file of the final name exists, and the
      temporary one is removed.
    """
    count = 0
    with files.replacing(path) as temporary, files.open_file(temporary, "wb") as file:
        for record in records:
            length = len(record).to_bytes(8, "little")
            file.write(length + _FOOTER.pack(_masked_crc(length)))
            file.write(record)
            file.write(_FOOTER.pack(_masked_crc(record)))
            count += 1
    return count


def read_records(path: str) -> Iterator[bytes]:
    """Yields the records of a TFRecord file in order, both checksums of each checked.

    Raises:
      DamagedRecordError: naming the byte at which the damaged record starts.
    """
    position = 0
    with files.open_file(path) as file:
        while header := file.read(_HEADER.size):
            if len(header) < _HEADER.size:
                raise DamagedRecordError(f"ends inside a record's header, at byte {position}")
            length, crc = _HEADER.unpack(header)
            if crc != _masked_crc(header[:8]):
                raise DamagedRecordError(f"wrong checksum of a record's length, at byte {position}")
            # In pieces: a file would make room for any length, one that was made up, too.
            size = length + _FOOTER.size
            body = file.read(min(size, _BUFFER))
            while len(body) < size and (more := file.read(min(size - len(body), _BUFFER))):
                body += more
            if len(body) < size:
                raise DamagedRecordError(f"ends inside the record at byte {position}")
            record = body[:length]
            if _FOOTER.unpack(body[length:])[0] != _masked_crc(record):
                raise DamagedRecordError(f"wrong checksum of the record at byte {position}")
            yield record
            position += _HEADER.size + len(body)


def _masked_crc(data: bytes) -> int:
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + _MASK_DELTA) & 0xFFFFFFFF
