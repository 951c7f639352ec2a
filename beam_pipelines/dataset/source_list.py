"""sources.csv: one row for each source file, see `dataset_dir.SOURCE_COLUMNS`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from beam_pipelines.dataset.existing_rows import ExistingRows
from beam_pipelines.planning.grouping import OUTCOME_REASONS, REJECTED
from beam_pipelines.planning.plan import BuildPlan
from beam_pipelines.shards.parts import Parts
from cxr_tfrecords import csv_rows, dataset_dir, files

_SOURCE_COLUMNS = ("num_bytes", "sha256", "height", "width", "format", "mode", "pixel_steps")
_DIGEST_COLUMNS = ("pixels", "stored", "near")
_GROUP_COLUMNS = ("tie", "patient")


def write_sources(
    path: str,
    plan: BuildPlan,
    parts: Parts,
    existing: ExistingRows | None = None,
    renamed: Mapping[str, str] | None = None,
    *,
    sort: bool = False,
) -> None:
    """Writes the source list.

    Args:
      existing: rows of the data set that was appended to; renamed: its shards' new names.
      sort: sort the new rows by stored name, all in memory: where names are hashed, the order of
        the files would tell something of their true names.
    """
    with files.replacing(path) as temporary, files.open_file(temporary, "w") as file:
        writer = csv_rows.writer(file)
        writer.writerow(dataset_dir.SOURCE_COLUMNS)
        if existing is not None:
            writer.writerows(_existing_rows(plan, existing, renamed or {}))
        rows: Iterable[list[Any]] = _new_rows(plan, parts)
        if sort:
            name = dataset_dir.SOURCE_COLUMNS.index("filename")
            rows = sorted(rows, key=lambda row: row[name])
        writer.writerows(rows)


def _existing_rows(
    plan: BuildPlan, existing: ExistingRows, renamed: Mapping[str, str]
) -> Iterator[Sequence[str]]:
    for row, one in enumerate(existing.table.to_pylist()):
        one |= {"shard": renamed.get(one["shard"], one["shard"]), "tied_by": plan.tied_by(row)}
        yield [one[column] for column in dataset_dir.SOURCE_COLUMNS]


def _new_rows(plan: BuildPlan, parts: Parts) -> Iterator[list[Any]]:
    shard_of = np.full(len(plan.outcome), -1, np.int64)
    for number, shard in enumerate(plan.shards):
        shard_of[shard.rows] = number
    row = plan.num_existing
    columns = ["filename", "warning", "reason", *_SOURCE_COLUMNS, *_DIGEST_COLUMNS, *_GROUP_COLUMNS]
    for table in parts.tables(columns):
        for one in table.to_pylist():
            target = plan.shards[shard_of[row]] if shard_of[row] >= 0 else None
            usable = plan.outcome[row] != REJECTED
            yield [
                plan.class_names[plan.labels[row]],
                target.split if target else "",
                target.file if target else "",
                one["filename"],
                *("" if one[c] is None else one[c] for c in _SOURCE_COLUMNS),
                *(one[c].hex() if usable else "" for c in _DIGEST_COLUMNS),
                plan.group_id(row) if usable else "",
                plan.tied_by(row),
                *(one[c].hex() if any(one[c]) else "" for c in _GROUP_COLUMNS),
                one["warning"],
                one["reason"] or OUTCOME_REASONS[plan.outcome[row]],
            ]
            row += 1
