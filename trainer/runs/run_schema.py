"""What the JSON files of a run must hold, compared where `finished_run` reads them."""

from __future__ import annotations

import dataclasses
from typing import Any

from cxr_tfrecords.checks.json_schema import EVERY_KEY, Number, OneOf, Optional, find_problem
from trainer.runs import run_files
from trainer.settings.config import TrainConfig

_SPLITS = ("train", *run_files.SPLITS)
_COUNT = Number(0)
_FIGURE = Optional(Number(whole=False))
# A caller in Python may give 0.0 for a whole number.
_TYPES = {"str": str, "bool": bool, **dict.fromkeys(("int", "float"), Number(whole=False))}


def _of_settings() -> dict[str, Any]:
    """The schema of `TrainConfig.to_json`: its values are compared with their bounds later."""
    result: dict[str, Any] = {}
    for field in dataclasses.fields(TrainConfig):
        kind, _, optional = str(field.type).partition(" | ")
        schema = _TYPES.get(kind, object)
        result[f"{field.name}?"] = Optional(schema) if optional == "None" else schema
    return result


_CONFIG = {
    "config": _of_settings(),
    "versions": {EVERY_KEY: str},
    "dataset": {
        "path": str,
        "fingerprint": str,
        "class_names": [str],
        "counts": {split: [_COUNT] for split in _SPLITS},
        "image_size": Number(1, 2**15),
        "channels": OneOf((1, 3)),
        "split_unit?": str,
        "balanced_splits?": [str],
        "folds?": Number(0, 20),
        "reading?": {
            "image_size": Number(1, 2**15),
            "channels": OneOf((1, 3)),
            "enhance?": str,
            "encoding?": str,
        },
    },
    "decoupled?": Optional({"method": str, "from_run": str, "from_config": _of_settings()}),
}
_METRICS = {
    split: {
        **dict.fromkeys(("accuracy", "log_loss"), Number(whole=False)),
        **dict.fromkeys(("balanced_accuracy", "macro_f1"), _FIGURE),
        "confusion_matrix": [[_COUNT]],
        "per_class": {EVERY_KEY: {EVERY_KEY: _FIGURE}},
    }
    for split in run_files.SPLITS
}
_SAMPLES = {name: [_COUNT] for name in ("natural", "planned", "realised", "unique")}
_AUDIT = {"natural_counts": [_COUNT], "epochs": [{EVERY_KEY: object}]}
_PART = {"name": str, "layers": _COUNT, "shape": [_COUNT], "parameters": _COUNT, "trained": _COUNT}
_SCHEMAS = {
    run_files.NETWORK: {"parts": [_PART]},
    run_files.CONFIG: _CONFIG,
    run_files.METRICS: _METRICS,
    run_files.SAMPLER_COUNTS: _SAMPLES,
    run_files.SAMPLER_AUDIT: _AUDIT,
}


def find_run_problem(name: str, content: Any, class_names: list[str] | None = None) -> str:
    """What is wrong with a JSON file of a run, naming key and value; empty if nothing is.

    Args:
      name: of the file in its run directory. class_names: of the run; None: `content` has them.
    """
    problem = find_problem(content, _SCHEMAS[name])
    if problem:
        return problem
    names = content["dataset"]["class_names"] if class_names is None else class_names
    for key, values in _lists_by_class(name, content):
        if len(values) != len(names):
            return f"{key} has {len(values)} items, not one for each of {len(names)} classes"
    return ""


def _lists_by_class(name: str, content: Any) -> list[tuple[str, Any]]:
    """(key, list or object with an item for each class) of a file."""
    if name == run_files.CONFIG:
        counts = content["dataset"]["counts"]
        return [(f"dataset.counts.{split}", counts[split]) for split in _SPLITS]
    if name == run_files.METRICS:
        return [
            (f"{split}.{key}", values)
            for split in run_files.SPLITS
            for key, matrix in [(k, content[split][k]) for k in ("confusion_matrix", "per_class")]
            for values in [matrix, *(matrix if key == "confusion_matrix" else ())]
        ]
    if name == run_files.SAMPLER_COUNTS:
        return [(key, content[key]) for key in _SAMPLES]
    if name == run_files.SAMPLER_AUDIT:
        return [("natural_counts", content["natural_counts"])]
    return []
