"""Which images of a data set are copies under several labels, as its build found; and pictures."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cxr_tfrecords.pages.html import Thumbnail
from cxr_tfrecords.statistics.pictures import read_thumbnails
from cxr_tfrecords.statistics.sources import SourceTable


def conflicting_copies(manifest: Mapping[str, Any], sources: SourceTable) -> list[list[str]]:
    """Names of the copies of each image that lies in several classes, of at most the 1,000 images
    that the manifest names."""
    conflicts = pa.array(manifest["duplicates"]["label_conflicts"], pa.string())
    members: dict[str, list[str]] = {}
    listed = pc.is_in(sources.table["group"], conflicts).to_numpy()
    for row in sources.rows(np.flatnonzero(listed & sources.written)):
        # Others are in this group because they are of the same patient, and are no copies.
        if "pixels" in row["tied_by"] or "near" in row["tied_by"]:
            members.setdefault(row["group"], []).append(row["filename"])
    return list(members.values())


def read_pictures(
    path: str, manifest: Mapping[str, Any], sources: SourceTable, names: Collection[str]
) -> dict[str, Thumbnail]:
    """Name -> thumbnail of the images with these names, of the data set in the folder `path`.

    Raises:
      UserError: a shard is missing or damaged.
    """
    wanted: dict[str, set[str]] = {}
    chosen = pc.is_in(sources.table["filename"], pa.array(sorted(names), pa.string())).to_numpy()
    for row in sources.rows(np.flatnonzero(chosen & sources.written)):
        wanted.setdefault(row["shard"], set()).add(row["filename"])
    return read_thumbnails(path, manifest, wanted, {})
