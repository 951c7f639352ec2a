"""The table sources.csv, and the figures of the statistics page that are counted from it.

It can have millions of rows, so everything is counted in columns; only the few rows that the
page shows by name become Python objects.
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
from cxr_tfrecords.statistics import shortcut

_CATEGORIES = ("class", "split", "format", "mode", "tied_by", "reason")  # few distinct values each
_TEXTS = ("shard", "filename", "group")
_NUMBERS = ("num_bytes", "height", "width")  # empty for rejected files

# Why an image is in its group: the words of the column `tied_by`, joined by "+".
GROUP_REASONS = {
    "": "alone in its group",
    "pixels": "identical pixels",
    "near": "near-duplicate",
    "group": "same patient or given group",
}
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
      table: the columns above, the categories dictionary-encoded.
      class_names: a label is an index into them.
      labels: int64 [rows].
      written: bool [rows], whether a shard holds the image.
    """

    table: pa.Table
    class_names: tuple[str, ...]
    labels: np.ndarray
    written: np.ndarray

    def codes(self, column: str) -> tuple[np.ndarray, list[str]]:
        """Indices, int64 [rows], into the sorted distinct values of a category; and these."""
        encoded = self.table[column].combine_chunks()
        values = encoded.dictionary.to_pylist()
        order = np.argsort(np.array(values, object))
        ranks = np.empty(len(values), np.int64)
        ranks[order] = np.arange(len(values))
        return ranks[encoded.indices.to_numpy()], [values[i] for i in order]

    def numbers(self, column: str) -> np.ndarray:
        """A column of numbers, int64 [rows]; 0 where it is empty."""
        return pc.fill_null(self.table[column], 0).to_numpy()

    def rows(self, numbers: np.ndarray) -> list[dict[str, Any]]:
        """A few rows as dictionaries."""
        return self.table.take(pa.array(numbers)).to_pylist()


def read_sources(path: str, manifest: Mapping[str, Any]) -> SourceTable:
    """Reads a data set's sources.csv.

    Raises:
      UserError: it is missing or damaged, or does not belong to this manifest.
    """
    file_name = files.join(path, dataset_dir.SOURCES)
    types = {
        **dict.fromkeys(_CATEGORIES, pa.dictionary(pa.int32(), pa.string())),
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
        fault = "is missing" if missing else f"cannot be read ({reason})"
        raise UserError(f"{file_name} {fault}: build again with --overwrite") from error
    names = tuple(manifest["class_names"])
    table = table.unify_dictionaries().combine_chunks()
    labels = _positions(table["class"], names)
    splits = dataset_dir.split_names(manifest)
    split = _positions(table["split"], splits)
    written = split >= 0
    expected = [manifest["counts"][s][name] for s in splits for name in names]
    known = written & (labels >= 0)
    cells = np.bincount(split[known] * len(names) + labels[known], minlength=len(expected))
    num_found = manifest["sources"]["found"]
    if (labels < 0).any() or cells.tolist() != expected or len(table) != num_found:
        raise UserError(
            f"{file_name} does not list the images that {dataset_dir.MANIFEST} counts: run the "
            "interrupted build or --append again, or build again with --overwrite"
        )
    sources = SourceTable(table, names, labels, written)
    words = {word for value in sources.codes("tied_by")[1] for word in value.split("+")}
    if unknown := words - GROUP_REASONS.keys():
        raise UserError(
            f"{file_name} was changed: tied_by has {min(unknown)[:50]!r}, not one of "
            f"{', '.join(filter(None, GROUP_REASONS))}: build again with --overwrite"
        )
    return sources


def _positions(column: pa.ChunkedArray, values: tuple[str, ...]) -> np.ndarray:
    """Index of each row's value in `values`, int64 [rows]; -1 where it is not one of them."""
    positions = pc.index_in(column.cast(pa.string()), pa.array(values, pa.string()))
    return pc.fill_null(positions, -1).to_numpy().astype(np.int64)


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
            **{f"{c}s": _tally(of_rows[rows], values) for c, (of_rows, values) in codes.items()},
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
    """Class name -> [height, width, images] of each image size, to plot; evenly spaced ones of
    many sizes."""
    sizes, points = _sizes(sources), {}
    for label, name in enumerate(sources.class_names):
        of_class = sizes[sources.written & (sources.labels == label)]
        distinct, counts = np.unique(of_class, return_counts=True)
        kept = np.unique(np.linspace(0, len(distinct) - 1, _POINTS).astype(int))
        points[name] = _unpacked(distinct[kept], counts[kept])
    return points


def _sizes(sources: SourceTable) -> np.ndarray:
    """Height and width in one number, int64 [rows], so that equal sizes are equal numbers."""
    return sources.numbers("height") << 32 | sources.numbers("width")


def _unpacked(sizes: np.ndarray, counts: np.ndarray) -> list[list[int]]:
    return np.column_stack([sizes >> 32, sizes & 0xFFFFFFFF, counts]).tolist()


def _tally(codes: np.ndarray, values: list[str]) -> dict[str, int]:
    """Value -> number of rows that have it, without values that no row has."""
    counts = np.bincount(codes, minlength=len(values)).tolist()
    return {value: count for value, count in zip(values, counts, strict=True) if count}


def describe_rejected(sources: SourceTable, set_aside: Mapping[str, int]) -> dict[str, Any]:
    """Rejected files: how many by reason, and the names of the first.

    Args:
      set_aside: reasons for which an image was not written, though its file is a good one.
    """
    codes, values = sources.codes("reason")
    rejected = np.array([bool(v) and v not in set_aside for v in values], bool)[codes]
    reasons = _tally(codes[rejected], values)
    common = sorted(reasons.items(), key=lambda one: (-one[1], one[0]))[:_REASONS_SHOWN]
    rows = sources.rows(np.flatnonzero(rejected)[:_REJECTED_SHOWN])
    return {
        "files": int(rejected.sum()),
        "num_reasons": len(reasons),
        "reasons": [{"reason": reason, "files": count} for reason, count in common],
        "first": [{"file": row["filename"], "reason": row["reason"]} for row in rows],
    }


def choose_groups(sources: SourceTable, conflicts: list[str]) -> list[dict[str, Any]]:
    """Chooses the groups that the page shows: label conflicts, then copies, then given groups.

    Args:
      conflicts: ids of groups whose copies lie in several classes.
    """
    ids = sources.table["group"]
    codes, values = sources.codes("tied_by")
    copies = np.array(["pixels" in v or "near" in v for v in values], bool)[codes]
    grouped = np.array([bool(v) for v in values], bool)[codes]
    chosen = list(conflicts[:_GROUPS_SHOWN])
    for rows in (copies, grouped):
        if len(chosen) < _GROUPS_SHOWN:
            more = pc.unique(ids.filter(pa.array(rows)))
            more = more.filter(pc.invert(pc.is_in(more, pa.array(chosen, pa.string()))))
            chosen += more[: _GROUPS_SHOWN - len(chosen)].to_pylist()
    return _show_groups(sources, chosen, conflicts)


def choose_leaks(sources: SourceTable) -> dict[str, Any]:
    """Images that left a given split (--given_leaks), their groups, and some of these to show."""
    codes, values = sources.codes("reason")
    left = np.array(["--given_leaks" in value for value in values], bool)[codes]
    groups = pc.unique(sources.table["group"].filter(pa.array(left)))
    return {
        "images": int(left.sum()),
        "groups": len(groups),
        "shown": _show_groups(sources, groups[:_GROUPS_SHOWN].to_pylist(), []),
    }


def _show_groups(
    sources: SourceTable, chosen: list[str], conflicts: list[str]
) -> list[dict[str, Any]]:
    """The groups of these ids, each with a few of its images."""
    shown = pc.is_in(sources.table["group"], pa.array(chosen, pa.string())).to_numpy()
    members: dict[str, list[dict[str, Any]]] = {group: [] for group in chosen}
    for row in sources.rows(np.flatnonzero(shown)):
        members[row["group"]].append(row)
    return [
        {
            "group": group,
            "label_conflict": group in conflicts,
            "images": len(members[group]),
            "shown": _choose_members(members[group]),
        }
        for group in chosen
    ]


def _choose_members(members: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Chooses a few images of a group: one of each class before a second one, copies before images
    that only share a given group."""
    seen: dict[str, int] = {}
    ranked = []
    for row in sorted(members, key=lambda row: row["tied_by"] in ("", "group")):
        seen[row["class"]] = seen.get(row["class"], 0) + 1
        ranked.append((seen[row["class"]], row))
    ranked.sort(key=lambda one: one[0])
    columns = ("filename", "class", "split", "shard", "tied_by", "reason")
    return [{c: row[c] for c in columns} for _, row in ranked[:_MEMBERS_SHOWN]]


def file_features(sources: SourceTable) -> dict[str, np.ndarray]:
    """Name of `shortcut.FEATURES` -> numbers or codes of categories of all rows."""
    height, width = sources.numbers("height"), sources.numbers("width")
    return {
        "format": sources.codes("format")[0],
        "mode": sources.codes("mode")[0],
        "height": height,
        "width": width,
        "aspect_ratio": width / np.maximum(height, 1),
        "file_size": np.log(np.maximum(sources.numbers("num_bytes"), 1)),
    }


def measure_shortcut(sources: SourceTable) -> dict[str, Any]:
    """Whether format and size of the written files predict the class, see `shortcut.measure`."""
    names = sources.class_names
    rows = shortcut.choose_rows(np.where(sources.written, sources.labels, -1), len(names))
    features = {name: values[rows] for name, values in file_features(sources).items()}
    groups = sources.table["group"].take(pa.array(rows)).combine_chunks().dictionary_encode()
    return shortcut.measure(features, sources.labels[rows], groups.indices.to_numpy(), names)
