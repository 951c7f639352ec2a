"""Rows and sentences on subgroups that the page and the text of a comparison share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from cxr_tfrecords.pages.markdown import plain_table
from trainer.comparison.subgroups.membership import NO_VALUE
from trainer.comparison.text import TITLES, change, is_percent, p_text, with_interval
from trainer.evaluation.inference import RARE_BELOW

LARGEST_HEADER = ("subgroup", "images", "groups", "difference to the largest", "p (Holm)")


def markdown(content: Mapping[str, Any]) -> str:
    """The section of comparison.md; empty if no table was given."""
    if "subgroups" not in content:
        return ""
    parts = ["\n## Subgroups", explain(content)]
    for column in content["subgroups"]["columns"]:
        parts += [f"### {column}", "\n".join(f"- {note}" for note in notes(content, column))]
        parts += [plain_table(LARGEST_HEADER, largest_rows(content, column))]
        parts += [plain_table(header(content), rows(content, column))]
    return "\n\n".join(part for part in parts if part) + "\n"


def explain(content: Mapping[str, Any]) -> str:
    """What the figures by subgroup are, and what they do not say."""
    primary, reference = TITLES[content["primary"]], content["reference"]
    points = ", in points" if is_percent(content["primary"]) else ""
    return (
        f"Test images by the values of {content['subgroups']['file']}: {primary} and recall of "
        "each class, means over seeds, with intervals as above. Differences are of "
        f"{primary}{points}: of each method to {reference} on the images of a subgroup, and of "
        f"each subgroup to the largest one for {reference}. All are exploratory; p-values are "
        "corrected (Holm) within a column. A difference between subgroups may come from something "
        "else in which they differ, such as equipment or severity. Where none is shown there may "
        "be one: intervals of small subgroups are wide. * marks a class of fewer than "
        f"{RARE_BELOW} groups of images, and a subgroup that has one."
    )


def notes(content: Mapping[str, Any], column: str) -> Iterator[str]:
    """What a reader must know of a column, a sentence each."""
    one = content["subgroups"]["columns"][column]
    unknown = one["subgroups"].get(NO_VALUE)
    if unknown:
        yield (
            f"{unknown['images']:,} of {content['test']['images']:,} test images have no value, "
            f"{one['not_listed']:,} of them because the table does not list them; they are shown "
            f"as {NO_VALUE}."
        )
    for value, part in one["subgroups"].items():
        if part["groups"] < RARE_BELOW:
            yield f"{value}: {part['groups']} groups of images are too few for figures."
        elif part["missing_classes"]:
            yield (
                f"{value} has no image of {', '.join(part['missing_classes'])}. Its "
                f"{TITLES[content['primary']]} would be of fewer classes than that of others, so "
                "it is not shown and not compared with them. Differences of methods are over the "
                "classes that it has."
            )
    if one["largest"] is None:
        yield "No subgroup has images of all classes, so subgroups are not compared."


def largest_rows(content: Mapping[str, Any], column: str) -> list[list[str]]:
    """Each subgroup against the largest, for the reference, under `LARGEST_HEADER`."""
    one, primary = content["subgroups"]["columns"][column], content["primary"]
    result = []
    for value, part in one["subgroups"].items():
        row = [mark(value, part), f"{part['images']:,}", f"{part['groups']:,}"]
        gap = part["to_largest"]
        if gap:
            row += [with_interval(primary, gap, change), p_text(gap["p_holm"])]
        else:
            row += ["the largest" if value == one["largest"] else "–", "–"]
        result.append(row)
    return result


def header(content: Mapping[str, Any]) -> list[str]:
    """Of the rows of `rows`."""
    title = TITLES[content["primary"]]
    columns = ["subgroup", "method", title, f"difference to {content['reference']}", "p (Holm)"]
    return [*columns, *(f"recall {name}" for name in content["class_names"])]


def rows(content: Mapping[str, Any], column: str) -> list[list[str]]:
    """Each method in each subgroup that has figures, under `header`."""
    primary, result = content["primary"], []
    for value, part in content["subgroups"]["columns"][column]["subgroups"].items():
        for name, metrics in part["entries"].items():
            own, difference = metrics.get(primary), part["differences"].get(name)
            row = [mark(value, part), name]
            row += [with_interval(primary, own) if own else "–"]
            row += [with_interval(primary, difference, change) if difference else "–"]
            row += [p_text(difference["p_holm"]) if difference else "–"]
            for class_name in content["class_names"]:
                star = "* " if class_name in part["rare_classes"] else ""
                metric = f"recall/{class_name}"
                row.append(star + with_interval(metric, metrics[metric]))
            result.append(row)
    return result


def mark(value: str, part: Mapping[str, Any]) -> str:
    """The subgroup's name, after a * if a class of it has too few groups of images."""
    return f"* {value}" if part["rare_classes"] else value
