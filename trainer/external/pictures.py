"""The picture of an evaluation's page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from cxr_tfrecords.pages.figures import COLORS, add_legend, grid, label
from trainer.evaluation.calibration import reliability_curve
from trainer.external.figures import Answers

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Colour, marker and words of each of `figures.PLACES`.
_STYLES = {
    "internal": (COLORS[0], "o", "internal test"),
    "external": (COLORS[1], "s", "elsewhere"),
}


def draw_reliability(answers: Answers) -> Figure:
    """Observed shares of each class that is elsewhere against its calibrated probabilities, in
    both places, with Wilson's intervals."""
    counts = np.bincount(answers.predictions["external"].labels)
    held = np.flatnonzero(counts)
    figure, panels = grid(len(held), 4, 2.6, 2.9)
    handles: list[Any] = []
    for c, axes in zip(held, panels, strict=True):
        axes.plot([0, 1], [0, 1], color="#888888", lw=0.8, ls="--")
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
        axes.set_title(label(answers.run.class_names[c], 24), fontsize=10)
        axes.set_xlabel("predicted probability", fontsize=9)
        axes.set_ylabel("observed share", fontsize=9)
        handles = []
        for place, (color, marker, title) in _STYLES.items():
            scores = np.exp(answers.variants[place]["calibrated"][:, c])
            curve = reliability_curve(answers.predictions[place].labels == c, scores)
            errors = np.maximum([curve.observed - curve.low, curve.high - curve.observed], 0)
            handles.append(
                axes.errorbar(
                    curve.predicted,
                    curve.observed,
                    yerr=errors,
                    color=color,
                    marker=marker,
                    ms=4,
                    lw=1.2,
                    elinewidth=0.8,
                    label=title,
                )
            )
    add_legend(figure, handles)
    return figure
