"""Tables of a comparison of recipes, of what `description` gives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from cxr_tfrecords.pages.markdown import plain_table
from trainer.comparison.recipes.description import show_value
from trainer.comparison.text import TITLES, is_percent, with_interval

REPORTED_HEADER = ["recipe", "figure", "reported by the authors", "here"]
REPORTED_NOTE = (
    "Reported figures are of the authors' own images and test split, mostly of one training and "
    "without intervals. They are shown for orientation; no difference between them and the figures "
    "here can be put down to the recipe."
)


def settings_table(content: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and rows: the settings in which recipes differ, a column each recipe."""
    names = list(content["entries"])
    rows = [
        [key, *(show_value(values[name]) for name in names)]
        for key, values in content["recipes"]["settings"].items()
    ]
    return ["setting", *names], rows


def reported_rows(content: Mapping[str, Any]) -> list[list[str]]:
    """Each figure that the authors of a recipe report, beside that of this comparison; under
    `REPORTED_HEADER`."""
    rows = []
    for name, reported in content["recipes"]["reported"].items():
        measured = content["entries"].get(name, {"metrics": {}})["metrics"]
        for metric, value in reported["metrics"].items():
            kind, _, class_name = metric.partition("/")
            title = TITLES.get(kind, kind) + (f", {class_name}" if class_name else "")
            here = with_interval(metric, measured[metric]) if metric in measured else "–"
            printed = f"{100 * value:g}%" if is_percent(metric) else f"{value:g}"
            rows.append([name, title, printed, here])
    return rows


def sources(content: Mapping[str, Any]) -> Iterator[str]:
    """A sentence or two on the source of each recipe's reported figures."""
    for name, reported in content["recipes"]["reported"].items():
        yield f"{name}: {reported['source']} {reported['note']}".rstrip()


def markdown(content: Mapping[str, Any]) -> str:
    """The part of comparison.md on recipes; empty if none were compared.

    Args:
      content: comparison.json, escaped for Markdown.
    """
    if "recipes" not in content:
        return ""
    parts = [
        "\n## The recipes",
        plain_table(*settings_table(content)),
        *sources(content),
        plain_table(REPORTED_HEADER, reported_rows(content)),
        REPORTED_NOTE,
    ]
    return "\n\n".join(parts) + "\n"
