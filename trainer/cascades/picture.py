"""tree.png: the stages of a cascade and its leaves, with the test images that come to each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cxr_tfrecords.files import replacing
from cxr_tfrecords.pages.figures import COLORS, label, new_figure
from cxr_tfrecords.pages.plot_style import STYLE

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write_tree(path: str, content: Mapping[str, Any]) -> None:
    """Writes the PNG of a cascade.json's content."""
    import matplotlib

    settings = {**STYLE, "figure.dpi": 150, "text.parse_math": False}
    with matplotlib.rc_context(settings), replacing(path) as temporary:
        draw_tree(content).savefig(temporary, format="png", metadata={"Software": None})


def draw_tree(content: Mapping[str, Any]) -> Figure:
    """Stages from left to right; each box says how many test images belong and how many arrive."""
    stages = {stage["name"]: stage for stage in content["stages"]}
    places: dict[str, tuple[float, float]] = {}
    _place(content["stages"][0]["name"], stages, 0, places)
    depth = max(x for x, _ in places.values())
    leaves = [name for name in places if name not in stages]
    figure = new_figure(2.6 * (depth + 1) + 0.6, 0.95 * len(leaves) + 0.9)
    axes = figure.add_subplot()
    for name, stage in stages.items():
        for answer in stage["answers"]:
            (x, y), (to_x, to_y) = places[name], places[answer]
            axes.plot([x, to_x], [y, to_y], color="#8C8C8C", lw=1.2, zorder=1)
    confusion = np.array(content["routed"]["confusion_matrix"])
    for name, (x, y) in places.items():
        text, color = label(name, 24), COLORS[0]
        if name in stages:
            stage = stages[name]
            text += f"\n{stage['backbone']}\n{stage['belonging']['images']:,} belong, "
            text += f"{stage['arrived']:,} arrive"
        else:
            c, color = content["class_names"].index(name), COLORS[2]
            text += f"\n{confusion[c].sum():,} belong, {confusion[:, c].sum():,} arrive,"
            text += f"\n{confusion[c, c]:,} of them right"
        box = {"boxstyle": "round,pad=0.4", "fc": "white", "ec": color, "lw": 1.5}
        axes.text(x, y, text, ha="center", va="center", fontsize=9, bbox=box)
    axes.set(xlim=(-0.5, depth + 0.5), ylim=(len(leaves) - 0.4, -0.6))
    axes.set_axis_off()
    axes.set_title(
        "Test images by hard routing: each goes where a stage's likeliest answer sends it"
    )
    return figure


def _place(
    name: str,
    stages: Mapping[str, Mapping[str, Any]],
    depth: int,
    places: dict[str, tuple[float, float]],
) -> float:
    """Puts a stage or leaf, and what is below it, into `places` (column, row); returns its row."""
    if name not in stages:
        places[name] = depth, float(sum(other not in stages for other in places))
    else:
        answers: Sequence[str] = list(stages[name]["answers"])
        rows = [_place(answer, stages, depth + 1, places) for answer in answers]
        places[name] = depth, (rows[0] + rows[-1]) / 2
    return places[name][1]
