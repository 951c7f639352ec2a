"""sources.csv as columns, and what the statistics page says of them.

There can be millions of rows, so everything is counted in columns; only the few rows that are
shown by name become Python objects.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from cxr_tfrecords import dataset_dir, files
from cxr_tfrecords.errors import UserError
from cxr_tfrecords.splits import SPLITS
from cxr_tfrecords.statistics import shortcut

# Few distinct values each, or plain text, or numbers that are empty for rejected files.
_WORDS = ("class", "split", "format", "mode", "tied_by", "reason")
_TEXTS = ("shard", "filename", "group")
_NUMBERS = ("num_bytes", "height", "width")

_SIZES_LISTED = 20
_POINTS = 300
_GROUPS_SHOWN = 12
_MEMBERS_SHOWN = 6
_REJECTED_SHOWN = 50
_REASONS_SHOWN = 20


@dataclasses.dataclass(frozen=True)
class SourceTable:
    """Rows of sources.csv.

    Attributes:
      table: the columns above, words as dictionaries.
      class_names: label order.
      labels: int64 [rows].
      written: bool [rows], whether a shard holds it.
    """

    table: pa.Table
    class_names: tuple[str, ...]
    labels: np.ndarray
    written: np.ndarray

    def codes(self, column: str) -> tuple[np.ndarray, list[str]]:
        """int64 [rows] into the column's distinct words, which are sorted."""
        encoded = self.table[column].combine_chunks()
        words = encoded.dictionary.to_pylist()
        order = np.argsort(np.array(words, object))
        ranks = np.empty(len(words), np.int64)
        ranks[order] = np.arange(len(words))
        return ranks[encoded.indices.to_numpy()], [words[i] for i in order]

    def numbers(self, column: str) -> np.ndarray:
        """int64 [rows], 0 where there is none."""
        return pc.fill_null(self.table[column], 0).to_numpy()

    def rows(self, numbers: np.ndarray) -> list[dict[str, Any]]:
        """A few rows as dictionaries."""
        return self.table.take(pa.array(numbers)).to_pylist()


def read_sources(path: str, manifest: Mapping[str, Any]) -> SourceTable:
    """Reads a data set's sources.csv.

    Raises:
      UserError: it is missing, damaged, of an older version, or not of this manifest.
    """
    file_name = files.join(path, dataset_dir.SOURCES)
    word = pa.dictionary(pa.int32(), pa.string())
    types = {
        **dict.fromkeys(_WORDS, word),
        **dict.fromkeys(_TEXTS, pa.string()),
        **dict.fromkeys(_NUMBERS, pa.int64()),
    }
    options = pyarrow.csv.ConvertOptions(
        column_types=types, include_columns=list(types), strings_can_be_null=False
    )
    parsing = pyarrow.csv.ParseOptions(newlines_in_values=True)
    try:
        content = pa.py_buffer(files.read_bytes(file_name))
        table = pyarrow.csv.read_csv(
            pa.BufferReader(content), parse_options=parsing, convert_options=options
        )
    except (OSError, KeyError, pa.ArrowInvalid) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        missing = isinstance(error, FileNotFoundError)
        what = "is missing" if missing else f"cannot be read ({reason})"
        raise UserError(f"{file_name} {what}: build again with --overwrite") from error
    names = tuple(manifest["class_names"])
    table = table.unify_dictionaries().combine_chunks()
    labels = _positions(table["class"], names)
    split = _positions(table["split"], SPLITS)
    written = split >= 0
    cells = np.bincount(split[written] * len(names) + labels[written], minlength=3 * len(names))
    expected = [manifest["counts"][s][name] for s in SPLITS for name in names]
    if (labels < 0).any() or cells.tolist() != expected or len(table) != _found(manifest):
        raise UserError(
            f"{file_name} does not list the images that {dataset_dir.MANIFEST} counts: run the "
            "build or --append again that was interrupted, or build again with --overwrite"
        )
    return SourceTable(table, names, labels, written)


def _found(manifest: Mapping[str, Any]) -> int:
    return manifest["sources"]["found"]


def _positions(column: pa.ChunkedArray, words: tuple[str, ...]) -> np.ndarray:
    """int64 [rows], place of each value among the words; -1: none of them."""
    places = pc.index_in(column.cast(pa.string()), pa.array(words, pa.string()))
    return pc.fill_null(places, -1).to_numpy().astype(np.int64)


def describe_files(sources: SourceTable) -> dict[str, Any]:
    """Class name -> formats, modes, sizes and bytes of the files that were written."""
    codes = {column: sources.codes(column) for column in ("format", "mode")}
    num_bytes, sizes = sources.numbers("num_bytes"), _sizes(sources)
    result = {}
    for label, name in enumerate(sources.class_names):
        rows = np.flatnonzero(sources.written & (sources.labels == label))
        distinct, counts = np.unique(sizes[rows], return_counts=True)
        common = np.argsort(-counts, kind="stable")[:_SIZES_LISTED]
        quantiles = np.percentile(num_bytes[rows], [0, 5, 25, 50, 75, 95, 100]).round()
        result[name] = {
            "images": len(rows),
            **{f"{c}s": _tally(own[rows], words) for c, (own, words) in codes.items()},
            "num_sizes": len(distinct),
            "sizes": _unpacked(distinct[common], counts[common]),
            "bytes": dict(
                zip(
                    ("min", "p5", "q1", "median", "q3", "p95", "max"),
                    quantiles.astype(int).tolist(),
                    strict=True,
                )
            ),
        }
    return result


def size_points(sources: SourceTable) -> dict[str, list[list[int]]]:
    """Class name -> [height, width, images] for a picture; thinned evenly where there are many."""
    sizes, points = _sizes(sources), {}
    for label, name in enumerate(sources.class_names):
        own = sizes[sources.written & (sources.labels == label)]
        distinct, counts = np.unique(own, return_counts=True)
        kept = np.unique(np.linspace(0, len(distinct) - 1, _POINTS).astype(int))
        points[name] = _unpacked(distinct[kept], counts[kept])
    return points


def _sizes(sources: SourceTable) -> np.ndarray:
    """int64 [rows], height and width in one number: what differs in either is told apart."""
    return sources.numbers("height") << 32 | sources.numbers("width")


def _unpacked(sizes: np.ndarray, counts: np.ndarray) -> list[list[int]]:
    return np.column_stack([sizes >> 32, sizes & 0xFFFFFFFF, counts]).tolist()


def _tally(codes: np.ndarray, words: list[str]) -> dict[str, int]:
    """Word -> rows, without words that none has."""
    counts = np.bincount(codes, minlength=len(words)).tolist()
    return {word: count for word, count in zip(words, counts, strict=True) if count}


def describe_rejected(sources: SourceTable, set_aside: Mapping[str, int]) -> dict[str, Any]:
    """Rejected files: how many by reason, the first by name. set_aside: not called rejected."""
    codes, words = sources.codes("reason")
    rejected = np.array([bool(w) and w not in set_aside for w in words], bool)[codes]
    reasons = _tally(codes[rejected], words)
    common = sorted(reasons.items(), key=lambda one: (-one[1], one[0]))[:_REASONS_SHOWN]
    rows = sources.rows(np.flatnonzero(rejected)[:_REJECTED_SHOWN])
    return {
        "files": int(rejected.sum()),
        "num_reasons": len(reasons),
        "reasons": [{"reason": reason, "files": count} for reason, count in common],
        "first": [{"file": row["filename"], "reason": row["reason"]} for row in rows],
    }


def choose_groups(sources: SourceTable, conflicts: list[str]) -> list[dict[str, Any]]:
    """The groups that the page shows: label conflicts, then copies, then given groups.

    Args:
      conflicts: ids of groups whose copies lie in several classes.
    """
    ids = sources.table["group"]
    codes, words = sources.codes("tied_by")
    copies = np.array(["pixels" in w or "near" in w for w in words], bool)[codes]
    tied = np.array([bool(w) for w in words], bool)[codes]
    chosen = list(conflicts[:_GROUPS_SHOWN])
    for rows in (copies, tied):
        if len(chosen) < _GROUPS_SHOWN:
            found = pc.unique(ids.filter(pa.array(rows)))
            found = found.filter(pc.invert(pc.is_in(found, pa.array(chosen, pa.string()))))
            chosen += found[: _GROUPS_SHOWN - len(chosen)].to_pylist()
    here = pc.is_in(ids, pa.array(chosen, pa.string())).to_numpy()
    members: dict[str, list[dict[str, Any]]] = {group: [] for group in chosen}
    for row in sources.rows(np.flatnonzero(here)):
        members[row["group"]].append(row)
    return [
        {
            "group": group,
            "label_conflict": group in conflicts,
            "images": len(members[group]),
            "shown": _shown(members[group]),
        }
        for group in chosen
    ]


def _shown(members: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A few of a group: copies before what a given group adds, and each class before a second."""
    seen: dict[str, int] = {}
    ranked = []
    for row in sorted(members, key=lambda row: row["tied_by"] in ("", "group")):
        seen[row["class"]] = seen.get(row["class"], 0) + 1
        ranked.append((seen[row["class"]], row))
    ranked.sort(key=lambda one: one[0])
    columns = ("filename", "class", "split", "shard", "tied_by", "reason")
    return [{c: row[c] for c in columns} for _, row in ranked[:_MEMBERS_SHOWN]]


def measure_shortcut(sources: SourceTable) -> dict[str, Any]:
    """Whether format and size of the written files tell the class, see `shortcut.measure`."""
    names = sources.class_names
    rows = shortcut.choose_rows(np.where(sources.written, sources.labels, -1), len(names))
    height, width = sources.numbers("height")[rows], sources.numbers("width")[rows]
    features = {
        "format": sources.codes("format")[0][rows],
        "mode": sources.codes("mode")[0][rows],
        "height": height,
        "width": width,
        "aspect_ratio": width / np.maximum(height, 1),
        "file_size": np.log(np.maximum(sources.numbers("num_bytes")[rows], 1)),
    }
    groups = sources.table["group"].take(pa.array(rows)).combine_chunks().dictionary_encode()
    return shortcut.measure(features, sources.labels[rows], groups.indices.to_numpy(), names)
