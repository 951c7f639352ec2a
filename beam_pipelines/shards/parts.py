"""Part files: what the first pass writes for a chunk of sources; the plan and the second pass read
them.

PART.records   the serialized records of its images, end to end, as they will stand in a shard
PART.parquet   one row a source file (`SCHEMA`); written last, so that its presence means a whole
               part
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cxr_tfrecords import files

RECORDS, ROWS = ".records", ".parquet"
_HISTOGRAMS = b"histograms"
_KEPT_ROWS = 1 << 16  # of about 400 bytes

SCHEMA = pa.schema(
    [
        ("filename", pa.large_string()),
        ("label", pa.int32()),
        ("num_bytes", pa.int64()),
        ("sha256", pa.large_string()),  # of the source file's bytes
        ("pixels", pa.binary(16)),  # digest of the decoded gray values
        ("stored", pa.binary(16)),  # digest of the gray values as stored
        ("near", pa.binary(32)),  # perceptual hash of the gray values as stored
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("format", pa.large_string()),
        ("mode", pa.large_string()),
        ("pixel_steps", pa.large_string()),  # what was done to the pixels, in words
        ("warning", pa.large_string()),  # why to look at the file; empty: no reason
        ("split", pa.int8()),  # given by the user, index into splits.SPLITS; -1: none
        ("tie", pa.binary(16)),  # digest of a table's patient or the like; zeros: none
        ("patient", pa.binary(16)),  # digest of the patient that the file itself names
        ("reason", pa.large_string()),  # why the file is rejected; empty: it is not
        ("offset", pa.int64()),  # of its record in PART.records
        ("length", pa.int64()),  # 0: rejected
        ("check", pa.uint64()),  # XXH3 of the record
        ("sums", pa.list_(pa.int64())),  # of pixels, then of their squares, per channel
    ]
)


def write_part(path: str, rows: Iterable[tuple[dict[str, Any], bytes, np.ndarray | None]]) -> None:
    """Writes both files of a part.

    Args:
      path: without ending.
      rows: (row of `SCHEMA` without `offset` and `length`, record or b"", int64 [256] histogram
        of its pixels or None).
    """
    table: list[dict[str, Any]] = []
    histograms: dict[int, Any] = {}
    with files.replacing(path + RECORDS) as temporary, files.open_file(temporary, "wb") as file:
        offset = 0
        for row, record, histogram in rows:
            file.write(record)
            table.append({**row, "offset": offset, "length": len(record)})
            offset += len(record)
            if histogram is not None:
                label = row["label"]
                histograms[label] = histograms.get(label, 0) + histogram
    counts = {label: histogram.tolist() for label, histogram in histograms.items()}
    schema = SCHEMA.with_metadata({_HISTOGRAMS: json.dumps(counts).encode()})
    buffer = io.BytesIO()
    # Read whole, and removed at the end of the build: written fast rather than small.
    options: dict[str, Any] = {"use_dictionary": False, "write_statistics": False}
    pq.write_table(pa.Table.from_pylist(table, schema), buffer, compression="lz4", **options)
    with files.replacing(path + ROWS) as temporary, files.open_file(temporary, "wb") as file:
        file.write(buffer.getvalue())


class Parts:
    """All parts of a build, in the order of the sources; rows are numbered through all parts."""

    def __init__(self, paths: Sequence[str]) -> None:
        """Reads the sizes and histograms of all parts, and the whole rows of the first ones.

        Args:
          paths: of the parts, without ending.
        """
        self.paths = tuple(paths)
        self._histograms: dict[int, np.ndarray] = {}
        # Opening a file for each column costs as much as hashing its images does: the first parts
        # are read once and kept, of the others a column at a time is in memory.
        self._kept: list[pa.Table] = []
        sizes: list[int] = []
        kept_rows = 0
        for path in self.paths:
            with files.open_file(path + ROWS) as file:
                reader = pq.ParquetFile(file)
                sizes.append(reader.metadata.num_rows)
                counts = json.loads(reader.schema_arrow.metadata[_HISTOGRAMS])
                kept_rows += sizes[-1]
                if kept_rows <= _KEPT_ROWS:
                    self._kept.append(reader.read())
            for label, histogram in counts.items():
                total = self._histograms.setdefault(int(label), np.zeros(256, np.int64))
                total += np.array(histogram, np.int64)
        self._sizes = np.array(sizes, np.int64)

    def __len__(self) -> int:
        return int(self._sizes.sum())

    @property
    def part_of(self) -> np.ndarray:
        """uint32 [rows], index into `paths`."""
        return np.repeat(np.arange(len(self.paths), dtype=np.uint32), self._sizes)

    def histogram(self, label: int) -> list[int]:
        """Intensities of a class's images, 256 counts."""
        return self._histograms.get(label, np.zeros(256, np.int64)).tolist()

    def tables(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Some columns, one part after the other."""
        for table in self._kept:
            yield table.select(list(columns))
        for path in self.paths[len(self._kept) :]:
            with files.open_file(path + ROWS) as file:
                yield pq.read_table(file, columns=list(columns))

    def numbers(self, column: str) -> np.ndarray:
        """A numeric column, [rows]."""
        # A rejected file has nulls in some columns, and nulls would make floats of integers.
        values = [pc.fill_null(t[column], 0).to_numpy() for t in self.tables([column])]
        return np.concatenate(values)

    def digests(self, column: str) -> np.ndarray:
        """A column of digests as words, uint64 [rows, words]; zeros where there is none."""
        words = SCHEMA.field(column).type.byte_width // 8
        result = np.zeros((len(self), words), np.uint64)
        start = 0
        for table in self.tables([column]):
            values = table[column].combine_chunks()
            data = np.frombuffer(values.buffers()[1], np.uint64, len(values) * words)
            result[start : start + len(values)] = data.reshape(-1, words)
            start += len(values)
        return result

    def sums(self, channels: int) -> np.ndarray:
        """Sums of the pixels and of their squares, int64 [rows, 2, channels]; 0 if rejected."""
        result = np.zeros((len(self), 2, channels), np.int64)
        start = 0
        for table in self.tables(["sums"]):
            column = table["sums"].combine_chunks()
            whole = start + np.flatnonzero(column.is_valid().to_numpy(zero_copy_only=False))
            result[whole] = column.flatten().to_numpy().reshape(-1, 2, channels)
            start += table.num_rows
        return result

    def strings(self, column: str, rows: np.ndarray) -> list[str]:
        """Values of a text column for some rows (ascending numbers); only these are kept."""
        values: list[str] = []
        start = 0
        for table in self.tables([column]):
            low, high = np.searchsorted(rows, (start, start + table.num_rows))
            if high > low:
                values += table[column].take(pa.array(rows[low:high] - start)).to_pylist()
            start += table.num_rows
        return values
