"""Metrics and comparisons from confusion matrices alone, such as published ones.

Proportions get Wilson intervals, and models are compared as if tested on different images. Where
two models may have seen the same images, McNemar's test is bounded (`paired_bounds`). The page
names what needs single predictions and so cannot be computed.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from cxr_tfrecords import files
from cxr_tfrecords.errors import UserError
from cxr_tfrecords.pages.markdown import markdown_table
from trainer.comparison.paired_bounds import paired_bounds, paired_sentence
from trainer.evaluation.bootstrap import Interval, holm
from trainer.evaluation.metrics import confusion_metrics
from trainer.evaluation.shares import TwoProportions, two_proportions, wilson

OUT_OF_REACH = """\
What cannot be computed from matrices alone:

- paired tests (McNemar, DeLong, paired bootstrap): they need to know which images each model got
  wrong. Only the range of McNemar's p-value can be computed. The comparisons in the table ignore
  that two models saw the same images, and their intervals are wider than a paired one's would
  usually be;
- AUROC, average precision, log loss, Brier score, calibration, other thresholds: they need
  probabilities;
- how much another seed, another split or several images of one patient would change: the
  intervals assume that images are independent, and hold for these trained models only."""


@dataclasses.dataclass(frozen=True)
class Matrices:
    """Confusion matrices of some models.

    Attributes:
      class_names: in the order of rows and columns.
      models: name -> int64 [classes, classes], rows are true classes.
      content: the whole file, with its other parts.
    """

    class_names: list[str]
    models: dict[str, np.ndarray]
    content: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Two models on one proportion.

    Attributes:
      measure: `accuracy` or `recall/<class>`.
      first, second: names of the models.
      result: the difference, first minus second.
      adjusted: the p-value, corrected over all comparisons of the file (Holm).
    """

    measure: str
    first: str
    second: str
    result: TwoProportions
    adjusted: float | None


def read_matrices(path: str) -> Matrices:
    """Reads {"class_names": [...], "models": {"A": [[...], ...]}}, rows being true classes, or a
    file of published tables (class_order, confusion_matrices_rows_actual, see `published_tables`).

    Raises:
      UserError: no such file, or its matrices are not square tables of counts.
    """
    content = files.read_named_json(path)
    keys = ("class_names", "models")
    if isinstance(content, dict) and "confusion_matrices_rows_actual" in content:
        keys = ("class_order", "confusion_matrices_rows_actual")
    try:
        names, models = content[keys[0]], content[keys[1]]
        matrices = {name: _matrix(rows, len(names)) for name, rows in models.items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path} must hold {keys[0]} and {keys[1]}, with one row of counts for each true class "
            f"of a model ({error})"
        ) from error
    if not matrices:
        raise UserError(f"{path}: {keys[1]} is empty: add at least one model")
    return Matrices([str(name) for name in names], matrices, content)


def summarize(counts: np.ndarray, class_names: Sequence[str]) -> dict[str, Any]:
    """All metrics of one matrix (int64 [classes, classes]), JSON values; undefined is None.

    Proportions (accuracy; recall, precision and specificity by class) are [estimate, low, high]
    with Wilson's 95% interval.
    """
    overall, per_class = confusion_metrics(counts[np.newaxis])
    total, hits = int(counts.sum()), np.diag(counts)
    support, predicted = counts.sum(axis=1), counts.sum(axis=0)
    rest = total - support
    summary: dict[str, Any] = {name: _plain(values[0]) for name, values in overall.items()}
    summary |= {"images": total, "accuracy": _ends(wilson(hits.sum(), total)), "per_class": {}}
    for c, name in enumerate(class_names):
        summary["per_class"][name] = {
            "support": int(support[c]),
            "recall": _ends(wilson(hits[c], support[c])),
            "precision": _ends(wilson(hits[c], predicted[c])),
            "specificity": _ends(wilson(rest[c] - predicted[c] + hits[c], rest[c])),
            "f1": _plain(per_class["f1"][0, c]),
        }
    return summary


def compare(matrices: Matrices) -> list[Comparison]:
    """Accuracy and the recall of each class for every pair of models, as if tested on different
    images; p-values are corrected over all of these comparisons (Holm)."""
    results = []
    for first, second in itertools.combinations(matrices.models, 2):
        a, b = matrices.models[first], matrices.models[second]
        sides = {"accuracy": [(int(np.trace(m)), int(m.sum())) for m in (a, b)]}
        for c, name in enumerate(matrices.class_names):
            sides[f"recall/{name}"] = [(int(m[c, c]), int(m[c].sum())) for m in (a, b)]
        for measure, (one, other) in sides.items():
            result = two_proportions(one, other)
            results.append((measure, first, second, result))
    adjusted = holm([result.p_value for *_, result in results])
    return [Comparison(*row, p) for row, p in zip(results, adjusted, strict=True)]


def describe(matrices: Matrices, leak: str = "") -> str:
    """The page: metrics by model and class, comparisons, and what cannot be computed.

    Args:
      leak: Markdown on test images that were trained on, to be read before any figure.
    """
    summaries = {
        m: summarize(counts, matrices.class_names) for m, counts in matrices.models.items()
    }
    head = ["# From confusion matrices", str(matrices.content.get("citation", "")), leak]
    if leak:
        head.append("## Metrics")
    parts = [part for part in head if part]
    parts += [_overall_table(summaries), _class_table(summaries)]
    comparisons = compare(matrices)
    if comparisons:
        parts += ["## Models against each other", _same_images(matrices)]
        parts += [_comparison_table(comparisons), _verdict(comparisons)]
        if leak:
            parts.append(
                "These comparisons take all figures as printed. Do not rank a model that may have "
                "been trained on its test images: see the top of this page."
            )
    return "\n\n".join([*parts, OUT_OF_REACH])


def _overall_table(summaries: dict[str, dict[str, Any]]) -> str:
    rows = [
        [
            model,
            f"{s['images']:,}",
            _share(s["accuracy"]),
            *(_number(s[name]) for name in ("balanced_accuracy", "macro_f1")),
            _number(s["mcc"], ".3f"),
        ]
        for model, s in summaries.items()
    ]
    header = ["model", "images", "accuracy (95%)", "balanced accuracy", "macro F1", "MCC"]
    return markdown_table(header, rows)


def _class_table(summaries: dict[str, dict[str, Any]]) -> str:
    rows = [
        [
            f"{model}, {name}",
            f"{values['support']:,}",
            *(_share(values[key]) for key in ("recall", "precision", "specificity")),
            _number(values["f1"]),
        ]
        for model, s in summaries.items()
        for name, values in s["per_class"].items()
    ]
    header = ["model, class", "n", "recall (95%)", "precision (95%)", "specificity (95%)", "F1"]
    return markdown_table(header, rows)


def _comparison_table(comparisons: Sequence[Comparison]) -> str:
    rows = []
    for c in comparisons:
        r = c.result
        cell = "–"
        if r.difference is not None and r.low is not None and r.high is not None:
            cell = f"{r.difference * 100:+.1f} ({r.low * 100:+.1f} to {r.high * 100:+.1f})"
        p_values = [_number(p, ".2g") for p in (r.p_value, c.adjusted)]
        rows.append([f"{c.measure}, {c.first} - {c.second}", cell, *p_values, r.method])
    return markdown_table(["measure", "points (95%)", "p", "p, Holm", "test"], rows)


def _same_images(matrices: Matrices) -> str:
    paired = {(bounds.first, bounds.second): bounds for bounds in paired_bounds(matrices.models)}
    sentences = []
    for (a, one), (b, other) in itertools.combinations(matrices.models.items(), 2):
        if (a, b) in paired:
            sentences.append(paired_sentence(paired[a, b]))
        else:
            sizes = " and ".join("/".join(map(str, m.sum(axis=1))) for m in (one, other))
            sentences.append(
                f"{a} and {b} were tested on different images ({sizes} by class): a part of their "
                "difference may come from the test sets."
            )
    return "\n".join(f"- {sentence}" for sentence in sentences)


def _verdict(comparisons: Sequence[Comparison]) -> str:
    apart = [c for c in comparisons if c.adjusted is not None and c.adjusted < 0.05]
    if not apart:
        return f"None of these {len(comparisons)} differences is beyond chance at 5% (Holm)."
    named = "; ".join(
        f"{c.measure}: {a} above {b}"
        for c in apart
        for a, b in [(c.first, c.second) if (c.result.difference or 0) > 0 else (c.second, c.first)]
    )
    return (
        f"Beyond chance at 5% after Holm's correction are {len(apart)} of these "
        f"{len(comparisons)} differences: {named}. These counts show no clear difference in the "
        "others."
    )


def _matrix(rows: Any, classes: int) -> np.ndarray:
    counts = np.array(rows)
    if counts.shape != (classes, classes) or counts.dtype.kind not in "iu" or (counts < 0).any():
        raise ValueError(f"not {classes} x {classes} counts: {rows!r:.80}")
    return counts.astype(np.int64)


def _ends(interval: Interval) -> list[float | None]:
    return [interval.estimate, interval.low, interval.high]


def _plain(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _number(value: float | None, form: str = ".1%") -> str:
    return "–" if value is None else format(value, form)


def _share(ends: Sequence[float | None]) -> str:
    value, low, high = ends
    return "–" if value is None else f"{value:.1%} ({low:.1%} to {high:.1%})"
