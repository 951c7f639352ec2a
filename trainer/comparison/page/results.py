"""Sections of the comparison's page on results: verdict, tables, training and sampling.

Each function yields HTML. Names of classes and files are escaped by `html`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cxr_tfrecords.pages.figures import draw
from cxr_tfrecords.pages.html import Html, box, details, escaped, paragraph, table
from trainer.comparison import compare_methods
from trainer.comparison.methods import Entry
from trainer.comparison.page import charts
from trainer.comparison.text import (
    ALPHA,
    BUDGET_HEADER,
    TITLES,
    budget_rows,
    change,
    headline,
    is_clear,
    number,
    p_text,
    verdicts,
)

_COLUMNS = 6
P_VALUES = (
    "A p-value is how often chance alone (other test images, and where there are several seeds "
    "other seeds) would give a difference at least as large if the methods were equally good; "
    "“after Holm” means that it was raised for the number of methods compared, and below "
    f"{ALPHA:g} counts as evidence. A large one does not show that methods are "
    "equal: read the interval for what is still possible."
)


def verdict(content: Mapping[str, Any]) -> Iterator[str]:
    helped = _kinds(content)
    overall = "gray"
    if "green" in helped.values() or "red" in helped.values():
        overall = "green" if "green" in helped.values() else "red"
    yield box(overall, headline(content))
    yield '<div class="verdicts">'
    for name, line in zip(content["differences"], verdicts(content), strict=True):
        yield box(helped[name], line)
    yield "</div>"
    yield paragraph(
        "Green: better than the reference beyond chance; red: worse; gray: no clear difference.",
        "quiet",
    )
    yield paragraph(P_VALUES)


def _kinds(content: Mapping[str, Any]) -> dict[str, str]:
    """Method -> colour of its verdict."""
    primary, kinds = content["primary"], {}
    for name, found in content["differences"].items():
        one = found["metrics"][primary]
        kinds[name] = "gray"
        if is_clear(one):
            kinds[name] = "green" if compare_methods.better(primary, one["estimate"]) else "red"
    return kinds


def results(content: Mapping[str, Any]) -> Iterator[str]:
    test, settings = content["test"], content["settings"]
    yield paragraph(
        f"Test split: {test['images']:,} images in {test['groups']:,} groups. Means over seeds "
        f"with {settings['level']:.0%} intervals from {settings['resamples']:,} resamples of "
        "groups and seeds. Bold: the best of its row, if it differs from the reference "
        f"({content['reference']}) beyond chance."
    )
    reference, others = content["reference"], list(content["differences"])
    best = {metric: _best(content, metric) for metric in TITLES}
    for names in _parts(others, _COLUMNS - 1):
        shown = {name: content["entries"][name]["metrics"] for name in (reference, *names)}
        rows = [
            [title, *(_cell(m, one[m], bold=name == best[m]) for name, one in shown.items())]
            for m, title in TITLES.items()
        ]
        yield table(["", *map(_breakable, shown)], rows)
    yield f"<h3>Difference to {escaped(content['reference'])}</h3>"
    yield paragraph(
        "Paired: the same test images and, where seeds agree, the same seeds. In points where a "
        "metric is a percentage. p after Holm over the methods; bold below "
        f"{ALPHA:g}. Lower is better for log loss, Brier score and ECE."
    )
    for names in _parts(others, _COLUMNS):
        found = [content["differences"][name]["metrics"] for name in names]
        rows = [[title, *(_difference(m, one[m]) for one in found)] for m, title in TITLES.items()]
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
    """The method that is best in a metric; None if that is not beyond chance."""
    found = {n: e["metrics"][metric]["estimate"] for n, e in content["entries"].items()}
    known = {name: value for name, value in found.items() if value is not None}
    if not known:
        return None
    sign = -1 if compare_methods.better(metric, -1) else 1
    best = max(known, key=lambda name: sign * known[name])
    differences = content["differences"]
    against = [best] if best in differences else list(differences)
    return best if all(is_clear(differences[n]["metrics"][metric]) for n in against) else None


def _cell(metric: str, one: Mapping[str, Any], *, bold: bool = False, show: Any = number) -> Html:
    """An estimate over its interval. The numbers are ours: nothing to escape."""
    estimate = show(metric, one["estimate"])
    estimate = f"<b>{estimate}</b>" if bold else estimate
    low, high = show(metric, one["low"]), show(metric, one["high"])
    return Html(f"{estimate}<br><small>{low} to {high}</small>")


def _difference(metric: str, one: Mapping[str, Any]) -> Html:
    text = _cell(metric, one, bold=is_clear(one), show=change)
    p_value = escaped(p_text(one["p_holm"]))
    p_value = p_value if p_value.startswith("&lt;") else f"= {p_value}"
    return Html(f"{text}<br><small>p {p_value}</small>")


def _tests(content: Mapping[str, Any]) -> Iterator[str]:
    names = content["class_names"]
    yield table(
        ["method", "McNemar (accuracy)", *(f"DeLong {name}" for name in names)],
        [
            [
                name,
                p_text(found["mcnemar"]["p_holm"]),
                *(p_text(found["delong"][c]["p_holm"]) for c in names),
            ]
            for name, found in content["differences"].items()
        ],
    )
    yield paragraph(
        "p-values of each seed, combined by twice their median and corrected over the methods "
        "(Holm). These tests assume that images are independent.",
        "quiet",
    )


def forest(content: Mapping[str, Any]) -> Iterator[str]:
    alt = "Difference of each method to the reference, with intervals"
    yield draw("forest", alt, lambda: charts.forest(content))
    yield paragraph(
        f"Filled: p below {ALPHA:g} after Holm; hollow: no clear difference to the reference.",
        "quiet",
    )


def confusion(content: Mapping[str, Any]) -> Iterator[str]:
    alt = "Confusion matrices of all methods"
    yield draw("confusion", alt, lambda: charts.confusion(content))
    yield paragraph(
        "Test images, summed over seeds, so that each image counts once a seed; the shade and the "
        "percentage are the share of the true class.",
        "quiet",
    )


def recall(content: Mapping[str, Any]) -> Iterator[str]:
    alt = "Recall of each class by method, with intervals"
    yield draw("recall", alt, lambda: charts.recall(content))
    support = dict(zip(content["class_names"], content["test"]["counts"], strict=True))
    rarest = min(support, key=lambda name: support[name] or float("inf"))
    text = (
        f"{rarest} has {support[rarest]:,} test images: one of them is "
        f"{100 / max(support[rarest], 1):.1f} points of its recall."
    )
    shown = [e["metrics"][f"recall/{c}"] for e in content["entries"].values() for c in support]
    if any(one["low"] is not None and one["low"] == one["high"] for one in shown):
        text += (
            " Where every resample gives the same recall, as at 100%, the interval has no width; "
            "that is a limit of the bootstrap and not certainty."
        )
    yield paragraph(text)


def training(content: Mapping[str, Any], entries: Sequence[Entry]) -> Iterator[str]:
    alt = "Validation loss and balanced accuracy against updates"
    yield draw("training", alt, lambda: charts.training(content, entries))
    yield paragraph(
        f"One line a run, {_seeds(content)}; a dot marks the epoch that was kept. The axis counts "
        "updates of the weights: where lines end at different places, budgets differed, which "
        "may explain a part of the difference between methods. Losses of other training objectives "
        "are all shown as plain cross-entropy on validation."
    )
    yield table(list(BUDGET_HEADER), budget_rows(content))


def _seeds(content: Mapping[str, Any]) -> str:
    counts = sorted({len(entry["seeds"]) for entry in content["entries"].values()})
    text = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return f"{text} seed{'s' if counts[-1] > 1 else ''} a method"


def sampling(content: Mapping[str, Any], entries: Sequence[Entry]) -> Iterator[str]:
    alt = "Training images of each class before and after sampling"
    yield draw("counts", alt, lambda: charts.class_counts(content))
    yield paragraph(
        "Only the training stream is resampled, after the split; validation and test keep their "
        "class shares. Methods that change the loss alone keep the training split's counts."
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
    yield paragraph("What each sampler delivered, first seed.", "quiet")


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
