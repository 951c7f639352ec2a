"""Pictures of a comparison's probabilities: reliability diagrams, ROC and PR curves by class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cxr_tfrecords.pages.class_lists import DRAWN, shown_classes
from cxr_tfrecords.pages.figures import add_legend, grid, label
from trainer.comparison.page.charts import method_styles
from trainer.comparison.text import class_mark
from trainer.evaluation.metrics import log_odds
from trainer.evaluation.predictions import Predictions
from trainer.runs.curve_pictures import counts_by_threshold

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_METHODS = 8
MOST_CLASSES = 6
# More are not seen, and a page of many classes would grow to many MB.
_POINTS = 250
# Line and marker: the colour is the method's.
_VARIANTS = {"raw": (":", "o", "white"), "calibrated": ("-", "s", None)}


def reliability(content: Mapping[str, Any], methods: Sequence[str], names: Sequence[str]) -> Figure:
    """Observed against predicted shares: a row a method, a column a class; raw and calibrated."""
    panels = [(method, name) for method in methods for name in names]
    figure, axes = grid(len(panels), len(names), 2.25, 2.15)
    handles: dict[str, Any] = {}
    styles = method_styles(content)
    for panel, (method, name) in zip(axes, panels, strict=True):
        panel.plot([0, 1], [0, 1], color="#888888", lw=0.8, ls="--")
        color = styles[method]["color"]
        for variant, (dashes, marker, face) in _VARIANTS.items():
            curve = content["entries"][method]["reliability"][variant][name]
            observed = np.array(curve["observed"])
            errors = [observed - curve["low"], curve["high"] - observed]
            drawn = panel.errorbar(
                curve["predicted"],
                observed,
                yerr=np.maximum(errors, 0),
                color=color,
                marker=marker,
                mfc=face or color,
                ls=dashes,
                ms=3.5,
                lw=1,
                elinewidth=0.7,
                label=variant,
            )
            handles.setdefault(variant, drawn)
        panel.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), aspect="equal")
        panel.set_xticks([0, 0.5, 1])
        panel.set_yticks([0, 0.5, 1])
        panel.tick_params(labelsize=8)
        if method == methods[0]:
            panel.set_title(label(class_mark(content, name), 20), fontsize=10)
        if method == methods[-1]:
            panel.set_xlabel("predicted", fontsize=8)
        if name == names[0]:
            panel.set_ylabel(f"{label(method, 22)}\nobserved", fontsize=8)
    add_legend(figure, list(handles.values()))
    return figure


def roc(content: Mapping[str, Any], predictions: Mapping[str, Predictions]) -> Figure:
    """ROC curves: a panel a class, a line a method (first seed)."""
    return _curves(content, predictions, _draw_roc)


def precision_recall(content: Mapping[str, Any], predictions: Mapping[str, Predictions]) -> Figure:
    """Precision-recall curves: a panel a class, a line a method (first seed)."""
    return _curves(content, predictions, _draw_precision_recall)


def _curves(content: Mapping[str, Any], predictions: Mapping[str, Predictions], draw: Any) -> Any:
    labels = next(iter(predictions.values())).labels
    counts = np.bincount(labels, minlength=len(content["class_names"]))
    shown = shown_classes(counts.tolist(), DRAWN)
    styles = method_styles(content)
    figure, panels = grid(len(shown), 4, 2.6, 2.8)
    handles: list[Any] = []
    odds = {method: log_odds(one.log_probabilities) for method, one in predictions.items()}
    for c, axes in zip(shown, panels, strict=True):
        name = content["class_names"][c]
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
        axes.set_title(label(class_mark(content, name), 24), fontsize=10)
        lines = []
        for method, answers in predictions.items():
            positive, scores = answers.labels == c, odds[method][:, c]
            if positive.any() and not positive.all():
                lines.append(draw(axes, positive, scores, styles[method]))
                lines[-1].set_label(label(method))
        handles = handles or lines
    if handles:
        add_legend(figure, handles)
    return figure


def _draw_roc(axes: Axes, positive: np.ndarray, scores: np.ndarray, style: dict) -> Any:
    hits, misses = counts_by_threshold(positive, scores)
    axes.plot([0, 1], [0, 1], color="#BBBBBB", lw=0.8)
    axes.set_xlabel("1 - specificity", fontsize=8)
    axes.set_ylabel("sensitivity", fontsize=8)
    x, y = np.r_[0, misses / misses[-1]], np.r_[0, hits / hits[-1]]
    return axes.plot(*_thin(x, y), lw=1.3, **style)[0]


def _draw_precision_recall(
    axes: Axes, positive: np.ndarray, scores: np.ndarray, style: dict
) -> Any:
    hits, misses = counts_by_threshold(positive, scores)
    # Average precision adds a point's precision where recall rises: these are its steps.
    rises = np.diff(np.r_[0, hits]) > 0
    recall, precision = (hits / hits[-1])[rises], (hits / (hits + misses))[rises]
    axes.axhline(positive.mean(), color="#BBBBBB", lw=0.8)
    axes.set_xlabel("recall", fontsize=8)
    axes.set_ylabel("precision", fontsize=8)
    x, y = _thin(np.r_[0, recall], np.r_[precision[0], precision])
    return axes.plot(x, y, lw=1.3, drawstyle="steps-pre", **style)[0]


def _thin(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Few points of a curve: those where it turns, evenly along it if they are many."""
    if len(x) > 2:
        dx, dy = np.diff(x), np.diff(y)
        straight = np.abs(dx[1:] * dy[:-1] - dx[:-1] * dy[1:]) < 1e-15
        keep = np.r_[True, ~straight, True]
        x, y = x[keep], y[keep]
    if len(x) <= _POINTS:
        return x, y
    length = np.r_[0, np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y)))]
    wanted = np.linspace(0, length[-1], _POINTS)
    keep = np.unique(np.r_[0, np.searchsorted(length, wanted).clip(0, len(x) - 1), len(x) - 1])
    return x[keep], y[keep]
