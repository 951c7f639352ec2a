"""comparison.md: the whole comparison as text and tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cxr_tfrecords.pages import class_lists
from cxr_tfrecords.pages.markdown import all_escaped, plain_table
from trainer.comparison import class_tables, decision_curves, operating_points
from trainer.comparison.text import (
    TITLES,
    budget_header,
    budget_rows,
    change,
    class_mark,
    design_line,
    is_percent,
    p_text,
    temperature_notes,
    temperatures,
    tested,
    tests_header,
    tests_note,
    tests_rows,
    title,
    with_interval,
)
from trainer.comparison.verdict_text import headline, verdict_lines, warnings
from trainer.deployment.corrected_probabilities import VARIANTS


def markdown(content: Mapping[str, Any]) -> str:
    """The whole comparison as one page."""
    content = all_escaped(content)  # names of classes and runs may hold any character
    test, settings = content["test"], content["settings"]
    counted = zip(content["class_names"], test["counts"], strict=True)
    counts = class_lists.few((f"{name} {count:,}" for name, count in counted), class_lists.ROWS)
    shown = ("balanced_accuracy", "accuracy", "macro_f1", "mcc", "auroc_macro")
    parts = [
        f"# {title(content)}",
        design_line(content),
        f"**{headline(content)}**",
        "\n".join(f"- {line}" for line in verdict_lines(content)),
        *warnings(content),
        f"{tested(content)}: {test['images']:,} images in {test['groups']:,} groups ({counts}). "
        f"Figures are means over seeds. Their {settings['level']:.0%} intervals hold for other "
        "seeds and other test images (Obuchowski and Rockette 1995; Hillis 2007), with "
        f"{settings['resamples']:,} resamples of groups; differences are paired. Only the verdicts "
        "on the primary metric and the Brier score answer a question that was set before; "
        "everything else is exploratory.",
        "## Results",
        _metrics_table(content),
        f"## Difference to {content['reference']}",
        _differences_table(content, shown),
        "## Recall by class",
        _recall_table(content),
        *filter(None, [class_tables.left_out(content)]),
        "## Probabilities",
        "Raw; corrected from the class mix of training to that of the deployment (Saerens et al. "
        "2002); and with a temperature fitted on validation too (Guo et al. 2017).",
        _probability_table(content),
        "## Operating points",
        operating_points.markdown(content),
        "## Net benefit",
        decision_curves.markdown(content),
        "## Tests by image",
        _tests_table(content),
        "## Budget",
        plain_table(budget_header(content), budget_rows(content)),
    ]
    return "\n\n".join(parts) + "\n"


def _metrics_table(content: Mapping[str, Any]) -> str:
    return plain_table(["method", *TITLES.values()], _metrics_rows(content, tuple(TITLES)))


def _recall_table(content: Mapping[str, Any]) -> str:
    names = class_tables.shown_names(content)
    rows = _metrics_rows(content, [f"recall/{name}" for name in names])
    marked = [class_mark(content, name) for name in names]
    header, rows, texts = class_tables.by_class(["method"], marked, rows)
    return plain_table(header, rows, texts=texts)


def _metrics_rows(content: Mapping[str, Any], metrics: Sequence[str]) -> list[list[str]]:
    return [
        [name, *(with_interval(m, entry["metrics"][m]) for m in metrics)]
        for name, entry in content["entries"].items()
    ]


def _differences_table(content: Mapping[str, Any], metrics: Sequence[str]) -> str:
    header = ["method"]
    for metric in metrics:
        header += [TITLES[metric] + (", points" if is_percent(metric) else ""), "p (Holm)"]
    rows = []
    for name, difference in content["differences"].items():
        row = [name]
        for metric in metrics:
            one = difference["metrics"][metric]
            row += [with_interval(metric, one, change), p_text(one["p_holm"])]
        rows.append(row)
    return plain_table(header, rows)


def _probability_table(content: Mapping[str, Any]) -> str:
    metrics = ("brier", "ece", "log_loss")
    header = ["method", "probabilities", *(TITLES[m] for m in metrics), "temperature"]
    rows = []
    for name, entry in content["entries"].items():
        for variant in VARIANTS:
            scores = entry["probabilities"][variant]
            cooled = temperatures(entry["temperatures"])
            rows.append(
                [
                    name,
                    variant.replace("_", " "),
                    *(with_interval(m, scores[m]) for m in metrics),
                    cooled if variant == "calibrated" else "",
                ]
            )
    return "\n\n".join([plain_table(header, rows), *temperature_notes(content)])


def _tests_table(content: Mapping[str, Any]) -> str:
    if not content["test"]["single_image_groups"]:
        return tests_note(content)
    table = plain_table(tests_header(content), tests_rows(content))
    return table + "\n\n" + tests_note(content)
