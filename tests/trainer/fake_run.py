"""The files of a finished run, made up in milliseconds."""

from __future__ import annotations

import csv
import dataclasses
import functools
import json
import os
import tempfile

import numpy as np

from trainer.evaluation.predictions import Predictions, compute_metrics, write_predictions
from trainer.settings.config import TrainConfig

CLASSES = ["COVID", "Lung_Opacity", "Normal", "Viral Pneumonia"]
COUNTS = {
    "train": [2379, 3825, 6509, 832],
    "validation": [584, 971, 1614, 218],
    "test": [694, 1188, 2075, 276],
}
PLANNED = [7137, 7650, 6509, 6656]
PARTS = [
    {"name": name, "layers": layers, "shape": shape, "parameters": size, "trained": trained}
    for name, layers, shape, size, trained in (
        ("image", 1, [96, 96, 1], 0, 0),
        ("mobilenet_v2, 48 px", 12, [48, 48, 96], 5_000, 0),
        ("mobilenet_v2, 3 px", 140, [3, 3, 1280], 2_252_984, 0),
        ("pool (GlobalAveragePooling2D)", 1, [1280], 0, 0),
        ("logits (Dense)", 1, [4], 5_124, 5_124),
    )
]
LOSSES = (0.71, 0.52, 0.44, 0.46, 0.41, 0.43, 0.42, 0.44)
RATES = (1e-3, 1e-3, 1e-3, 1e-3, 1e-4, 1e-4, 1e-5, 1e-6)


def of(data) -> dict:
    """What config.json says of a data set that is there, for `write_run(dataset=…)`."""
    return {
        "path": data.path,
        "fingerprint": data.fingerprint,
        "image_size": data.image_size,
        "reading": dataclasses.asdict(data.reading),
    }


def write_run(
    directory: str | os.PathLike[str],
    *,
    class_names=CLASSES,
    counts=COUNTS,
    planned=PLANNED,
    steps: int = 873,
    rng_seed: int = 0,
    dataset=None,
    ids=None,
    **settings,
) -> str:
    """Writes what `trainer.main` leaves, less model and checkpoints; returns the path.

    Args:
      planned: training images of each class after sampling; steps: of an epoch.
      rng_seed: of the predictions; ids: split -> file names of its images.
      dataset: more of config.json's `dataset`, such as its path.
      settings: of `TrainConfig`.
    """
    path = os.fspath(directory)
    os.makedirs(path, exist_ok=True)
    config = TrainConfig(
        data_dir="data/radiographs",
        **{"run_dir": path, "sampler": "oversample", "backbone": "mobilenet_v2", **settings},
    )
    _write_json(
        path,
        "config.json",
        {
            "config": config.to_json(),
            "versions": {"python": "3.11", "tensorflow": "2.21"},
            "dataset": {
                "path": "/data/radiographs",
                "fingerprint": "0123456789abcdef0123",
                "class_names": list(class_names),
                "counts": counts,
                "image_size": 96,
                "channels": 1,
                "split_unit": "",
                "balanced_splits": [],
                **(dataset or {}),
            },
        },
    )
    natural = counts["train"]
    samples = {
        "natural": natural,
        "planned": planned,
        "realised": [max(n - 5, 1) for n in planned],
        "unique": [min(n, max(p - 5, 1)) for n, p in zip(natural, planned, strict=True)],
    }
    _write_json(path, "sampler_counts.json", samples)
    _write_history(path, steps)
    splits = ("validation", "test")
    tables, metrics = _predictions(
        tuple(class_names),
        tuple((split, tuple(counts[split])) for split in splits),
        rng_seed,
        tuple(tuple(ids[split]) for split in splits) if ids else None,
    )
    for split, table in tables.items():
        with open(os.path.join(path, f"predictions_{split}.csv"), "wb") as file:
            file.write(table)
    _write_json(path, "metrics.json", metrics)
    _write_json(path, "network.json", {"parts": PARTS})
    with open(os.path.join(path, "report.md"), "w", encoding="utf-8") as file:
        file.write("# A run that was made up\n")
    return path


@functools.lru_cache(maxsize=16)
def _predictions(class_names, counts, rng_seed: int, ids) -> tuple[dict, dict]:
    """By split: the file of predictions as bytes, and their metrics. Most runs have the same."""
    rng = np.random.default_rng(rng_seed)
    tables, metrics = {}, {}
    for number, (split, of_classes) in enumerate(counts):
        classes = len(class_names)
        labels = np.repeat(np.arange(classes, dtype=np.int32), of_classes)
        logits = rng.normal(0, 1, (len(labels), classes)) + 3.0 * np.eye(classes)[labels]
        logits[:, 1] += 0.8 * (labels == 2)
        names = list(ids[number]) if ids else [f"{split}-{i}.png" for i in range(len(labels))]
        predictions = Predictions(names, labels, logits.astype(np.float32))
        with tempfile.TemporaryDirectory() as folder:
            name = os.path.join(folder, "predictions.csv")
            write_predictions(name, predictions, class_names)
            with open(name, "rb") as file:
                tables[split] = file.read()
        metrics[split] = compute_metrics(predictions, class_names)
    return tables, metrics


def _write_json(path: str, name: str, content) -> None:
    with open(os.path.join(path, name), "w", encoding="utf-8") as file:
        json.dump(content, file)


def _write_history(path: str, steps: int) -> None:
    with open(os.path.join(path, "history.csv"), "w", newline="", encoding="utf-8") as file:
        rows = [
            {
                "epoch": i + 1,
                "step": steps * (i + 1),
                "learning_rate": rate,
                "loss": loss - 0.1 - 0.03 * i,
                "accuracy": 0.78 + 0.02 * i,
                "validation_loss": loss,
                "validation_accuracy": 1.0 - loss / 2.5,
                "validation_balanced_accuracy": 1.01 - loss / 2.4,
                "seconds": 61.5,
            }
            for i, (loss, rate) in enumerate(zip(LOSSES, RATES, strict=True))
        ]
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
