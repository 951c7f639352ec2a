"""The images of a finished data set, read from its sources.csv: what --append plans with.

The old source files need not be there any more.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv

from beam_pipelines.planning.grouping import (
    OUTCOME_REASONS,
    REJECTED,
    SET_ASIDE,
    WRITTEN,
    ExistingPlan,
)
from beam_pipelines.shards.parts import SCHEMA, Parts
from cxr_tfrecords import dataset_dir, files
from cxr_tfrecords.errors import UserError
from cxr_tfrecords.statistics.sources import read_sources

# Column of `parts.SCHEMA` -> column of sources.csv.
_DIGESTS = {
    "pixels": "pixel_digest",
    "stored": "stored_digest",
    "near": "near_hash",
    "tie": "given_group",
    "patient": "patient",
}


@dataclasses.dataclass(frozen=True)
class ExistingRows:
    """Rows of sources.csv.

    Attributes:
      table: `dataset_dir.SOURCE_COLUMNS`, all as text.
      class_names: label order.
      split_names: of the data set.
    """

    table: pa.Table
    class_names: tuple[str, ...]
    split_names: tuple[str, ...]

    def __len__(self) -> int:
        return self.table.num_rows

    def texts(self, column: str) -> list[str]:
        return self.table[column].to_pylist()

    def without(self, filenames: set[str]) -> ExistingRows:
        """The rows of other files."""
        keep = [name not in filenames for name in self.texts("filename")]
        return dataclasses.replace(self, table=self.table.filter(pa.array(keep)))

    def digests(self, column: str) -> np.ndarray:
        """As `parts.Parts.digests`."""
        width = SCHEMA.field(column).type.byte_width
        empty = bytes(width)
        values = (bytes.fromhex(text) or empty for text in self.texts(_DIGESTS[column]))
        return np.frombuffer(b"".join(values), np.uint64).reshape(len(self), width // 8)

    def numbers(self, column: str) -> np.ndarray:
        """`label`, `split` (-1: not written), `length` (1: decoded, 0: rejected), `num_bytes`."""
        if column == "label":
            codes = {name: label for label, name in enumerate(self.class_names)}
            return np.array([codes[name] for name in self.texts("class")], np.int32)
        if column == "split":
            codes = {"": -1, **{name: number for number, name in enumerate(self.split_names)}}
            return np.array([codes[name] for name in self.texts("split")], np.int8)
        if column == "length":
            return (self.outcomes() != REJECTED).astype(np.int64)
        return np.array([int(text or 0) for text in self.texts(column)], np.int64)

    def outcomes(self) -> np.ndarray:
        """uint8 [rows], see `grouping.OUTCOME_REASONS`."""
        codes = {OUTCOME_REASONS[outcome]: outcome for outcome in SET_ASIDE} | {"": WRITTEN}
        return np.array([codes.get(text, REJECTED) for text in self.texts("reason")], np.uint8)

    def plan(self, manifest: dict[str, Any]) -> ExistingPlan:
        """What --append must not change; see `grouping.ExistingPlan`."""
        ids = self.texts("group")
        groups = b"".join(bytes.fromhex(text) or bytes(16) for text in ids)
        shards: dict[tuple[str, int], int] = {}
        for entry in manifest["shards"]:
            key = entry["split"], self.class_names.index(entry["class"])
            shards[key] = shards.get(key, 0) + 1
        return ExistingPlan(
            self.outcomes(), np.frombuffer(groups, np.uint64).reshape(-1, 2), shards
        )


def read_existing_rows(output_dir: str, manifest: dict[str, Any]) -> ExistingRows:
    """Reads sources.csv.

    Raises:
      UserError: it is missing or damaged, or of a version that did not note what appending needs.
    """
    path = files.join(output_dir, dataset_dir.SOURCES)
    text = {name: pa.string() for name in dataset_dir.SOURCE_COLUMNS}
    options = pyarrow.csv.ConvertOptions(column_types=text, strings_can_be_null=False)
    parsing = pyarrow.csv.ParseOptions(newlines_in_values=True)
    try:
        content = pa.py_buffer(files.read_bytes(path))
        table = pyarrow.csv.read_csv(
            pa.BufferReader(content), parse_options=parsing, convert_options=options
        ).select(list(dataset_dir.SOURCE_COLUMNS))
    except (OSError, KeyError, pa.ArrowInvalid) as error:
        raise UserError(
            f"--append: {path} cannot be read ({error}): build a new --output_dir from all data"
        ) from error
    rows = ExistingRows(table, tuple(manifest["class_names"]), dataset_dir.split_names(manifest))
    read_sources(output_dir, manifest)  # refuses a list of other images than the manifest counts
    try:
        rows.plan(manifest)
        for column in _DIGESTS:
            rows.digests(column)
    except ValueError as error:
        raise UserError(
            f"--append: {path} is damaged ({error}): build a new --output_dir from all data"
        ) from error
    return rows


class CombinedRows:
    """Columns of the existing rows, then of the new ones: what `plan.plan_build` asks for."""

    def __init__(self, existing: ExistingRows, parts: Parts) -> None:
        self._existing, self._parts = existing, parts

    def __len__(self) -> int:
        return len(self._existing) + len(self._parts)

    def numbers(self, column: str) -> np.ndarray:
        return np.concatenate([self._existing.numbers(column), self._parts.numbers(column)])

    def digests(self, column: str) -> np.ndarray:
        return np.concatenate([self._existing.digests(column), self._parts.digests(column)])

    def strings(self, column: str, rows: np.ndarray) -> list[str]:
        first = len(self._existing)
        old = self._existing.table[column].take(pa.array(rows[rows < first])).to_pylist()
        return old + self._parts.strings(column, rows[rows >= first] - first)
