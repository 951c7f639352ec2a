"""Pictures of a finished run, from the files in its directory.

Colours are Okabe and Ito's, told apart with any colour vision; shape, hatching or a label says
the same once more. Matplotlib is imported where it is needed, so that training starts quickly.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from trainer.finished_run import SPLITS, FinishedRun, read_run

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BLUE, _ORANGE, _GREEN, _GRAY = "#0072B2", "#D55E00", "#009E73", "#8C8C8C"
_STYLE = {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#E4E4E4",
    "figure.dpi": 150,
    "hatch.linewidth": 0.6,
    "hatch.color": "white",
    # An image of a report must not change when nothing else does.
    "svg.hashsalt": "cxr",
}


def write_pictures(run_dir: str) -> list[str]:
    """Writes class_counts.png, training_curves.png and confusion_matrix_{validation,test}.png.

    Returns:
      The paths written.

    Raises:
      UserError: the run directory lacks a file.
    """
    import matplotlib

    run = read_run(run_dir)
    paths = []
    with matplotlib.rc_context(_STYLE):
        figures = {
            "class_counts": _draw_class_counts(run),
            "training_curves": _draw_training_curves(run),
        }
        figures |= {f"confusion_matrix_{split}": _draw_confusion(run, split) for split in SPLITS}
        for name, figure in figures.items():
            paths.append(os.path.join(run_dir, f"{name}.png"))
            figure.savefig(paths[-1], metadata={"Software": None})
    return paths


def _new_figure(width: float, height: float) -> Figure:
    """A figure outside pyplot, which would keep it alive and pick a window system."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _draw_class_counts(run: FinishedRun) -> Figure:
    natural, planned, unique = (
        np.array(run.samples[key]) for key in ("natural", "planned", "unique")
    )
    unique = np.minimum(unique, planned)
    rows = np.arange(len(natural))
    figure = _new_figure(8, 1.5 + 0.75 * len(rows))
    axes = figure.add_subplot()
    bar = {"height": 0.36, "linewidth": 0}
    axes.barh(rows - 0.2, natural, color=_GRAY, label="before: the training split", **bar)
    axes.barh(rows + 0.2, unique, color=_BLUE, label="after: different images", **bar)
    if (planned > unique).any():
        axes.barh(
            rows + 0.2,
            planned - unique,
            left=unique,
            color="#6FB1D9",
            hatch="////",
            label="after: repeats of them",
            **bar,
        )
    for row in rows:
        _label_bar(axes, natural[row], row - 0.2, f"{natural[row]:,}")
        share = f"{planned[row]:,}  ({planned[row] / max(planned.sum(), 1):.0%})"
        _label_bar(axes, planned[row], row + 0.2, share)
    axes.set_yticks(rows, run.class_names)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.set_xlim(0, 1.14 * max(natural.max(), planned.max()))
    axes.set_xlabel("images in an epoch")
    axes.set_title(
        f"Training images before and after sampling ({run.config.sampler}): "
        f"n = {natural.sum():,} → {planned.sum():,}"
    )
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    return figure


def _label_bar(axes: Axes, length: int, row: float, text: str) -> None:
    axes.annotate(
        text, (length, row), xytext=(4, 0), textcoords="offset points", va="center", fontsize=9
    )


def _draw_training_curves(run: FinishedRun) -> Figure:
    epochs = [int(row["epoch"]) for row in run.history]
    best = int(run.best["epoch"])
    figure = _new_figure(9.5, 4.2)
    panels = figure.subplots(1, 2)
    lines = {
        "loss": (("loss", "validation_loss"), "cross-entropy (nats)"),
        "accuracy": (("accuracy", "validation_accuracy", "validation_balanced_accuracy"), ""),
    }
    styles = {
        "loss": (_ORANGE, "o", "-", f"training (sampler {run.config.sampler})"),
        "validation_loss": (_BLUE, "s", "-", "validation (natural prevalence)"),
        "validation_balanced_accuracy": (_GREEN, "^", "--", "validation, balanced accuracy"),
    }
    styles["accuracy"], styles["validation_accuracy"] = styles["loss"], styles["validation_loss"]
    for axes, (title, (columns, unit)) in zip(panels, lines.items(), strict=True):
        for column in columns:
            color, marker, dashes, label = styles[column]
            values = [row[column] for row in run.history]
            axes.plot(
                epochs, values, color=color, marker=marker, ls=dashes, ms=4, lw=1.6, label=label
            )
        axes.set_title(f"{title.capitalize()}")
        axes.set_xlabel("epoch")
        axes.set_ylabel(unit or "share of images")
        axes.set_xlim(epochs[0] - 0.5, epochs[-1] + 0.5)
        axes.xaxis.get_major_locator().set_params(integer=True)
        _mark_epochs(axes, run.history, best)
    train, validation = (sum(run.dataset["counts"][s]) for s in ("train", "validation"))
    figure.suptitle(
        f"{run.config.backbone}, seed {run.config.seed}: {train:,} training and {validation:,} "
        f"validation images, best epoch {best} by {run.config.monitor.replace('_', ' ')}",
        fontsize=11,
    )
    handles, labels = panels[1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    return figure


def _mark_epochs(axes: Axes, history: Sequence[dict[str, float]], best: int) -> None:
    """Marks the best epoch, and where the learning rate fell."""
    edge = {"textcoords": "offset points", "fontsize": 8, "va": "top"}
    axes.axvline(best, color="black", lw=1)
    axes.annotate(
        "best", (best, 1), (3, -2), xycoords=("data", "axes fraction"), color="black", **edge
    )
    for before, after in itertools.pairwise(history):
        if after["learning_rate"] < before["learning_rate"]:
            between = after["epoch"] - 0.5
            axes.axvline(between, color=_GRAY, lw=1, ls=":")
            axes.annotate(
                f"LR {after['learning_rate']:g}",
                (between, 1),
                (2, -14),
                xycoords=("data", "axes fraction"),
                color="#555555",
                rotation=90,
                **edge,
            )


def _draw_confusion(run: FinishedRun, split: str) -> Figure:
    metrics: dict[str, Any] = run.metrics[split]
    counts = np.array(metrics["confusion_matrix"])
    totals = counts.sum(axis=1, keepdims=True)
    shares = counts / np.maximum(totals, 1)
    names = run.class_names
    side = 2.6 + 1.05 * len(names)
    figure = _new_figure(side, side - 0.6)
    axes = figure.add_subplot()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(*counts.shape):
        axes.text(
            column,
            row,
            f"{counts[row, column]:,}\n{shares[row, column]:.1%}",
            ha="center",
            va="center",
            color="white" if shares[row, column] > 0.55 else "#222222",
            fontweight="bold" if row == column else "normal",
        )
    ticks = range(len(names))
    axes.set_xticks(ticks, names, rotation=20, ha="right", rotation_mode="anchor")
    axes.set_yticks(ticks, [f"{n}\n(n = {t:,})" for n, t in zip(names, totals[:, 0], strict=True)])
    axes.grid(visible=False)
    axes.tick_params(length=0)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    axes.set_title(
        f"Confusion matrix, {split} split, n = {counts.sum():,}\n"
        f"accuracy {metrics['accuracy']:.1%}, balanced {metrics['balanced_accuracy']:.1%}"
    )
    scale = figure.colorbar(image, ax=axes, shrink=0.8, label="share of the true class")
    scale.ax.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    return figure
