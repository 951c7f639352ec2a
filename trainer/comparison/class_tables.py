"""Figures by class: which classes page and text show, and comparison_classes.csv, which has all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cxr_tfrecords import csv_rows, files
from cxr_tfrecords.pages import class_lists

FILE_NAME = "comparison_classes.csv"
HEADER = (
    "class",
    "method",
    "figure",
    "seed",
    "estimate",
    "low",
    "high",
    "difference",
    "difference_low",
    "difference_high",
    "p",
)


def shown_names(content: Mapping[str, Any], most: int = class_lists.ROWS) -> list[str]:
    """The classes that tables have, in the order of labels; see `class_lists.shown_classes`."""
    shown = class_lists.shown_classes(content["test"]["counts"], most)
    return [content["class_names"][label] for label in shown]


def left_out(content: Mapping[str, Any], most: int = class_lists.ROWS) -> str:
    """A sentence on the classes that `shown_names` leaves out; empty where it leaves out none."""
    return class_lists.left_out(len(content["class_names"]), FILE_NAME, most)


def by_class(
    leads: Sequence[str], names: Sequence[str], rows: Sequence[Sequence[str]]
) -> tuple[list[str], list[list[str]], int]:
    """A table with a column a class; one of many classes has a row a class instead.

    Args:
      leads: header of the columns before those of the classes.
      names: of the classes, as they are shown.
      rows: each has cells for `leads` and `names`.

    Returns:
      Header, rows, and how many columns are words.
    """
    if len(names) <= class_lists.COLUMNS:
        return [*leads, *names], [list(row) for row in rows], len(leads)
    titles = [", ".join(filter(None, row[: len(leads)])) for row in rows]
    columns = zip(*(row[len(leads) :] for row in rows), strict=True)
    turned = [[name, *cells] for name, cells in zip(names, columns, strict=True)]
    return ["class", *titles], turned, 1


def write_classes(path: str, content: Mapping[str, Any]) -> None:
    """Writes the figures of all classes, a row each, under `HEADER`.

    Figures without a seed are means over seeds, and their p-values are Holm's; others are of the
    models of one seed. Shares, probabilities and p-values are from 0 to 1.
    """
    with files.replacing(path) as temporary, csv_rows.open_csv(temporary, "w") as file:
        writer = csv_rows.writer(file)
        writer.writerow(HEADER)
        writer.writerows(["" if cell is None else cell for cell in row] for row in _rows(content))


def _rows(content: Mapping[str, Any]) -> Iterator[Sequence[Any]]:
    kinds = ("recall", "specificity", "precision", "f1", "auroc", "auprc")
    lines = ("calibration_intercept", "calibration_slope")
    for class_name in content["class_names"]:
        for method, entry in content["entries"].items():
            start = (class_name, method)
            difference = content["differences"].get(method)
            for kind in kinds:
                name = f"{kind}/{class_name}"
                other = difference["metrics"][name] if difference else {}
                p_value = other.get("p_holm")
                yield *start, kind, "", *_ends(entry["metrics"][name]), *_ends(other), p_value
            for kind in lines:
                for variant in ("raw", "calibrated"):
                    one = entry["probabilities"][variant][f"{kind}/{class_name}"]
                    yield *start, f"{kind} {variant}", "", *_ends(one), *_NONE
            for point in entry["operating_points"][class_name]:
                for kind in ("sensitivity", "specificity", "ppv", "npv"):
                    title = f"{kind} at the threshold"
                    yield *start, title, point["seed"], *_ends(point[kind]), *_NONE
                for threshold in point["thresholds"]:
                    yield *start, "threshold", point["seed"], threshold, None, None, *_NONE
            for test in (difference or {}).get("delong", {}).get(class_name, ()):
                ends = test["difference"], test["low"], test["high"], test["p_value"]
                yield *start, "auroc, DeLong", test["seed"], None, None, None, *ends


_NONE = (None,) * 4


def _ends(one: Mapping[str, Any]) -> tuple[Any, Any, Any]:
    return one.get("estimate"), one.get("low"), one.get("high")
