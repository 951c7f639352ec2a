"""ROC curves and reliability diagrams of a finished run: one panel a class, test split."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from cxr_tfrecords.pages.class_lists import DRAWN
from cxr_tfrecords.pages.figures import COLORS, grid, label
from trainer.evaluation.calibration import reliability_curve
from trainer.evaluation.inference import Inference
from trainer.evaluation.metrics import log_odds
from trainer.runs.finished_run import FinishedRun

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOR = COLORS[0]


def draw_roc(run: FinishedRun) -> Figure:
    """ROC curve of each class against all others, with its AUROC."""
    test = run.predictions("test")
    scores = log_odds(test.log_probabilities)
    figure, panels = _panels(run, "ROC curves", "1 - specificity", "sensitivity")
    for c, axes in panels.items():
        positive = test.labels == c
        if positive.any() and not positive.all():
            hits, misses = counts_by_threshold(positive, scores[:, c])
            axes.plot(np.r_[0, misses / misses[-1]], np.r_[0, hits / hits[-1]], color=_COLOR)
            area = run.metrics["test"]["per_class"][run.class_names[c]]["auroc"]
            axes.text(0.98, 0.02, f"AUROC {area:.4f}", ha="right", va="bottom", fontsize=9)
    return figure


def draw_reliability(run: FinishedRun) -> Figure:
    """Observed shares of each class against its predicted probabilities, in bins of equal size with
    Wilson's 95% intervals."""
    test = run.predictions("test")
    probabilities = test.probabilities
    figure, panels = _panels(
        run, "Reliability of the raw probabilities", "predicted probability", "observed share"
    )
    for c, axes in panels.items():
        curve = reliability_curve(test.labels == c, probabilities[:, c])
        errors = [curve.observed - curve.low, curve.high - curve.observed]
        axes.errorbar(
            curve.predicted,
            curve.observed,
            yerr=np.maximum(errors, 0),
            color=_COLOR,
            marker="o",
            ms=4,
            lw=1.2,
            elinewidth=0.8,
        )
    return figure


def counts_by_threshold(positive: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """True and false positives as the threshold falls over the distinct scores.

    Args:
      positive: bool [n].
      scores: float [n].

    Returns:
      Two int arrays [distinct scores].
    """
    order = np.argsort(-scores, kind="stable")
    last = np.r_[np.diff(scores[order]) != 0, True]
    ranked = np.asarray(positive, bool)[order]
    return np.cumsum(ranked)[last], np.cumsum(~ranked)[last]


def _panels(run: FinishedRun, title: str, x: str, y: str) -> tuple[Figure, dict[int, Axes]]:
    """A square panel with the diagonal for each class that is shown, by label."""
    shown = run.shown_classes(DRAWN)
    figure, panels = grid(len(shown), 4, 2.6, 2.9)
    names = list(_marked_names(run))
    for name, axes in zip((names[c] for c in shown), panels, strict=True):
        axes.plot([0, 1], [0, 1], color="#888888", lw=0.8, ls="--")
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
        axes.set_title(name, fontsize=10)
        axes.set_xlabel(x, fontsize=9)
        axes.set_ylabel(y, fontsize=9)
    images = len(run.predictions("test").labels)
    figure.suptitle(
        f"{title}\none class against all others, test split, n = {images:,}", fontsize=11
    )
    return figure, dict(zip(shown, panels, strict=True))


def _marked_names(run: FinishedRun) -> Iterator[str]:
    """Class names; those of few groups with the * that the tables of report.md have."""
    rare = Inference(run.predictions("test"), run.class_names, [(run.config.seed,)]).rare_classes()
    for name in run.class_names:
        yield label(name, 24) + (" *" if name in rare else "")
