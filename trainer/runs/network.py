"""The network of a run, for its report: a picture and a table of its parts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cxr_tfrecords.pages.figures import COLORS, new_figure
from cxr_tfrecords.pages.markdown import escaped, plain_table
from trainer.runs.finished_run import FinishedRun

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_CENTRED: Any = {"textcoords": "offset points", "ha": "center", "fontsize": 8, "rotation": 90}
_TRAINED, _FIXED, _NONE = COLORS[0], "#B8B8B8", "white"


def describe_network(run: FinishedRun) -> list[str]:
    """Parts of report.md; empty for a run that does not say what its network is."""
    if not run.network:
        return []
    rows = [
        [
            escaped(part["name"]),
            str(part["layers"]),
            _shape(part["shape"]),
            f"{part['parameters']:,}",
            f"{part['trained']:,}",
        ]
        for part in run.network
    ]
    layers, parameters, trained = (
        f"{sum(part[key] for part in run.network):,}" for key in ("layers", "parameters", "trained")
    )
    rows.append(["all", layers, "", parameters, trained])
    header = ["part", "layers", "output", "parameters", "of these trained"]
    return [
        "The network, from an image to its logits:",
        "![The network: its parts, their outputs and parameters](network.png)",
        plain_table(header, rows),
    ]


def draw_network(run: FinishedRun, parts: Sequence[Mapping[str, Any]]) -> Figure:
    """A box for each part: its height grows with the side of its feature maps, its width with the
    number of channels, both by their logarithm."""
    from matplotlib.patches import Patch

    figure = new_figure(1.5 + 0.95 * len(parts), 5.4)
    axes = figure.add_subplot()
    highest = math.log2(1 + max(side for part in parts for side in part["shape"][:-1] or [1]))
    widest = math.log2(1 + max(part["shape"][-1] for part in parts))
    for place, part in enumerate(parts):
        *sides, channels = part["shape"]
        height = max(0.12, math.log2(1 + (sides or [0])[0]) / highest)
        width = 0.1 + 0.65 * math.log2(1 + channels) / widest
        color = _TRAINED if part["trained"] else _FIXED if part["parameters"] else _NONE
        axes.bar(place, height, width, -height / 2, color=color, edgecolor="black", linewidth=0.8)
        axes.annotate(_shape(part["shape"]), (place, height / 2), (0, 4), **_CENTRED, va="bottom")
        axes.annotate(_label(part), (place, -height / 2), (0, -5), **_CENTRED, va="top")
    axes.set_xlim(-0.7, len(parts) - 0.3)
    axes.set_ylim(-1.15, 0.95)
    axes.axis("off")
    axes.set_title(f"{run.config.backbone}: {sum(p['parameters'] for p in parts):,} parameters")
    kinds = {"trained": _TRAINED, "not trained": _FIXED, "no parameters": _NONE}
    handles = [Patch(facecolor=c, edgecolor="black", label=name) for name, c in kinds.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
    return figure


def _label(part: Mapping[str, Any]) -> str:
    """Name and parameters, in two lines."""
    parameters = f"\n{part['parameters']:,} parameters" if part["parameters"] else ""
    return part["name"] + parameters


def _shape(shape: Sequence[int]) -> str:
    return " × ".join(map(str, shape))
