"""Pictures of a finished run, from the files in its directory.

Colours are those of Okabe and Ito, which people with any colour vision can distinguish; shapes,
hatching or labels show the same information. Matplotlib is imported where it is needed, so that
training starts quickly.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cxr_tfrecords.files import replacing
from cxr_tfrecords.pages.class_lists import DRAWN, ROWS
from cxr_tfrecords.pages.figures import COLORS, new_figure
from cxr_tfrecords.pages.plot_style import STYLE
from trainer.balancing.sampler_table import SAMPLERS
from trainer.runs.finished_run import FinishedRun, read_run
from trainer.runs.network import draw_network
from trainer.runs.run_files import SPLITS
from trainer.runs.training_priors import planned_in_last_epoch

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BLUE, _ORANGE, _GREEN = COLORS[:3]
_LIGHT_BLUE, _LIGHT_ORANGE, _GRAY = "#6FB1D9", "#EE9A60", "#8C8C8C"
_STYLE = {
    **STYLE,
    "figure.dpi": 150,
    "hatch.linewidth": 0.6,
    "hatch.color": "white",
}


def write_pictures(run_dir: str) -> list[str]:
    """Writes class_counts.png, training_curves.png, confusion_matrix_{validation,test}.png,
    roc_test.png, reliability_test.png and network.png.

    Returns:
      The paths written.

    Raises:
      UserError: the run directory lacks a file.
    """
    import matplotlib

    from trainer.runs.curve_pictures import draw_reliability, draw_roc  # they need scipy

    run = read_run(run_dir)
    paths = []
    with matplotlib.rc_context(_STYLE):
        figures = {
            "class_counts": draw_class_counts(run),
            "training_curves": draw_training_curves(run),
        }
        if len(run.class_names) <= ROWS:  # report.md has a table instead
            figures |= {f"confusion_matrix_{split}": draw_confusion(run, split) for split in SPLITS}
        figures |= {"roc_test": draw_roc(run), "reliability_test": draw_reliability(run)}
        if run.network:
            figures["network"] = draw_network(run, run.network)
        for name, figure in figures.items():
            paths.append(os.path.join(run_dir, f"{name}.png"))
            with replacing(paths[-1]) as temporary:
                figure.savefig(temporary, format="png", metadata={"Software": None})
    return paths


def write_sampling_picture(
    path: str, class_names: Sequence[str], natural: Sequence[int], sampled: dict[str, Sequence[int]]
) -> None:
    """Writes a PNG of the classes before and after each sampler (Wuisan et al. 2022, Figures 1-3).

    Args:
      natural: training images of each class.
      sampled: title of a panel -> images of each class after sampling.
    """
    import matplotlib

    with matplotlib.rc_context(_STYLE), replacing(path) as temporary:
        figure = _draw_sampling(class_names, natural, sampled)
        figure.savefig(temporary, format="png", metadata={"Software": None})


def _draw_sampling(
    class_names: Sequence[str], natural: Sequence[int], sampled: dict[str, Sequence[int]]
) -> Figure:
    columns = min(len(sampled), 3)
    figure = new_figure(1.4 + 3.4 * columns, 0.9 + 2.9 * -(-len(sampled) // columns))
    panels = figure.subplots(
        -(-len(sampled) // columns), columns, squeeze=False, sharey=True
    ).ravel()
    positions = np.arange(len(class_names))
    top = max(max(natural), *map(max, sampled.values()))
    for axes, (title, counts) in zip(panels, sampled.items(), strict=False):
        bars = ((-0.2, natural, _GRAY, "before sampling"), (0.2, counts, _BLUE, "after sampling"))
        for offset, heights, color, label in bars:
            axes.bar(positions + offset, heights, width=0.38, color=color, label=label, linewidth=0)
            for position, height in zip(positions, heights, strict=True):
                axes.annotate(
                    f"{height:,}",
                    (position + offset, height),
                    xytext=(0, 2),
                    textcoords="offset points",
                    ha="center",
                    va="bottom",
                    rotation=90,
                    fontsize=8,
                )
        axes.set_title(f"{title}\nn = {sum(natural):,} → {sum(counts):,}")
        axes.set_xticks(
            positions, [name.replace(" ", "\n").replace("_", "_\n") for name in class_names]
        )
        axes.set_ylim(0, 1.25 * top)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axes.grid(visible=False, axis="x")
    for axes in panels[len(sampled) :]:
        axes.set_visible(False)
    panels[0].set_ylabel("images in an epoch")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
    return figure


def draw_class_counts(run: FinishedRun) -> Figure:
    """Training images of each class before and after sampling; repeats are drawn separately.

    Where class shares change by epoch, the first epoch and the last one are shown.
    """
    shown = run.shown_classes(DRAWN)
    totals = [sum(run.samples["natural"]), *(counts.sum() for counts, _ in _sampled(run).values())]
    natural = np.array(run.samples["natural"])[shown]
    sampled = {when: (a[shown], b[shown]) for when, (a, b) in _sampled(run).items()}
    rows, step = np.arange(len(natural)), 0.8 / (1 + len(sampled))
    figure = new_figure(8, 1.7 + 0.36 * (1 + len(sampled)) * len(rows))
    axes = figure.add_subplot()
    bar: Any = {"height": 0.9 * step, "linewidth": 0}
    top = (step - 0.8) / 2
    axes.barh(rows + top, natural, color=_GRAY, label="before: the training split", **bar)
    _label_bars(axes, natural, rows + top, totals[0])
    shades = ((_BLUE, _LIGHT_BLUE), (_ORANGE, _LIGHT_ORANGE))
    for number, ((when, counts), colors) in enumerate(zip(sampled.items(), shades, strict=False)):
        planned, different = counts
        at, repeats = rows + top + (number + 1) * step, planned - different
        axes.barh(at, different, color=colors[0], label=f"{when}: different images", **bar)
        if repeats.max() > 0.5:
            style: Any = {"color": colors[1], "hatch": "////", "label": f"{when}: the same again"}
            axes.barh(at, repeats, left=different, **style, **bar)
        _label_bars(axes, planned, at, totals[number + 1])
    axes.set_yticks(rows, [run.class_names[c] for c in shown])
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.set_xlim(0, 1.16 * max(natural.max(), *(planned.max() for planned, _ in sampled.values())))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set_xlabel("images in an epoch")
    axes.set_title(
        f"Training split before and after sampling\n"
        f"sampler {run.config.sampler}, n = {' → '.join(f'{total:,}' for total in totals)}"
    )
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    return figure


def _sampled(run: FinishedRun) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """When -> images of each class after sampling, and how many of them are different images."""
    planned, realised, unique = (
        np.array(run.samples[key]) for key in ("planned", "realised", "unique")
    )
    # `unique` counts the first epoch without its last, partial batch: scale it to the whole plan.
    first = planned, planned * unique / np.maximum(realised, 1)
    if not SAMPLERS[run.config.sampler].varies_by_epoch:
        return {"after": first}
    last = np.array(planned_in_last_epoch(run))
    # Such a sampler repeats no image before it has shown all of the class.
    different = np.minimum(last, run.samples["natural"])
    return {"epoch 1": first, f"epoch {run.history[-1]['epoch']:.0f}": (last, different)}


def _label_bars(axes: Axes, counts: np.ndarray, rows: np.ndarray, total: int) -> None:
    """Writes each count and its share of all at the end of its bar."""
    for count, row in zip(counts, rows, strict=True):
        text = f"{count:,}  ({count / max(total, 1):.{0 if len(rows) < DRAWN else 1}%})"
        place: Any = {"xytext": (4, 0), "textcoords": "offset points", "va": "center"}
        axes.annotate(text, (count, row), fontsize=9, **place)


def draw_training_curves(run: FinishedRun) -> Figure:
    """Loss and accuracy by epoch; marks the best epoch and reductions of the learning rate."""
    loss = "" if run.config.loss == "cross_entropy" else f", loss {run.config.loss}"
    styles = {
        "loss": (_ORANGE, "o", "-", f"training (sampler {run.config.sampler}{loss})"),
        "validation_loss": (_BLUE, "s", "-", "validation (natural prevalence)"),
        "validation_balanced_accuracy": (_GREEN, "^", "--", "validation, balanced accuracy"),
    }
    styles["accuracy"], styles["validation_accuracy"] = styles["loss"], styles["validation_loss"]
    epochs = [int(row["epoch"]) for row in run.history]
    best = int(run.best["epoch"])
    figure = new_figure(9.5, 4.2)
    left, right = figure.subplots(1, 2)
    panels = {
        left: ("loss", "validation_loss"),
        right: ("accuracy", "validation_accuracy", "validation_balanced_accuracy"),
    }
    for axes, columns in panels.items():
        for column in columns:
            color, marker, dashes, label = styles[column]
            values = [row[column] for row in run.history]
            line = {"color": color, "marker": marker, "ls": dashes, "ms": 4, "lw": 1.6}
            axes.plot(epochs, values, label=label, **line)
        axes.set_xlabel("epoch")
        axes.set_xlim(epochs[0] - 0.5, epochs[-1] + 0.5)
        axes.xaxis.get_major_locator().set_params(integer=True)
    left.set_title(f"Loss ({'validation: ' if loss else ''}cross-entropy, nats)")
    right.set_title("Accuracy")
    right.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    # Losses fall and accuracies rise, so these corners are usually empty.
    # With a schedule the rate changes in each epoch.
    lowered = run.history if run.config.lr_schedule == "plateau" else []
    _mark_epochs(left, lowered, best, height=0.99)
    _mark_epochs(right, lowered, best, height=0.01)
    train, validation = (sum(run.dataset["counts"][s]) for s in ("train", "validation"))
    figure.suptitle(
        f"{run.config.backbone}, seed {run.config.seed}: {train:,} training and {validation:,} "
        f"validation images, best epoch {best} by {run.config.monitor.replace('_', ' ')}",
        fontsize=11,
    )
    handles, labels = right.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    return figure


def _mark_epochs(
    axes: Axes, history: Sequence[dict[str, float]], best: int, *, height: float
) -> None:
    """Marks the best epoch and each reduction of the learning rate; `height` of labels: 0 to 1."""
    marks: list[tuple[float, str, str, str]] = [(best, "best epoch", "-", "black")]
    for before, after in itertools.pairwise(history):
        if after["learning_rate"] < before["learning_rate"]:
            rate = f"{after['learning_rate']:.0e}".replace("e-0", "e-")
            marks.append((after["epoch"] - 0.5, f"learning rate {rate}", ":", "#555555"))
    for epoch, text, dashes, color in marks:
        axes.axvline(epoch, color=color, lw=1, ls=dashes, zorder=1)
        axes.annotate(
            text,
            (epoch, height),
            (3, 0),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            rotation=90,
            va="top" if height > 0.5 else "bottom",
            color=color,
            fontsize=8,
        )


def draw_confusion(run: FinishedRun, split: str) -> Figure:
    """The confusion matrix of a split: counts, and shares of the true class."""
    metrics: dict[str, Any] = run.metrics[split]
    counts = np.array(metrics["confusion_matrix"])
    totals = counts.sum(axis=1)
    shares = counts / np.maximum(totals, 1)[:, np.newaxis]
    names = run.class_names
    figure = new_figure(2.2 + 1.05 * len(names), 1.6 + 0.85 * len(names))
    axes = figure.add_subplot()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
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
    ticks = np.arange(len(names))
    axes.set_xticks(ticks, [name.replace(" ", "\n").replace("_", "_\n") for name in names])
    axes.set_yticks(ticks, [f"{n}\nn = {t:,}" for n, t in zip(names, totals, strict=True)])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.grid(visible=False)
    for line in ticks[1:] - 0.5:
        axes.axvline(line, color="white", lw=2)
        axes.axhline(line, color="white", lw=2)
    axes.set_xlabel("predicted class (images, share of the true class)")
    axes.set_ylabel("true class")
    axes.set_title(
        f"Confusion matrix, {split} split, n = {counts.sum():,}\n"
        f"accuracy {metrics['accuracy']:.1%}, balanced {metrics['balanced_accuracy']:.1%}"
    )
    return figure
