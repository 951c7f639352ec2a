"""Matplotlib figures as SVG inside an HTML page: the same bytes each time, nothing from outside.

Letters stay letters, so that any script's are shown and can be searched for. Colours are Okabe
and Ito's, told apart with any colour vision. Matplotlib is imported where it is needed.
"""

from __future__ import annotations

import html
import io
import re
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from cxr_tfrecords.pages.html import Html
from cxr_tfrecords.pages.plot_style import STYLE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D31", "#7F7F7F")
REFERENCE_COLOR = "#222222"
DASHES = ("-", "--", ":", "-.")
_STYLE = {
    **STYLE,
    "svg.fonttype": "none",
    # Class names are not formulas, whatever signs they hold.
    "text.parse_math": False,
}


def draw(name: str, alt: str, make: Callable[[], Figure]) -> Html:
    """A figure as an `<svg>` on a light card.

    Args:
      name: another one for each figure of a page: their ids must differ.
      alt: what is seen, for those who cannot see it.
      make: draws the figure.
    """
    import matplotlib

    buffer = io.BytesIO()
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": name}), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # letters that Matplotlib's own font lacks
        metadata = {"Date": None, "Creator": None, "Format": None, "Type": None}
        make().savefig(buffer, format="svg", metadata=metadata)
    return Html(f'<div class="wide card">{_embed(buffer.getvalue().decode(), name, alt)}</div>')


def _embed(svg: str, name: str, alt: str) -> str:
    """An SVG file as an element of a page."""
    svg = svg[svg.index("<svg") :]
    # Ids of groups are the same in every figure and used by nobody. In texts `<` is escaped, so
    # that only real tags are touched.
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r"\s*<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<style[^>]*>.*?</style>", "", svg, flags=re.DOTALL)
    tag, rest = svg.split(">", 1)
    box = re.search(r'viewBox="([^"]*)"', tag)
    assert box, tag
    width = float(box[1].split()[2])
    label = html.escape(alt)
    opening = (
        f'<svg class="picture" id="picture-{html.escape(name)}" viewBox="{box[1]}" role="img" '
        f'aria-label="{label}" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'style="max-width:{width * 4 / 3:.0f}px;min-width:{min(width * 4 / 3, 560):.0f}px">'
    )
    return f"{opening}<title>{label}</title>{rest.strip()}"


def new_figure(width: float, height: float) -> Figure:
    """A figure outside pyplot, which would keep it alive and pick a window system."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def grid(panels: int, columns: int, width: float, height: float) -> tuple[Figure, list[Any]]:
    """A figure of at least so many panels, each of this size in inches, in rows; spare axes are
    off."""
    columns = min(columns, panels)
    rows = -(-panels // columns)
    # A narrow figure would cut titles and legends off.
    figure = new_figure(max(columns * width, 5.5), rows * height + 0.4)
    axes = list(figure.subplots(rows, columns, squeeze=False).ravel())
    for spare in axes[panels:]:
        spare.axis("off")
    return figure, axes[:panels]


def label(name: str, length: int = 28) -> str:
    """A name of a class or method, shortened; not hidden from legends for a leading `_`."""
    name = name if len(name) <= length else name[: length - 1] + "…"
    return (" " if name.startswith("_") else "") + name


def line_styles(names: Sequence[str], reference: str) -> dict[str, dict[str, Any]]:
    """Colour and dashes of each method; the reference is black."""
    styles: dict[str, dict[str, Any]] = {reference: {"color": REFERENCE_COLOR, "ls": "-"}}
    for number, name in enumerate(name for name in names if name != reference):
        dashes = DASHES[(number + 1) % len(DASHES)]
        styles[name] = {"color": COLORS[number % len(COLORS)], "ls": dashes}
    return {name: styles[name] for name in names}


def add_legend(figure: Figure, handles: Sequence[Any], columns: int = 4) -> None:
    """A legend below the panels, in as many columns as its texts leave room for."""
    longest = max(len(handle.get_label()) for handle in handles)
    room = int(figure.get_figwidth() / (0.09 * longest + 0.7))
    columns = max(1, min(len(handles), columns, room))
    # The figure has room for one row: panels of equal aspect would be pushed over its edge.
    more_rows = -(-len(handles) // columns) - 1
    figure.set_figheight(figure.get_figheight() + 0.22 * more_rows)
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False)
