"""Pictures of a run, drawn from the files in its directory and from nothing else."""

from __future__ import annotations

import csv
import json
import os
from typing import Any

import numpy as np

# Okabe and Ito's colours: told apart by colour-blind readers and in gray.
_BLUE, _ORANGE, _GREEN = "#0072B2", "#E69F00", "#009E73"


def write_pictures(run_dir: str) -> list[str]:
    """Writes class_counts.png, training_curves.png and confusion_matrix_{split}.png.

    Returns:
      The paths written.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    names = _read(run_dir, "config.json")["dataset"]["class_names"]
    counts = _read(run_dir, "sampler_counts.json")
    metrics = _read(run_dir, "metrics.json")
    with open(os.path.join(run_dir, "history.csv"), newline="") as file:
        history = list(csv.DictReader(file))
    paths = [_class_counts(run_dir, names, counts), _training_curves(run_dir, history)]
    paths += [_confusion(run_dir, split, names, metrics[split]) for split in metrics]
    return paths


def _read(run_dir: str, name: str) -> dict[str, Any]:
    with open(os.path.join(run_dir, name)) as file:
        return json.load(file)


def _save(figure: Any, run_dir: str, name: str) -> str:
    import matplotlib.pyplot as plt

    path = os.path.join(run_dir, name)
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return path


def _class_counts(run_dir: str, names: list[str], counts: dict[str, list[int]]) -> str:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 3.6), layout="constrained")
    places = np.arange(len(names))
    for offset, key, colour, label in (
        (-0.2, "natural", _BLUE, "training split"),
        (0.2, "realised", _ORANGE, "one epoch of the sampler"),
    ):
        axes.bar_label(axes.bar(places + offset, counts[key], 0.38, color=colour, label=label))
    axes.set_xticks(places, names)
    axes.set_ylabel("images")
    axes.set_title("Class counts before and after sampling")
    axes.margins(y=0.12)
    axes.legend(frameon=False)
    return _save(figure, run_dir, "class_counts.png")


def _training_curves(run_dir: str, history: list[dict[str, str]]) -> str:
    import matplotlib.pyplot as plt

    epochs = [int(row["epoch"]) for row in history]
    figure, panels = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for axes, key in zip(panels, ("loss", "accuracy"), strict=True):
        for prefix, colour, label in (
            ("", _BLUE, "training"),
            ("validation_", _ORANGE, "validation"),
        ):
            values = [float(row[prefix + key]) for row in history]
            axes.plot(epochs, values, "o-", color=colour, label=label, markersize=4)
        axes.set_xlabel("epoch")
        axes.set_title(key)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.legend(frameon=False)
    rates = [float(row["learning_rate"]) for row in history]
    for before, after, epoch in zip(rates, rates[1:], epochs[1:], strict=False):
        if after < before:
            for axes in panels:
                axes.axvline(epoch - 0.5, color=_GREEN, linestyle=":", linewidth=1)
    figure.suptitle("Training (dotted: the learning rate was lowered)")
    return _save(figure, run_dir, "training_curves.png")


def _confusion(run_dir: str, split: str, names: list[str], metrics: dict[str, Any]) -> str:
    import matplotlib.pyplot as plt

    matrix = np.array(metrics["confusion_matrix"])
    share = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    figure, axes = plt.subplots(figsize=(5.6, 5), layout="constrained")
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(*matrix.shape):
        axes.text(
            column,
            row,
            f"{matrix[row, column]:,}\n{share[row, column]:.0%}",
            ha="center",
            va="center",
            color="white" if share[row, column] > 0.55 else "black",
        )
    axes.set_xticks(range(len(names)), names, rotation=20)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.set_title(f"{split}: {matrix.sum():,} images, percent of each true class")
    return _save(figure, run_dir, f"confusion_matrix_{split}.png")
