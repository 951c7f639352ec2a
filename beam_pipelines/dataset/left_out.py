"""left_out.tfrecord: pictures of images that were left out, for the statistics page alone."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from absl import logging

from beam_pipelines.shards.parts import RECORDS, Parts
from cxr_tfrecords import dataset_dir, files, records, stats, tfrecord


def write_left_out(
    output_dir: str, sources_dir: str, manifest: Mapping[str, Any], parts: Parts
) -> None:
    """Writes the images that the page shows though no shard holds them: dropped copies and leaks.

    Training and evaluation read the shards that the manifest names, so never this file.

    Args:
      sources_dir: folder of the sources.csv that the manifest describes.
      parts: of the images read now; those of the data set that is appended to are in its file.
    """
    if not manifest["sources"]["set_aside"]:
        return
    missing = stats.shown_without_shard(sources_dir, manifest)
    path = files.join(output_dir, dataset_dir.LEFT_OUT)
    kept = _earlier(path)
    kept.update(_records(parts, missing - kept.keys()))
    if missing & kept.keys():
        tfrecord.write_records(path, (kept[name] for name in sorted(missing & kept.keys())))


def _earlier(path: str) -> dict[str, bytes]:
    """File name -> record of what the file holds; nothing is worth stopping a build for it."""
    if not files.exists(path):
        return {}
    try:
        return {records.parse_record(one).filename: one for one in tfrecord.read_records(path)}
    except (tfrecord.DamagedRecordError, ValueError) as error:
        logging.warning("%s is damaged (%s): the page lacks its pictures", path, error)
        return {}


def _records(parts: Parts, names: Collection[str]) -> Iterator[tuple[str, bytes]]:
    """(File name, serialized record) of some images; a rejected file has none."""
    wanted = pa.array(sorted(names), pa.large_string())
    tables = parts.tables(["filename", "offset", "length"])
    for path, table in zip(parts.paths, tables, strict=True):
        rows = table.filter(pc.is_in(table["filename"], wanted)).to_pylist()
        for row in rows:
            if row["length"]:
                with files.open_file(path + RECORDS) as file:
                    file.seek(row["offset"])
                    yield row["filename"], file.read(row["length"])
