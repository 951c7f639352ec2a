"""Matplotlib figures as SVG elements of an HTML page.

Text stays text, so that letters of any script are shown and can be searched for. The colours are
Okabe and Ito's, which people of any colour vision can tell apart. The same figure gives the same
bytes. Matplotlib is imported where it is needed.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from cxr_tfrecords.pages.html import Html, escaped, visible
from cxr_tfrecords.pages.plot_style import STYLE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D31", "#7F7F7F")
REFERENCE_COLOR = "#222222"
DASHES = ("-", "--", ":", "-.")
_STYLE = {
    **STYLE,
    "svg.fonttype": "none",
}


def draw(name: str, alt: str, make: Callable[[], Figure]) -> Html:
    """A figure as an `<svg>` on a light background.

    Args:
      name: must differ between the figures of a page, because ids are made from it.
      alt: text that describes the figure, for screen readers.
      make: draws the figure.
    """
    import matplotlib

    buffer = io.BytesIO()
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": name}), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of letters that Matplotlib's own font lacks
        metadata = {"Date": None, "Creator": None, "Format": None, "Type": None}
        make().savefig(buffer, format="svg", metadata=metadata)
    return Html(f'<div class="wide card">{_embed(buffer.getvalue().decode(), name, alt)}</div>')


def _embed(svg: str, name: str, alt: str) -> str:
    """An SVG file as an element of a page."""
    svg = svg[svg.index("<svg") :]
    # Ids of groups are the same in every figure, and nothing refers to them. `<` is escaped in
    # texts, so only real tags are changed.
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r"\s*<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<style[^>]*>.*?</style>", "", svg, flags=re.DOTALL)
    tag, rest = svg.split(">", 1)
    box = re.search(r'viewBox="([^"]*)"', tag)
    assert box, tag
    width = float(box[1].split()[2])
    label = escaped(alt)
    opening = (
        f'<svg class="picture" id="picture-{escaped(name)}" viewBox="{box[1]}" role="img" '
        f'aria-label="{label}" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'style="max-width:{width * 4 / 3:.0f}px">'
    )
    return f"{opening}<title>{label}</title>{rest.strip()}"


def new_figure(width: float, height: float) -> Figure:
    """A figure in inches, made without pyplot, which would keep it in memory and open a display."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def grid(panels: int, columns: int, width: float, height: float) -> tuple[Figure, list[Any]]:
    """A figure of `panels` panels in rows of at most `columns`, each `width` by `height` inches.

    Returns:
      The figure and the axes of its panels.
    """
    columns = min(columns, panels)
    rows = -(-panels // columns)
    # A narrower figure would cut off titles and legends.
    figure = new_figure(max(columns * width, 5.5), rows * height + 0.4)
    axes = list(figure.subplots(rows, columns, squeeze=False).ravel())
    for spare in axes[panels:]:
        spare.axis("off")
    return figure, axes[:panels]


def label(name: str, length: int = 28) -> str:
    """A name of a class or method, shortened; Matplotlib would leave one that begins with `_` out
    of the legend, so a space is put before it."""
    name = visible(name)
    name = name if len(name) <= length else name[: length - 1] + "…"
    return (" " if name.startswith("_") else "") + name


def line_styles(names: Sequence[str], reference: str) -> dict[str, dict[str, Any]]:
    """Colour and dashes of each method; the reference is black."""
    styles: dict[str, dict[str, Any]] = {reference: {"color": REFERENCE_COLOR, "ls": "-"}}
    for number, name in enumerate(name for name in names if name != reference):
        # Dashes move on with each round of colours, so that two methods of a colour differ.
        dashes = DASHES[(number + 1 + number // len(COLORS)) % len(DASHES)]
        styles[name] = {"color": COLORS[number % len(COLORS)], "ls": dashes}
    return {name: styles[name] for name in names}


def add_legend(figure: Figure, handles: Sequence[Any], columns: int = 4) -> None:
    """A legend below the panels, in as many columns as fit, at most `columns`."""
    longest = max(len(handle.get_label()) for handle in handles)
    fitting = int(figure.get_figwidth() / (0.09 * longest + 0.7))
    columns = max(1, min(len(handles), columns, fitting))
    # The figure has room for one row. Others need more height, or panels of equal aspect would be
    # pushed over its edge.
    more_rows = -(-len(handles) // columns) - 1
    figure.set_figheight(figure.get_figheight() + 0.22 * more_rows)
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False)
