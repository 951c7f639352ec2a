"""Last step of a build: manifest, source list and TFDS metadata, from the passes' results."""

from __future__ import annotations

import csv
import hashlib
import importlib.metadata
import io
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from beam_pipelines.config import BuildConfig
from beam_pipelines.inspection import Inspection
from beam_pipelines.plan import BuildPlan
from beam_pipelines.workdir import write_lines
from cxr_tfrecords import __version__, dataset_dir, splits

# Packages that can change a stored byte.
_BYTE_SHAPERS = ("opencv-python-headless", "pillow", "simplejpeg", "numpy")

_SOURCE_COLUMNS = (
    "filename",
    "num_bytes",
    "sha256",
    "pixel_sha256",
    "height",
    "width",
    "format",
    "mode",
    "reason",
)


def sources_fingerprint(inspections: Sequence[Inspection]) -> str:
    """Hex digest of every source's name and bytes."""
    digest = hashlib.sha256()
    for one in inspections:
        digest.update(f"{one.filename}\0{one.sha256}\0{one.reason}\n".encode())
    return digest.hexdigest()


def make_manifest(
    plan: BuildPlan,
    config: BuildConfig,
    listing_digest: str,
    ignored: Sequence[str],
    entries: Sequence[dict[str, Any]],
) -> dict[str, Any]:
    """Everything about a build that TFDS has no place for; holds no time, path or host.

    Args:
      listing_digest: `Sources.listing_digest`.
      ignored: files and folders below the input folder that were passed over.
      entries: one a shard, as `WriteShard` noted it, in the plan's order.
    """
    image = {"size": config.image_size, "channels": config.channels, "encoding": config.encoding}
    mean, std = _pixel_moments(entries, config)
    return {
        "format": dataset_dir.FORMAT,
        "config": config.to_json(),
        "versions": {
            "cxr_tfrecords": __version__,
            **{name: importlib.metadata.version(name) for name in _BYTE_SHAPERS},
        },
        "class_names": list(plan.class_names),
        "class_slugs": list(plan.class_slugs),
        "image": image,
        "counts": plan.counts(),
        "pixels": {"mean": mean, "std": std, "of": "training split, 0..255, per channel"},
        "fingerprint": dataset_dir.dataset_fingerprint(plan.class_names, image, entries),
        "shards": list(entries),
        "sources": {
            "found": len(plan.inspections),
            "written": len(plan.assignments),
            "rejected": len(plan.rejected),
            "bytes": sum(one.num_bytes for one in plan.inspections),
            "listing": listing_digest,
            "fingerprint": sources_fingerprint(plan.inspections),
            "ignored": list(ignored),
        },
        "rejected": [{"file": one.filename, "reason": one.reason} for one in plan.rejected],
        "duplicates": {
            "level": "pixel-identical images, before or after resizing",
            "images": sum(len(own) - 1 for own in plan.groups.values()),
            "groups": plan.groups,
            "label_conflicts": plan.label_conflicts,
        },
        "split_proof": {
            "unit": "group of pixel-identical images; patients are not known",
            "groups": plan.num_groups,
            "groups_in_two_splits": _groups_in_two_splits(plan),
        },
    }


def write_finished(output_dir: str, plan: BuildPlan, manifest: dict[str, Any]) -> None:
    """Writes the TFDS files and the source list; the manifest last: it marks the end."""
    dataset_dir.write_tfds_metadata(output_dir, manifest)
    rows = io.StringIO()
    writer = csv.writer(rows, lineterminator="\n")
    writer.writerow(["class", "split", "shard", *_SOURCE_COLUMNS])
    for one in plan.inspections:
        place = plan.assignments.get(one.filename, ("", ""))
        values = [getattr(one, column) for column in _SOURCE_COLUMNS]
        writer.writerow([plan.class_names[one.label], *place, *values])
    write_lines(os.path.join(output_dir, dataset_dir.SOURCES), rows.getvalue().splitlines())
    dataset_dir.write_json(os.path.join(output_dir, dataset_dir.MANIFEST), manifest)


def unexpected_files(output_dir: str) -> list[str]:
    """Files in the directory that no build of ours makes: never to be deleted or mixed with."""
    known = {dataset_dir.MANIFEST, dataset_dir.SOURCES, "dataset_info.json", "features.json"}
    return sorted(
        name
        for name in tf.io.gfile.listdir(output_dir)
        if name.rstrip("/") not in known
        and not name.startswith((f"{dataset_dir.NAME}-", ".build"))
        and not name.endswith(".labels.txt")
    )


def _pixel_moments(
    entries: Sequence[dict[str, Any]], config: BuildConfig
) -> tuple[list[float], list[float]]:
    """Mean and deviation per channel, from exact integer sums: equal on every runner."""
    training = [entry for entry in entries if entry["split"] == splits.TRAIN]
    pixels = sum(entry["num_examples"] for entry in training) * config.image_size**2
    mean, std = [], []
    for channel in range(config.channels):
        total = sum(entry["pixel_sums"][channel] for entry in training)
        squares = sum(entry["pixel_square_sums"][channel] for entry in training)
        variance = (squares * pixels - total * total) / pixels**2
        mean.append(round(total / pixels, 6))
        std.append(round(float(np.sqrt(variance)), 6))
    return mean, std


def _groups_in_two_splits(plan: BuildPlan) -> int:
    """Counted from the shards as planned, not assumed."""
    seen: dict[str, set[str]] = {}
    for shard in plan.shards:
        for member in shard.members:
            seen.setdefault(member.group, set()).add(shard.split)
    return sum(len(where) > 1 for where in seen.values())
