"""What a data set's manifest.json must hold, and that its parts agree with each other."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cxr_tfrecords.checks import seal
from cxr_tfrecords.checks.json_schema import EVERY_KEY, Items, Number, OneOf, find_problem, show

_COUNT = Number(0)
_SHARE = Number(0, 1, whole=False)
_LEVELS = [Number(0, 255, whole=False)]
_SUMS = {"count": Number(1), "sums": [_COUNT], "sums_of_squares": [_COUNT]}
# Keys with "?" are newer than the first data sets of this format, or not in each of them.
_SCHEMA = {
    "class_names": [str],
    "class_slugs": [str],
    "config": {
        "balance_splits": [str],
        "channels": OneOf((1, 3)),
        "dedup": OneOf(("keep", "drop", "off")),
        "encoding": OneOf(("png", "raw", "jpeg")),
        "enhance": str,
        "folds?": OneOf((0, *range(3, 21))),
        "given_leaks?": OneOf(("refuse", "drop_from_train")),
        "image_size": Number(1),
        "label_conflicts": OneOf(("keep", "drop", "error")),
        "max_pixels": Number(1),
        "near_distance": Number(-1, 64),
        "num_shards": _COUNT,
        "patient_ids": bool,
        "salt_id": str,
        "seed": Number(),
        "shard_size": Number(1),
        "split": OneOf(("stratified", "hash")),
        "splits?": OneOf(("", "given", "own")),
        "test_fraction": _SHARE,
        "validation_fraction": _SHARE,
        "with_masks": bool,
    },
    "counts": {EVERY_KEY: {EVERY_KEY: _COUNT}},
    "digest?": str,
    "duplicates": {
        "groups": {EVERY_KEY: [str]},
        "images": _COUNT,
        "label_conflicts": [str],
        "level": str,
        "num_groups": _COUNT,
        "num_label_conflicts": _COUNT,
        "tied_by": {EVERY_KEY: _COUNT},
    },
    "fingerprint": str,
    "given_splits?": {"dropped": _COUNT, "images": _COUNT, "leaking_groups": _COUNT},
    "image": {
        "channels": OneOf((1, 3)),
        "encoding": OneOf(("png", "raw", "jpeg")),
        "mask?": bool,
        "size": Number(1, 2**15),
    },
    "notes?": [str],
    "pixel_rules?": Number(1),
    "pixels": {"by_fold?": {EVERY_KEY: _SUMS}, "mean": _LEVELS, "of": str, "std": _LEVELS},
    "prevalence": {EVERY_KEY: str},
    "rejected": [{"file": str, "reason": str}],
    "shards": [
        {
            "class": str,
            "digest": str,
            "file": str,
            "num_bytes": _COUNT,
            "num_examples": _COUNT,
            "split": str,
        }
    ],
    "sources": {
        "appended": [object],
        "bytes": _COUNT,
        "fingerprint": str,
        "found": _COUNT,
        "ignored": [str],
        "left_out?": {EVERY_KEY: _COUNT},
        "listing": str,
        "rejected": _COUNT,
        "set_aside": {EVERY_KEY: _COUNT},
        "written": _COUNT,
    },
    "split_proof": {"groups": {EVERY_KEY: _COUNT}, "groups_in_two_splits": _COUNT, "unit": str},
    "statistics": {"intensity_histograms": {EVERY_KEY: Items(_COUNT, 256)}},
    "versions": {EVERY_KEY: str},
    "warnings?": {EVERY_KEY: {"files": _COUNT, "first": [str]}},
}


def dataset_fingerprint(
    class_names: Sequence[str], image: Mapping[str, Any], shards: Sequence[Mapping[str, Any]]
) -> str:
    """Hex SHA-256 of all that a training depends on: the records, and how to read them."""
    content = {
        "class_names": list(class_names),
        "image": dict(image),
        "shards": [[s["file"], s["digest"]] for s in shards],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def manifest_digest(manifest: Mapping[str, Any]) -> str:
    """Hex SHA-256 of a manifest without its own `digest`, whatever its layout."""
    return seal.digest(manifest)


def find_manifest_problem(manifest: Any, splits_of_folds: Callable[[int], Sequence[str]]) -> str:
    """What is wrong with a manifest, naming key and value; empty if nothing is.

    Args:
      splits_of_folds: number of folds -> names of the splits.
    """
    problem = find_problem(manifest, _SCHEMA)
    if problem:
        return problem
    folds = manifest["config"].get("folds", 0)
    splits = splits_of_folds(folds)
    for find in (_find_in_classes, _find_in_shards, _find_in_counts, _find_in_pixels):
        problem = find(manifest, splits)
        if problem:
            return problem
    fingerprint = dataset_fingerprint(*(manifest[k] for k in ("class_names", "image", "shards")))
    if manifest["fingerprint"] != fingerprint:
        return (
            f"fingerprint is {show(manifest['fingerprint'])}, but class_names (and their order), "
            f"image and the files and digests of shards give {fingerprint}"
        )
    if manifest.get("digest", digest := manifest_digest(manifest)) != digest:
        return f"digest is {show(manifest['digest'])}, but the other keys give {digest}"
    return ""


def _find_in_classes(manifest: Mapping[str, Any], splits: Sequence[str]) -> str:
    names, slugs = manifest["class_names"], manifest["class_slugs"]
    if not names or len(set(names)) < len(names):
        return f"class_names is {show(names)}, not the different names of classes"
    if not len(set(slugs)) == len(slugs) == len(names):
        return f"class_slugs is {show(slugs)}, not a different text for each of class_names"
    return _other_keys(
        manifest["statistics"]["intensity_histograms"], names, "statistics.intensity_histograms"
    )


def _find_in_counts(manifest: Mapping[str, Any], splits: Sequence[str]) -> str:
    """Counts have each split and class, and the shards hold as many."""
    counts, names = manifest["counts"], manifest["class_names"]
    problem = _other_keys(counts, splits, "counts") or next(
        filter(None, (_other_keys(counts[s], names, f"counts.{s}") for s in splits)), ""
    )
    held: dict[tuple[str, str], int] = {}
    for entry in manifest["shards"]:
        key = entry["split"], entry["class"]
        held[key] = held.get(key, 0) + entry["num_examples"]
    for split, name in () if problem else ((s, n) for s in splits for n in names):
        if counts[split][name] != held.get((split, name), 0):
            return (
                f"counts.{split}.{name} is {counts[split][name]}, but num_examples of its shards "
                f"come to {held.get((split, name), 0)}"
            )
    sources = manifest["sources"]
    parts = sources["written"] + sources["rejected"] + sum(sources["set_aside"].values())
    if not problem and sources["found"] != parts:
        return (
            f"sources.found is {sources['found']}, but written, rejected and set_aside come to "
            f"{parts}"
        )
    return problem


def _find_in_shards(manifest: Mapping[str, Any], splits: Sequence[str]) -> str:
    """Each file is one of the shards of its split and class, and is listed once."""
    slug_of = dict(zip(manifest["class_names"], manifest["class_slugs"], strict=True))
    seen: set[str] = set()
    for index, entry in enumerate(manifest["shards"]):
        key, file = f"shards[{index}]", entry["file"]
        if entry["class"] not in slug_of:
            return f"{key}.class is {show(entry['class'])}, not one of class_names"
        if entry["split"] not in splits:
            return f"{key}.split is {show(entry['split'])}, not one of {', '.join(splits)}"
        stem = re.escape(f"{entry['split']}_{slug_of[entry['class']]}")
        if not re.fullmatch(rf"cxr-{stem}\.tfrecord-\d{{5,}}-of-\d{{5,}}", file) or file in seen:
            return (
                f"{key}.file is {show(file)}, not another shard of {entry['split']} and "
                f"{show(entry['class'])}"
            )
        seen.add(file)
    return ""


def _find_in_pixels(manifest: Mapping[str, Any], splits: Sequence[str]) -> str:
    """Each list of pixel figures has one item a channel, and `image` is what `config` asked for."""
    image, config, pixels = (manifest[key] for key in ("image", "config", "pixels"))
    same = ("size", "image_size"), ("channels", "channels"), ("encoding", "encoding")
    for key, setting in (*same, ("mask", "with_masks")):
        if image.get(key, False) != config[setting]:
            return (
                f"image.{key} is {show(image.get(key))}, but config.{setting} is "
                f"{show(config[setting])}"
            )
    if config.get("folds"):
        problem = _other_keys(pixels.get("by_fold", {}), splits, "pixels.by_fold")
        parts = {f"pixels.by_fold.{fold}": part for fold, part in pixels["by_fold"].items()}
    else:
        problem, parts = find_problem(pixels, _SUMS, "pixels"), {"pixels": pixels}
    lists = [(key, name, part) for key, part in parts.items() for name in list(_SUMS)[1:]]
    lists += [("pixels", name, pixels) for name in ("mean", "std")]
    for key, name, part in [] if problem else lists:
        if len(part[name]) != image["channels"]:
            return f"{key}.{name} is {show(part[name])}, not a number for each channel"
    return problem


def _other_keys(content: Mapping[str, Any], expected: Sequence[str], key: str) -> str:
    """A sentence about keys that are missing or unknown; empty where there are none."""
    if set(content) == set(expected):
        return ""
    return f"the keys of {key} are {show(list(content))}, not {show(list(expected))}"
