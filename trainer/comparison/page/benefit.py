"""Section of the comparison's page on net benefit: decision curves and their table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from cxr_tfrecords.pages.figures import add_legend, draw, label, new_figure
from cxr_tfrecords.pages.html import paragraph, stacked, table
from trainer.comparison import decision_curves
from trainer.comparison.page.charts import method_styles
from trainer.comparison.text import class_mark

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def benefit(content: Mapping[str, Any]) -> Iterator[str]:
    yield paragraph(decision_curves.explain(content))
    alt = f"Decision curves of {content['net_benefit']['class']}"
    yield draw("benefit", alt, lambda: _decision_curves(content))
    rows = [[stacked(cell) for cell in row] for row in decision_curves.rows(content)]
    yield table(decision_curves.header(), rows)
    settings = content["settings"]
    yield paragraph(
        f"Means over seeds, test split; {settings['level']:.0%} intervals for other seeds and "
        "other images. A threshold is what those who act on the result hold to be right: do not "
        "choose it by this picture.",
        "quiet",
    )


def _decision_curves(content: Mapping[str, Any]) -> Figure:
    """Net benefit against the threshold: a line a method, and those of calling all or none."""
    shared, entries = content["net_benefit"], content["entries"]
    styles = method_styles(content)
    thresholds = np.array(shared["thresholds"])
    figure = new_figure(8.6, 4.6)
    axes = figure.add_subplot()
    gray: dict[str, Any] = {"color": "#999999", "lw": 1.2}
    everything = _per_thousand(shared["all"])
    handles = [
        axes.plot(thresholds, everything, ls="--", label="calling all", **gray)[0],
        axes.plot(thresholds, 0 * thresholds, ls="-", label="calling none", **gray)[0],
    ]
    highest = np.nanmax(everything, initial=0)
    for name, entry in entries.items():
        curve = _per_thousand(entry["net_benefit"]["curve"])
        highest = np.nanmax(curve, initial=highest)
        line = axes.plot(thresholds, curve, lw=1.4, label=label(name), **styles[name])[0]
        handles.append(line)
    # Calling all falls without end; what is far below calling none need not be seen.
    axes.set(xlim=(0, 1), ylim=(-0.25 * highest - 1, 1.08 * highest + 1))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set_xlabel("threshold: probability from which one acts")
    axes.set_ylabel("net benefit in 1,000 images")
    axes.set_title(label(class_mark(content, shared["class"])))
    add_legend(figure, handles)
    return figure


def _per_thousand(curve: list[float | None]) -> np.ndarray:
    return 1000 * np.array(curve, np.float64)
