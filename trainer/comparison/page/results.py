"""Sections of the comparison's page on results: verdict, tables, training and sampling.

Each function yields HTML. Names of classes and files are escaped by `html`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cxr_tfrecords.pages import class_lists
from cxr_tfrecords.pages.figures import draw
from cxr_tfrecords.pages.html import Html, box, details, escaped, paragraph, table
from trainer.comparison import class_tables, verdicts
from trainer.comparison.methods import Entry
from trainer.comparison.page import charts
from trainer.comparison.text import (
    TITLES,
    budget_header,
    budget_rows,
    change,
    class_mark,
    first_run,
    number,
    p_equals,
    tested,
    tests_header,
    tests_note,
    tests_rows,
)
from trainer.comparison.verdict_text import headline, verdict_lines, warnings
from trainer.evaluation.inference import better

_COLUMNS = 6
EXPLANATION = (
    "Better and worse: the difference to the reference is beyond what other seeds and other test "
    "images explain (p below 0.05 after Holm's correction for the number of methods). Equivalent: "
    "it is shown to be smaller than the margin, the smallest difference that matters. "
    "Inconclusive: neither is shown, so the interval says what is still possible. Only the primary "
    "metric and then the Brier score are judged; everything else on this page is exploratory."
)
_COLOURS = {verdicts.BETTER: "green", verdicts.WORSE: "red"}


def verdict(content: Mapping[str, Any]) -> Iterator[str]:
    words = verdicts.words(content, content["primary"])
    colours = {name: _COLOURS.get(word or "", "gray") for name, word in words.items()}
    overall = next((c for c in ("green", "red") if c in colours.values()), "gray")
    yield box(overall, headline(content))
    for line in warnings(content):
        yield box("amber", line)
    yield '<div class="verdicts">'
    for name, line in zip(colours, verdict_lines(content), strict=True):
        yield box(colours[name], line)
    yield "</div>"
    yield paragraph(EXPLANATION)


def results(content: Mapping[str, Any]) -> Iterator[str]:
    test, settings = content["test"], content["settings"]
    yield paragraph(
        f"{tested(content)}: {test['images']:,} images in {test['groups']:,} groups. Means over "
        f"seeds with {settings['level']:.0%} intervals for other seeds and other images, from "
        f"{settings['resamples']:,} resamples of groups. Bold: the best of its row, where it is "
        f"judged better than the reference ({content['reference']})."
    )
    reference, others = content["reference"], list(content["differences"])
    best = {metric: _best(content, metric) for metric in (content["primary"], "brier")}
    for names in _parts(others, _COLUMNS - 1):
        shown = {name: content["entries"][name]["metrics"] for name in (reference, *names)}
        rows = [
            [title, *(_cell(m, one[m], bold=name == best.get(m)) for name, one in shown.items())]
            for m, title in TITLES.items()
        ]
        yield table(["", *map(_breakable, shown)], rows)
    yield f"<h3>Difference to {escaped(content['reference'])}</h3>"
    yield paragraph(
        "Paired: the same test images and, where seeds agree, the same seeds. In points where a "
        "metric is a percentage. p after Holm over the methods; bold where it is judged better or "
        "worse. Lower is better for log loss, Brier score and ECE."
    )
    for names in _parts(others, _COLUMNS):
        rows = [
            [title, *(_difference(m, content["differences"][name]) for name in names)]
            for m, title in TITLES.items()
        ]
        yield table(["", *map(_breakable, names)], rows)
    yield details("Tests image by image: McNemar and DeLong", *_tests(content))


def _parts(names: Sequence[str], most: int) -> Iterator[Sequence[str]]:
    """The methods in parts, a table each, so that each table fits on a printed page."""
    for start in range(0, len(names), most):
        yield names[start : start + most]


def _breakable(name: str) -> Html:
    """A method's name, with a line break allowed after each `+`."""
    return Html(escaped(name).replace("+", "+<wbr>"))


def _best(content: Mapping[str, Any], metric: str) -> str | None:
    """The method that is best in a judged metric, if it is judged better than the reference."""
    helped = verdicts.named(content, metric, verdicts.BETTER)
    sign = -1 if better(metric, -1) else 1
    values = {name: content["entries"][name]["metrics"][metric]["estimate"] for name in helped}
    return max(values, key=lambda name: sign * values[name], default=None)


def _cell(metric: str, one: Mapping[str, Any], *, bold: bool = False, show: Any = number) -> Html:
    """An estimate over its interval. The numbers are ours: nothing to escape."""
    estimate = show(metric, one["estimate"])
    estimate = f"<b>{estimate}</b>" if bold else estimate
    if one["low"] is None:
        return Html(estimate)
    low, high = show(metric, one["low"]), show(metric, one["high"])
    return Html(f"{estimate}<br><small>{low} to {high}</small>")


def _difference(metric: str, one: Mapping[str, Any]) -> Html:
    judged = one["verdict"].get(metric, {"word": None})["word"]
    text = _cell(metric, one["metrics"][metric], bold=judged in _COLOURS, show=change)
    if one["metrics"][metric]["p_holm"] is None:
        return text
    p_value = escaped(p_equals(one["metrics"][metric]["p_holm"]))
    return Html(f"{text}<br><small>{p_value}</small>")


def _tests(content: Mapping[str, Any]) -> Iterator[str]:
    if content["test"]["single_image_groups"]:
        yield table(tests_header(content), tests_rows(content))
    yield paragraph(tests_note(content), "quiet")


def forest(content: Mapping[str, Any]) -> Iterator[str]:
    alt = "Difference of each method to the reference, with intervals"
    yield draw("forest", alt, lambda: charts.forest(content))
    yield paragraph(
        "Filled: judged better or worse; hollow: equivalent, inconclusive or not judged. A method "
        "has the same colour in all pictures of this page; the reference is black.",
        "quiet",
    )


def confusion(content: Mapping[str, Any]) -> Iterator[str]:
    classes = len(content["class_names"])
    if classes > class_lists.ROWS:
        yield paragraph(f"{classes:,} classes are too many for a picture: see comparison.json.")
        return
    alt = "Confusion matrices of all methods"
    yield draw("confusion", alt, lambda: charts.confusion(content))
    yield paragraph(
        "Test images, the mean over seeds; the shade and the percentage are the share of the true "
        "class.",
        "quiet",
    )


def recall(content: Mapping[str, Any]) -> Iterator[str]:
    alt = "Recall of each class by method, with intervals"
    yield draw("recall", alt, lambda: charts.recall(content))
    support = dict(zip(content["class_names"], content["test"]["counts"], strict=True))
    rarest = min(support, key=lambda name: support[name] or float("inf"))
    text = (
        f"{class_mark(content, rarest)} has {support[rarest]:,} test images: one of them is "
        f"{100 / max(support[rarest], 1):.1f} points of its recall."
    )
    left_out = class_tables.left_out(content, class_lists.DRAWN)
    yield paragraph(f"{text} {left_out}")


def training(content: Mapping[str, Any], entries: Sequence[Entry]) -> Iterator[str]:
    alt = "Validation loss and balanced accuracy against updates"
    yield draw("training", alt, lambda: charts.training(content, entries))
    yield paragraph(
        f"One line a run, {_seeds(content)}; a dot marks the epoch that was kept. The axis counts "
        "updates of the weights: where lines end at different places, budgets differed, which "
        "may explain a part of the difference between methods. Losses of other training objectives "
        "are all shown as plain cross-entropy on validation."
    )
    yield table(budget_header(content), budget_rows(content))


def _seeds(content: Mapping[str, Any]) -> str:
    counts = sorted({len(entry["seeds"]) for entry in content["entries"].values()})
    text = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    text += f" seed{'s' if counts[-1] > 1 else ''} a method"
    return text + (f" and {content['folds']} folds a seed" if content["folds"] else "")


def sampling(content: Mapping[str, Any], entries: Sequence[Entry]) -> Iterator[str]:
    alt = "Training images of each class before and after sampling"
    yield draw("counts", alt, lambda: charts.class_counts(content))
    yield paragraph(
        "Only the training stream is resampled, after the split; validation and test keep their "
        "class shares. Methods that change the loss alone keep the training split's counts. Bars "
        "are of the last epoch, which differs from the others with progressive sampling alone; "
        f"methods of the same counts share bars. Counts are of the {first_run(content)}."
    )
    rows = [row for entry in entries if (row := _audit_row(entry))]
    if not rows:
        yield paragraph("No run left a sampler audit.", "quiet")
        return
    yield "<h3>Sampler audit</h3>"
    yield table(
        [
            "method",
            "epochs",
            "images delivered in the last epoch",
            "different images seen",
            "one image in an epoch, at most",
            "records read for each delivered",
        ],
        rows,
    )
    yield paragraph(f"What each sampler delivered, {first_run(content)}.", "quiet")


def _audit_row(entry: Entry) -> list[str] | None:
    """Main figures of a run's sampler_audit.json; None where there is none, or another format."""
    path = os.path.join(entry.runs[0].path, "sampler_audit.json")
    try:
        with open(path, encoding="utf-8") as file:
            audit = json.load(file)
        rows = audit["epochs"]
        last = rows[-1]
        seen, all_images = sum(last["unique_so_far"]), sum(audit["natural_counts"])
        return [
            entry.name,
            f"{len(rows):,}",
            f"{sum(last['realised_counts']):,}",
            f"{seen:,} of {all_images:,}",
            f"{max(row['largest_repeat'] for row in rows):,}×",
            f"{last['read_amplification']:.2f}",
        ]
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None
