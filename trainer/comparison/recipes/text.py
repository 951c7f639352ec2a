"""Tables of a comparison of recipes, of what `description` gives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from cxr_tfrecords.pages.markdown import plain_table
from trainer.comparison.recipes.description import show_value
from trainer.comparison.text import TITLES, is_percent, with_interval

REPORTED_HEADER = ["recipe", "figure", "reported by the authors", "here"]
COUNT_HEADER = ["recipe", "class", "training images, authors", "here"]
MATRIX_NOTE = (
    "Confusion matrices: of the test images of each true class, the share that was given each "
    "class; that of the authors before that here. A slash stands between them."
)
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
            rows.append([name, title, as_printed(metric, value), here])
    return rows


def as_printed(metric: str, value: float) -> str:
    """A reported value with the digits that its authors print; in percent where the metric is."""
    return f"{100 * value:g}%" if is_percent(metric) else f"{value:g}"


def count_rows(content: Mapping[str, Any]) -> list[list[str]]:
    """Images of an epoch of each class after sampling, reported and here; under `COUNT_HEADER`."""
    rows = []
    for name, reported in content["recipes"]["reported"].items():
        planned = content["entries"].get(name, {"planned_last": ()})["planned_last"]
        here = dict(zip(content["class_names"], planned, strict=False))
        printed = reported["training_images"]
        for class_name in printed:
            rows.append([name, class_name, *(_share(one, class_name) for one in (printed, here))])
    return rows


def matrix_tables(content: Mapping[str, Any]) -> Iterator[tuple[list[str], list[list[str]]]]:
    """Header and rows of each reported confusion matrix: shares of the true class, those of the
    authors before those here."""
    names = content["class_names"]
    for recipe, reported in content["recipes"]["reported"].items():
        if not (matrix := reported["confusion_matrix"]):
            continue
        measured = content["entries"].get(recipe, {"confusion_matrix": ()})["confusion_matrix"]
        here = {
            true: dict(zip(names, row, strict=True))
            for true, row in zip(names, measured, strict=False)
        }
        rows = [
            [true, *(f"{_part(row, c)} / {_part(here.get(true, {}), c)}" for c in row)]
            for true, row in matrix.items()
        ]
        yield [f"{recipe}: true class", *next(iter(matrix.values()))], rows


def _share(counts: Mapping[str, float], name: str) -> str:
    return f"{counts[name]:,} ({_part(counts, name)})" if name in counts else "–"


def _part(counts: Mapping[str, float], name: str) -> str:
    total = sum(counts.values())
    return f"{counts[name] / total:.1%}" if name in counts and total else "–"


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
    ]
    if rows := count_rows(content):
        parts.append(plain_table(COUNT_HEADER, rows))
    if matrices := list(matrix_tables(content)):
        parts += [MATRIX_NOTE, *(plain_table(*one) for one in matrices)]
    parts.append(REPORTED_NOTE)
    return "\n\n".join(parts) + "\n"
