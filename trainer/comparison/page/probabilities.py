"""Sections of the comparison's page on probabilities, curves and thresholds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from cxr_tfrecords.pages.figures import draw
from cxr_tfrecords.pages.html import details, escaped, paragraph, stacked, table
from trainer.comparison import class_tables, operating_points
from trainer.comparison.page.curves import (
    MOST_CLASSES,
    MOST_METHODS,
    precision_recall,
    reliability,
    roc,
)
from trainer.comparison.text import (
    TITLES,
    class_mark,
    temperature_notes,
    temperatures,
    with_interval,
)
from trainer.deployment.corrected_probabilities import VARIANTS
from trainer.evaluation.calibration_line import BOUND
from trainer.evaluation.predictions import Predictions

_OPEN_CLASSES = 3


def probabilities(content: Mapping[str, Any]) -> Iterator[str]:
    yield paragraph(
        "Training on another class mix changes the probabilities, whatever it does to accuracy: a "
        "model that saw a rare class as often as the others predicts it too often. Shown are the "
        "probabilities as the model gives them (raw); those corrected from the class shares of "
        "training to those of the deployment (prior corrected; Saerens et al. 2002); and with a "
        "temperature too, fitted on validation (calibrated; Guo et al. 2017)."
    )
    yield from _prior_table(content)
    yield from _reliability(content)
    metrics = ("brier", "ece", "log_loss")
    rows = [
        [
            name,
            variant.replace("_", " "),
            *(stacked(with_interval(m, entry["probabilities"][variant][m])) for m in metrics),
            temperatures(entry["temperatures"]) if variant == "calibrated" else "",
        ]
        for name, entry in content["entries"].items()
        for variant in VARIANTS
    ]
    header = ["method", "probabilities", *(TITLES[m] for m in metrics), "temperature by seed"]
    yield table(header, rows, texts=2)
    yield from (paragraph(note, "quiet") for note in temperature_notes(content))
    yield from _calibration_lines(content)


def _prior_table(content: Mapping[str, Any]) -> Iterator[str]:
    names, entries = class_tables.shown_names(content), content["entries"]
    shown = [content["class_names"].index(name) for name in names]
    natural = entries[content["reference"]]["samples"]["natural"]
    total = max(sum(natural), 1)
    rows = [["training split", *(f"{natural[c] / total:.1%}" for c in shown)]]
    for method, entry in entries.items():
        rows.append([method, *(f"{entry['training_priors'][c]:.1%}" for c in shown)])
    marked = [class_mark(content, name) for name in names]
    yield _table_by_class(["class shares of training"], marked, rows)
    yield paragraph(
        "The shares of the training stream times the loss's weight of each class, in the epoch "
        "that was kept, as a mean over seeds. A method whose "
        "shares are not those of the training split needs the correction before its probabilities "
        "are read as risks. Focal loss and LDAM have no such shares; those of their stream are "
        f"shown. {class_tables.left_out(content)}".rstrip(),
        "quiet",
    )


def _table_by_class(leads: list[str], names: list[str], rows: list[list[Any]]) -> str:
    header, rows, texts = class_tables.by_class(leads, names, rows)
    return table(header, rows, texts=texts)


def _reliability(content: Mapping[str, Any]) -> Iterator[str]:
    names, reference = content["class_names"], content["reference"]
    methods = [reference, *content["differences"]][:MOST_METHODS]
    shown = [n for n in names if n in operating_points.rarest_first(content)[: _most(names)]]
    alt = "Reliability diagrams by method and class"
    yield draw("reliability", alt, lambda: reliability(content, methods, tuple(shown)))
    text = (
        "First seed, test split, bins of about equal size with Wilson's 95% intervals. On the "
        "dashed line predicted and observed shares agree; below it the class is predicted too "
        "often."
    )
    if len(shown) < len(names):
        text += f" The {len(shown)} rarest of {len(names)} classes."
    if len(methods) < len(content["entries"]):
        text += f" The first {len(methods)} of {len(content['entries'])} methods."
    yield paragraph(text, "quiet")


def _most(names: list[str]) -> int:
    return min(len(names), MOST_CLASSES)


def _calibration_lines(content: Mapping[str, Any]) -> Iterator[str]:
    names = class_tables.shown_names(content)
    rows = [
        [
            name,
            variant.replace("_", " "),
            kind,
            *(
                stacked(_line_part(entry["probabilities"][variant][f"calibration_{kind}/{c}"]))
                for c in names
            ),
        ]
        for name, entry in content["entries"].items()
        for variant in ("raw", "calibrated")
        for kind in ("intercept", "slope")
    ]
    yield details(
        "Calibration intercept and slope of each class against the rest",
        paragraph(
            "Intercept: 0 is ideal; below 0 the class is predicted too often, above 0 too rarely. "
            "Slope: 1 is ideal; below 1 the probabilities are too extreme, above 1 not extreme "
            "enough. A slope of ≥ 10: scores separate the class nearly perfectly. "
            f"{class_tables.left_out(content)}".rstrip()
        ),
        _table_by_class(
            ["method", "probabilities", ""], [class_mark(content, name) for name in names], rows
        ),
    )


def _line_part(one: Mapping[str, float | None]) -> str:
    if one["estimate"] is None:
        return "–"
    if one["low"] is None or one["high"] is None:
        return _bounded(one["estimate"])
    return f"{_bounded(one['estimate'])} [{_bounded(one['low'])}, {_bounded(one['high'])}]"


def _bounded(value: float) -> str:
    """An intercept or slope, which is kept within `BOUND`: at it, the true value may be any larger
    one."""
    if abs(value) < BOUND:
        return f"{value:.2f}"
    return f"≥ {BOUND:g}" if value > 0 else f"≤ −{BOUND:g}"


def curves(content: Mapping[str, Any], predictions: Mapping[str, Predictions]) -> Iterator[str]:
    yield "<h3>ROC</h3>"
    alt = "ROC curves by class"
    yield draw("roc", alt, lambda: roc(content, predictions))
    yield "<h3>Precision and recall</h3>"
    alt = "Precision-recall curves by class"
    yield draw("pr", alt, lambda: precision_recall(content, predictions))
    yield paragraph(
        "One class against the rest, first seed of each method, test split. Thin gray lines: "
        "guessing. For a rare class the ROC curve looks good early, since its false alarms are "
        "divided by the many others; precision shows them.",
        "quiet",
    )


def thresholds(content: Mapping[str, Any]) -> Iterator[str]:
    yield paragraph(
        f"{operating_points.explain(content)} {class_tables.left_out(content)}".rstrip()
    )
    for number, name in enumerate(operating_points.tabled(content)):
        rows = [[stacked(cell) for cell in row] for row in operating_points.rows(content, name)]
        points = table(operating_points.HEADER, rows)
        if number < _OPEN_CLASSES:
            yield f"<h3>{escaped(class_mark(content, name))}</h3>"
            yield points
        else:
            yield details(class_mark(content, name), points)
