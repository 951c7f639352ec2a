"""What the JSON files of a run must hold, compared where `finished_run` reads them."""

from __future__ import annotations

import dataclasses
from typing import Any

from cxr_tfrecords.checks.json_schema import (
    EVERY_KEY,
    Number,
    OneOf,
    Optional,
    Pair,
    TextOr,
    find_problem,
)
from trainer.runs import run_files
from trainer.settings.config import TrainConfig

_SPLITS = ("train", *run_files.SPLITS)
_COUNT = Number(0)
_NUMBER = Number(whole=False)
_FIGURE = Optional(_NUMBER)
# By the annotation of a setting. A caller in Python may give 0.0 for a whole number.
_TYPES = {
    "str": str,
    "bool": bool,
    **dict.fromkeys(("int", "float"), _NUMBER),
    **dict.fromkeys(("int | None", "float | None"), _FIGURE),
    "tuple[int, ...]": [_NUMBER],
    "tuple[str, ...]": [str],
    "tuple[tuple[str, str], ...]": [Pair(str)],
    "tuple[tuple[str, float], ...]": [Pair(_NUMBER)],
    **dict.fromkeys(
        ("tuple[tuple[str, int], ...] | str", "tuple[tuple[str, float], ...] | str"),
        TextOr([Pair(_NUMBER)]),
    ),
}


def _of_settings() -> dict[str, Any]:
    """The schema of `TrainConfig.to_json`: its values are compared with their bounds later."""
    return {f"{field.name}?": _TYPES[str(field.type)] for field in dataclasses.fields(TrainConfig)}


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
        "pixel_rules?": Optional(_COUNT),
    },
    "decoupled?": Optional(
        {
            "method": str,
            "from_run": str,
            "from_config": _of_settings(),
            "flags?": {EVERY_KEY: object},
            "first_stage_updates?": _COUNT,
        }
    ),
}
# What `decoupled` holds besides, by its method.
_TAU = Number(0, whole=False)
_DECOUPLED: dict[str, dict[str, Any]] = {
    "crt": {},
    "tau_norm": {"tau": _TAU, "tau_from?": str},
    "posthoc_logit_adjusted": {"tau": _TAU, "priors": [Number(1e-300, 1, whole=False)]},
}
_OF_A_CLASS = {
    "support": _COUNT,
    **dict.fromkeys(("recall", "precision", "specificity", "f1", "auroc", "auprc"), _FIGURE),
    **dict.fromkeys(("calibration_intercept", "calibration_slope"), _FIGURE),
}
_METRICS = {
    split: {
        **dict.fromkeys(("accuracy", "log_loss"), _NUMBER),
        **dict.fromkeys(
            ("balanced_accuracy", "macro_f1", "mcc", "auroc_macro", "auprc_macro", "brier"),
            _FIGURE,
        ),
        "confusion_matrix": [[_COUNT]],
        "per_class": {EVERY_KEY: _OF_A_CLASS},
    }
    for split in run_files.SPLITS
}
_COUNTS_OF_EPOCH = ("planned_counts", "unique_so_far")
_SHARES_OF_EPOCH = ("planned_shares", "realised_shares")
_SAMPLES = {name: [_COUNT] for name in ("natural", "planned", "realised", "unique")}
_EPOCH = {
    "epoch": _COUNT,
    "largest_repeat": _COUNT,
    "read_amplification": _NUMBER,
    **{key: [_COUNT] for key in _COUNTS_OF_EPOCH},
    **{key: [_NUMBER] for key in _SHARES_OF_EPOCH},
}
_AUDIT = {"class_names": [str], "natural_counts": [_COUNT], "epochs": [_EPOCH]}
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
    if name == run_files.CONFIG and (problem := _find_in_settings(content)):
        return problem
    names = content["dataset"]["class_names"] if class_names is None else class_names
    if name == run_files.METRICS and (problem := _find_other_class(content, names)):
        return problem
    for key, values in _lists_by_class(name, content):
        if len(values) != len(names):
            return f"{key} has {len(values)} items, not one for each of {len(names)} classes"
    return ""


def _find_in_settings(content: dict[str, Any]) -> str:
    """As `find_run_problem`, of parts of config.json that only some runs have."""
    fold, folds = content["config"].get("fold"), content["dataset"].get("folds", 0)
    if fold is not None and fold >= folds:
        return f"config.fold is {fold}, and dataset.folds {folds}"
    if not (decoupled := content.get("decoupled")):
        return ""
    key = "decoupled.method"
    return find_problem(decoupled["method"], OneOf(_DECOUPLED), key) or find_problem(
        decoupled, _DECOUPLED[decoupled["method"]], "decoupled"
    )


def _find_other_class(content: dict[str, Any], names: list[str]) -> str:
    """As `find_run_problem`, of the names of the classes in metrics.json."""
    for split in run_files.SPLITS:
        missing = [name for name in names if name not in content[split]["per_class"]]
        if missing:
            return f"{split}.per_class.{missing[0]} is missing"
    return ""


def _lists_by_class(name: str, content: Any) -> list[tuple[str, Any]]:
    """(key, list or object with an item for each class) of a file."""
    if name == run_files.CONFIG:
        counts = content["dataset"]["counts"]
        priors = (content.get("decoupled") or {}).get("priors")
        return [
            *((f"dataset.counts.{split}", counts[split]) for split in _SPLITS),
            *([("decoupled.priors", priors)] if isinstance(priors, list) else []),
        ]
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
        return [
            *((key, content[key]) for key in ("class_names", "natural_counts")),
            *(
                (f"epochs[{i}].{key}", epoch[key])
                for i, epoch in enumerate(content["epochs"])
                for key in _COUNTS_OF_EPOCH + _SHARES_OF_EPOCH
            ),
        ]
    return []
