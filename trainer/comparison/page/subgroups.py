"""Section of the comparison's page on subgroups: a plot and two tables for each column."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from cxr_tfrecords.pages.figures import draw, label
from cxr_tfrecords.pages.html import details, escaped, paragraph, stacked, table
from trainer.comparison.page.charts import dots
from trainer.comparison.subgroups import text
from trainer.comparison.text import TITLES

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def subgroups(content: Mapping[str, Any]) -> Iterator[str]:
    yield paragraph(text.explain(content))
    for number, column in enumerate(content["subgroups"]["columns"]):
        yield f"<h3>{escaped(column)}</h3>"
        for note in text.notes(content, column):
            yield paragraph(note)
        if _shown(content, column):
            alt = f"{TITLES[content['primary']]} by {column} and method, with intervals"
            yield draw(f"subgroups-{number}", alt, functools.partial(_plot, content, column))
        rows = [[stacked(cell) for cell in row] for row in text.largest_rows(content, column)]
        yield table(text.LARGEST_HEADER, rows)
        rows = [[stacked(cell) for cell in row] for row in text.rows(content, column)]
        yield details("All methods and classes", table(text.header(content), rows, texts=2))


def _shown(content: Mapping[str, Any], column: str) -> dict[str, Mapping[str, Any]]:
    """The subgroups that have the primary metric."""
    primary, reference = content["primary"], content["reference"]
    subgroups = content["subgroups"]["columns"][column]["subgroups"]
    return {v: one for v, one in subgroups.items() if primary in one["entries"].get(reference, ())}


def _plot(content: Mapping[str, Any], column: str) -> Figure:
    primary = content["primary"]
    rows = {
        f"{label(text.mark(value, one))}\nn = {one['images']:,}": {
            name: metrics[primary] for name, metrics in one["entries"].items()
        }
        for value, one in _shown(content, column).items()
    }
    return dots(content, rows, primary, f"{TITLES[primary]}, test split")
