"""Pictures of a comparison: differences, confusion matrices, recall, training and class counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cxr_tfrecords.pages.class_lists import DRAWN, few, shown_classes
from cxr_tfrecords.pages.figures import COLORS, add_legend, grid, label, line_styles, new_figure
from trainer.comparison import verdicts
from trainer.comparison.text import TITLES, class_mark, is_percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from trainer.comparison.methods import Entry

_GRAY = "#C8C8C8"


def method_styles(content: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Colour and dashes of each method: the same in every picture of the page."""
    return line_styles(list(content["entries"]), content["reference"])


def forest(content: Mapping[str, Any]) -> Figure:
    """Difference to the reference with its interval, a row a method: primary metric and Brier."""
    primary, differences = content["primary"], content["differences"]
    panels = (
        ("metrics", primary, TITLES[primary]),
        ("metrics", "brier", "Brier score, raw"),
        ("calibrated", "brier", "Brier score, calibrated"),
    )
    names = list(differences)
    figure = new_figure(10.2, 1.9 + 0.36 * len(names))
    for column, (axes, (part, metric, title)) in enumerate(
        zip(figure.subplots(1, 3, sharey=True), panels, strict=True)
    ):
        shown = {name: differences[name][part][metric] for name in names}
        words = verdicts.words(content, metric) if part == "metrics" else {}
        clear = [n for n in names if words.get(n) in (verdicts.BETTER, verdicts.WORSE)]
        colors = {name: style["color"] for name, style in method_styles(content).items()}
        _draw_forest(axes, shown, clear, colors, scale=100 if is_percent(metric) else 1)
        unit = ", points" if is_percent(metric) else ""
        side = "left" if metric == "brier" else "right"
        axes.set_title(title)
        axes.set_xlabel(f"difference to {label(content['reference'])}{unit}\nbetter to the {side}")
        if not column:
            axes.set_yticks(range(len(names)), [label(name) for name in names])
            axes.set_ylim(len(names) - 0.5, -0.5)
    return figure


def _draw_forest(
    axes: Axes,
    shown: Mapping[str, Mapping[str, Any]],
    clear: Sequence[str],
    colors: Mapping[str, str],
    scale: float,
) -> None:
    axes.axvline(0, color="black", lw=1)
    for row, (name, one) in enumerate(shown.items()):
        if one["estimate"] is None:
            continue
        color = colors[name]
        if one["low"] is not None:
            axes.plot([one["low"] * scale, one["high"] * scale], [row, row], color=color, lw=1.8)
        face = color if name in clear else "white"
        axes.plot([one["estimate"] * scale], [row], "o", ms=6, color=color, mfc=face)
    axes.grid(visible=False, axis="y")
    axes.margins(x=0.12)
    axes.locator_params(axis="x", nbins=5)  # more labels of a Brier score would overlap


def confusion(content: Mapping[str, Any]) -> Figure:
    """Confusion matrices of all methods, means over seeds, shaded by shares of the true class."""
    names, entries = content["class_names"], content["entries"]
    side = max(2.6, 0.62 * len(names))
    figure, panels = grid(len(entries), 3, side + 1.0, side + 0.6)
    for axes, (name, entry) in zip(panels, entries.items(), strict=True):
        counts = np.array(entry["confusion_matrix"])
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for row, column in np.ndindex(*counts.shape):
            color = "white" if shares[row, column] > 0.55 else "#222222"
            text = f"{_count(float(counts[row, column]))}\n{shares[row, column]:.0%}"
            axes.text(column, row, text, ha="center", va="center", color=color, fontsize=8)
        ticks = [label(class_mark(content, one), 18) for one in names]
        axes.set_xticks(range(len(names)), ticks, rotation=35, ha="right", fontsize=8)
        axes.set_yticks(range(len(names)), ticks, fontsize=8)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.grid(visible=False)
        axes.set_title(label(name, 32), fontsize=9)
        seeds = len(entry["seeds"])
        axes.set_xlabel(f"predicted ({seeds} seed{'s' if seeds > 1 else ''})", fontsize=8)
        axes.set_ylabel("true", fontsize=8)
    return figure


def _count(mean: float) -> str:
    """A mean over seeds: `1,234`, or with one decimal where it is no whole number and small."""
    return f"{mean:,.0f}" if mean >= 100 or mean == round(mean) else f"{mean:.1f}"


def recall(content: Mapping[str, Any]) -> Figure:
    """Recall of each class with its interval: a group of rows a class, a dot a method."""
    rows = {}
    for c in shown_classes(content["test"]["counts"], DRAWN):
        class_name, support = content["class_names"][c], content["test"]["counts"][c]
        tick = f"{label(class_mark(content, class_name))}\nn = {support:,}"
        metric = f"recall/{class_name}"
        rows[tick] = {name: one["metrics"][metric] for name, one in content["entries"].items()}
    return dots(content, rows, "recall", "recall, test split")


def dots(
    content: Mapping[str, Any],
    rows: Mapping[str, Mapping[str, Mapping[str, Any]]],
    metric: str,
    title: str,
) -> Figure:
    """Intervals of one metric: a group of rows for each label, a dot a method.

    Args:
      rows: label -> method -> interval; methods may be missing.
      metric, title: what the axis shows, and what stands below it.
    """
    styles = method_styles(content)
    step = 0.8 / len(styles)
    figure = new_figure(8.6, 1.4 + len(rows) * max(0.5, 0.17 * len(styles)))
    axes = figure.add_subplot()
    handles = []
    for number, (name, style) in enumerate(styles.items()):
        color = style["color"]
        # Colours are used again after the reference and this many methods.
        marker = "os^D"[number // (len(COLORS) + 1) % 4]
        handles.append(axes.plot([], [], marker, color=color, ms=5, label=label(name))[0])
        for row, shown in enumerate(rows.values()):
            one = shown.get(name)
            if one is None or one["estimate"] is None:
                continue
            y = row + (number - (len(styles) - 1) / 2) * step
            if one["low"] is not None:
                axes.plot([one["low"], one["high"]], [y, y], color=color, lw=1.6)
            axes.plot([one["estimate"]], [y], marker, color=color, ms=5)
    axes.set_yticks(range(len(rows)), list(rows))
    axes.set_ylim(len(rows) - 0.5, -0.5)
    for row in range(1, len(rows)):
        axes.axhline(row - 0.5, color="#BBBBBB", lw=0.8)
    axes.grid(visible=False, axis="y")
    if is_percent(metric):
        # An interval from few seeds is symmetric and may reach beyond what a share can be.
        axes.set_xlim(max(0.0, axes.get_xlim()[0]), 1.005)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set_xlabel(title)
    add_legend(figure, handles)
    return figure


def training(content: Mapping[str, Any], entries: Sequence[Entry]) -> Figure:
    """Validation loss and balanced accuracy against updates, a line a run."""
    styles = method_styles(content)
    figure = new_figure(9.8, 4.3)
    panels = figure.subplots(1, 2)
    columns = ("validation_loss", "validation_balanced_accuracy")
    handles = []
    for entry in entries:
        style = styles[entry.name]
        for axes, column in zip(panels, columns, strict=True):
            for run in entry.runs:
                steps = [row["step"] for row in run.history]
                values = [row[column] for row in run.history]
                line = axes.plot(steps, values, lw=1.1, alpha=0.85, **style)[0]
                best = run.best
                axes.plot([best["step"]], [best[column]], "o", ms=4, color=style["color"])
        line.set_label(label(entry.name))
        handles.append(line)
    titles = ("Validation loss, nats", "Validation, balanced accuracy")
    for axes, title in zip(panels, titles, strict=True):
        axes.set_title(title)
        axes.set_xlabel("updates of the weights")
        axes.set_xlim(left=0)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    panels[1].yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    add_legend(figure, handles)
    return figure


def class_counts(content: Mapping[str, Any]) -> Figure:
    """Training images of each class: natural, and as the samplers plan the last epoch.

    Methods with the same counts share bars, in the colour of the first of them.
    """
    shown = shown_classes(content["test"]["counts"], DRAWN)
    names = [content["class_names"][c] for c in shown]
    streams: dict[tuple[int, ...], list[str]] = {}
    for name, entry in content["entries"].items():
        streams.setdefault(tuple(entry["planned_last"]), []).append(name)
    natural = tuple(content["entries"][content["reference"]]["samples"]["natural"])
    bars = [("training split", natural, _GRAY)]
    styles = method_styles(content)
    for counts, methods in streams.items():
        bars.append((few(methods, 4), counts, styles[methods[0]]["color"]))
    height = 0.84 / len(bars)
    figure = new_figure(8.6, 1.3 + len(names) * max(0.5, 0.19 * len(bars)))
    axes = figure.add_subplot()
    handles = []
    for number, (title, counts, color) in enumerate(bars):
        rows = np.arange(len(names)) + (number - (len(bars) - 1) / 2) * height
        widths = [counts[c] for c in shown]
        drawn = axes.barh(rows, widths, height=height * 0.92, color=color, label=label(title, 60))
        handles.append(drawn)
        for row, count in zip(rows, widths, strict=True):
            axes.annotate(
                f"{count:,}  ({count / max(sum(counts), 1):.0%})",
                (count, row),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
            )
    axes.set_yticks(range(len(names)), [label(class_mark(content, name)) for name in names])
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.set_xlim(0, 1.16 * max(max(counts) for _, counts, _ in bars))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set_xlabel("images in an epoch (share of the epoch)")
    add_legend(figure, handles, columns=2)
    return figure
