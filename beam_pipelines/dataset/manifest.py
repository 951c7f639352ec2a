"""Last step of a build: manifest, source list and TFDS metadata, from the passes' results."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from beam_pipelines.dataset.given_splits import describe_given_splits
from beam_pipelines.inputs.sources import Sources
from beam_pipelines.planning.grouping import (
    GROUP_REASONS,
    REJECTED,
    WRITTEN,
    Columns,
    has_ids,
)
from beam_pipelines.planning.plan import BuildPlan, describe_set_aside
from beam_pipelines.settings.config import BuildConfig
from beam_pipelines.shards.parts import Parts
from cxr_tfrecords import __version__, dataset_dir, files, splits, stats, tfds_metadata
from cxr_tfrecords.checks.manifest import dataset_fingerprint, manifest_digest
from cxr_tfrecords.concurrency import temporary
from cxr_tfrecords.decoding import rules

# Packages that can change a stored byte.
_BYTE_SHAPERS = ("opencv-python-headless", "pillow", "simplejpeg", "numpy")
# The manifest names at most this many groups and rejected files; sources.csv names all.
_LISTED = 1000


def sources_fingerprint(parts: Parts) -> str:
    """Hex digest of every source's name and bytes."""
    digest = hashlib.sha256()
    for table in parts.tables(["filename", "sha256", "reason"]):
        for name, sha256, reason in zip(*(c.to_pylist() for c in table.columns), strict=True):
            digest.update(f"{name}\0{sha256 or ''}\0{reason}\n".encode())
    return digest.hexdigest()


def make_manifest(
    plan: BuildPlan,
    columns: Columns,
    parts: Parts,
    config: BuildConfig,
    sources: Sources,
    entries: Sequence[dict[str, Any]],
    before: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Everything about a build that TFDS has no field for; without times, paths and host names, so
    that the same build gives the same manifest.

    Args:
      columns: of all rows of the plan; parts: of those that were read now.
      entries: one for each shard, as `WriteShard` wrote it, by split, label and number.
      before: manifest of the data set that was appended to.
    """
    image = {"size": config.image_size, "channels": config.channels, "encoding": config.encoding}
    if config.with_masks:
        image["mask"] = True
    rejected = np.flatnonzero(plan.outcome == REJECTED)
    listed = rejected[:_LISTED]
    names, reasons = (columns.strings(column, listed) for column in ("filename", "reason"))
    rejections = [{"file": n, "reason": r} for n, r in zip(names, reasons, strict=True)]
    ignored = list(sources.ignored[:_LISTED])
    if config.anonymize_names:  # neither names nor the order of the true ones
        rejections.sort(key=lambda one: one["file"])
        ignored = []
    if not has_ids(columns):
        config = dataclasses.replace(config, salt_id="")
    manifest = {
        "format": dataset_dir.FORMAT,
        "config": config.to_json(),
        "versions": {
            "cxr_tfrecords": __version__,
            **{name: importlib.metadata.version(name) for name in _BYTE_SHAPERS},
        },
        "pixel_rules": rules.VERSION,
        "class_names": list(plan.class_names),
        "class_slugs": list(plan.class_slugs),
        "image": image,
        "counts": plan.counts(),
        "prevalence": {
            s: "balanced" if s in config.balance_splits else "natural" for s in plan.split_names
        },
        "pixels": _pixel_moments(plan, parts, config, before),
        "statistics": {"intensity_histograms": _histograms(plan, parts, before)},
        "fingerprint": dataset_fingerprint(plan.class_names, image, entries),
        "shards": list(entries),
        "sources": {
            "found": len(columns),
            "written": int((plan.outcome == WRITTEN).sum()),
            "rejected": len(rejected),
            "set_aside": describe_set_aside(plan),
            "bytes": int(columns.numbers("num_bytes").sum()),
            "listing": sources.listed.digest,
            "fingerprint": sources_fingerprint(parts),
            "ignored": ignored,
            "left_out": dict(sources.left_out),
            "appended": [],
            **_appended_sources(plan, parts, sources, before),
        },
        "rejected": rejections,
        "warnings": _warnings(columns),
        "duplicates": _describe_duplicates(plan, columns, config),
        "split_proof": _split_proof(plan, config),
        "given_splits": describe_given_splits(plan, columns, config),
        "notes": list(dict.fromkeys([*(before or {}).get("notes", []), *plan.notes])),
    }
    return {**manifest, "digest": manifest_digest(manifest)}


def _warnings(columns: Columns) -> dict[str, Any]:
    """Warning -> how many files have it, and the names of the first."""
    texts = columns.strings("warning", np.arange(len(columns)))
    result = {}
    for text in sorted(set(texts) - {""}):
        rows = np.array([row for row, one in enumerate(texts) if one == text])
        names = columns.strings("filename", rows[:_LISTED])
        result[text] = {"files": len(rows), "first": names}
    return result


def _appended_sources(
    plan: BuildPlan, parts: Parts, sources: Sources, before: Mapping[str, Any] | None
) -> dict[str, Any]:
    """What changes at --append: the first listing stays, an entry for the new files is added."""
    if before is None:
        return {}
    appended = {
        "found": len(parts),
        "written": int((plan.outcome[plan.num_existing :] == WRITTEN).sum()),
        "left_out": dict(sources.left_out),
        "listing": sources.listed.digest,
        "fingerprint": sources_fingerprint(parts),
    }
    kept = ("listing", "fingerprint", "ignored", "left_out")
    earlier = before["sources"]
    return {
        **{name: earlier[name] for name in kept if name in earlier},
        "appended": [*earlier["appended"], appended],
    }


def _describe_duplicates(plan: BuildPlan, columns: Columns, config: BuildConfig) -> dict[str, Any]:
    sizes = np.bincount(plan.groups, minlength=len(plan.groups))
    shared = np.flatnonzero(sizes > 1)
    listed = np.isin(plan.groups, shared[:_LISTED]).nonzero()[0]
    groups: dict[str, list[str]] = {}
    for row, name in zip(listed.tolist(), columns.strings("filename", listed), strict=True):
        groups.setdefault(plan.group_id(row), []).append(name)
    return {
        "level": _level(config),
        "near_distance": config.near_distance,
        "images": int((sizes[shared] - 1).sum()),
        "num_groups": len(shared),
        "tied_by": {
            kind: int((plan.group_reasons & bit > 0).sum()) for kind, bit in GROUP_REASONS.items()
        },
        "groups": dict(sorted(groups.items())),
        "label_conflicts": [plan.group_id(row) for row in plan.conflicts[:_LISTED]],
        "num_label_conflicts": len(plan.conflicts),
    }


def _level(config: BuildConfig) -> str:
    if config.dedup == "off":
        return "none: copies were not looked for (--dedup=off)"
    if config.near_distance < 0:
        return "pixel-identical images, before or after resizing"
    return (
        "pixel-identical images, before or after resizing, and near-duplicates (perceptual "
        f"hashes that differ in at most {config.near_distance} of 256 bits)"
    )


def _split_proof(plan: BuildPlan, config: BuildConfig) -> dict[str, Any]:
    """Counted from the images as planned, not assumed."""
    seen = np.zeros((len(plan.groups), len(plan.split_names)), bool)
    written = plan.outcome == WRITTEN
    seen[plan.groups[written], plan.split[written]] = True
    unit = "single image" if config.dedup == "off" else "group of copies"
    if (plan.group_reasons & GROUP_REASONS["group"]).any():
        unit += ", united with the given groups (patients or the like)"
    elif config.dedup != "off":
        unit += "; patients are not known"
    return {
        "unit": unit,
        "groups": {s: int(seen[:, i].sum()) for i, s in enumerate(plan.split_names)},
        "groups_in_two_splits": int((seen.sum(axis=1) > 1).sum()),
    }


def _pixel_moments(
    plan: BuildPlan, parts: Parts, config: BuildConfig, before: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Mean and deviation per channel: of the training split, or of all folds and their sums."""
    old = before["pixels"] if before else {}
    if not config.folds:
        sums = _pixel_sums(plan, parts, config, splits.TRAIN, old)
        return {
            "of": "training split, 0..255, per channel",
            **dataset_dir.pixel_moments([sums]),
            **sums,
        }
    by_fold = {
        fold: _pixel_sums(plan, parts, config, fold, old.get("by_fold", {}).get(fold))
        for fold in plan.split_names
    }
    return {
        "of": "all folds, 0..255, per channel",
        **dataset_dir.pixel_moments(list(by_fold.values())),
        "by_fold": by_fold,
    }


def _pixel_sums(
    plan: BuildPlan,
    parts: Parts,
    config: BuildConfig,
    split: str,
    old: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Exact integer sums over a split, so that they are equal on every runner.

    Args:
      old: those of the data set that is appended to.
    """
    rows = (plan.outcome == WRITTEN) & (plan.split == plan.split_names.index(split))
    rows = rows[plan.num_existing :]
    pixels = int(rows.sum()) * config.image_size**2
    sums, squares = parts.sums(config.channels)[rows].sum(axis=0).tolist()
    if old:
        pixels += old["count"]
        sums = [a + b for a, b in zip(sums, old["sums"], strict=True)]
        squares = [a + b for a, b in zip(squares, old["sums_of_squares"], strict=True)]
    return {"count": pixels, "sums": sums, "sums_of_squares": squares}


def _histograms(
    plan: BuildPlan, parts: Parts, before: Mapping[str, Any] | None
) -> dict[str, list[int]]:
    """Class name -> 256 counts of the stored intensities."""
    old = before["statistics"]["intensity_histograms"] if before else {}
    return {
        name: (np.array(parts.histogram(label)) + old.get(name, 0)).tolist()
        for label, name in enumerate(plan.class_names)
    }


def write_metadata(output_dir: str, manifest: dict[str, Any], *, page: bool = True) -> None:
    """Writes the TFDS files, the statistics page and then the manifest, which marks the end.

    The shards and sources.csv are in the directory already.

    Args:
      page: whether to make the page; without, an earlier one is removed.
    """
    with temporary.folder("tfds") as scratch:
        tfds_metadata.write_tfds_metadata(output_dir, manifest, scratch)
    if page:
        stats.refresh(output_dir, manifest)
    else:
        stats.remove(output_dir)
    files.write_json(files.join(output_dir, dataset_dir.MANIFEST), manifest)


def unexpected_files(output_dir: str) -> list[str]:
    """Files in the directory that no build makes: they must not be deleted or mixed with shards."""
    expected = {
        dataset_dir.MANIFEST,
        dataset_dir.SOURCES,
        dataset_dir.LEFT_OUT,
        "dataset_info.json",
        "features.json",
        stats.NUMBERS,
        stats.PAGE,
    }
    return sorted(
        name
        for name in files.names(output_dir)
        if name not in expected
        and not name.startswith((f"{dataset_dir.NAME}-", ".build"))
        and not name.endswith(".labels.txt")
    )
