"""Sentences and rows on an evaluation elsewhere, which its page and its text share."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from trainer.comparison.text import TITLES, change, number, unit, with_interval
from trainer.evaluation.inference import RARE_BELOW
from trainer.external.figures import BIAS, ESTIMATED, PROBABILITIES, TRUE

PRIMARY = "balanced_accuracy"
_SHOWN = ("accuracy", PRIMARY, "macro_f1", "mcc", "auroc_macro")
_VARIANT_TITLES = {
    "raw": "raw",
    "prior_corrected": "prior-corrected",
    "calibrated": "calibrated",
    BIAS: "with a bias for each class",
    ESTIMATED: "the same, at the estimated shares",
    TRUE: "the same, at the true shares",
}
# A larger part of all images in the wrong class's share makes the estimate of no use.
_FAR = 0.1


def set_name(content: Mapping[str, Any]) -> str:
    """The other data set's folder, and the split where it is one."""
    data = content["data"]
    name = os.path.basename(data["path"].rstrip("/")) or data["path"]
    return (
        f"the data set {name}" if data["split"] == "all" else f"the {data['split']} split of {name}"
    )


def views(content: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """(title, figures) of what is shown in full: the mean over seeds, or each run."""
    if content["mean"]:
        return [(f"mean of {len(content['runs'])} seeds", content["mean"])]
    return [(run_name(one), one) for one in content["runs"]]


def run_name(figures: Mapping[str, Any]) -> str:
    return os.path.basename(figures["runs"][0].rstrip("/"))


def is_lower(figures: Mapping[str, Any]) -> bool:
    """Whether the primary metric is shown to be lower there than internally."""
    high = figures["metrics"][PRIMARY]["difference"]["high"]
    return high is not None and high < 0


def verdict(content: Mapping[str, Any], title: str, figures: Mapping[str, Any]) -> str:
    """One sentence: the primary metric there, and how much lower or higher than internally."""
    one = figures["metrics"][PRIMARY]
    difference = one["difference"]
    points = 100 * difference["estimate"]
    gap = f"{abs(points):.1f} points {'lower' if points < 0 else 'higher'} than"
    if not round(points, 1):
        gap = "the same as"
    who = f" ({title})" if len(views(content)) > 1 or content["mean"] else ""
    text = (
        f"On {set_name(content)}{who}, {TITLES[PRIMARY]} is "
        f"{with_interval(PRIMARY, one['external'])}, {gap} on the "
        f"internal test split, {with_interval(PRIMARY, one['internal'])}"
    )
    if difference["low"] is None:
        return f"{text}."
    ends = f"{change(PRIMARY, difference['low'])} to {change(PRIMARY, difference['high'])} points"
    if difference["low"] <= 0 <= difference["high"] and round(points, 1):
        return f"{text}. Chance may explain the difference: its interval is {ends}."
    return f"{text}. The interval of the difference is {ends}."


def notes(content: Mapping[str, Any]) -> Iterator[str]:
    """What a reader must know before any figure."""
    data, first = content["data"], content["runs"][0]
    if data["is_of_training"]:
        yield "This is the data set that the model was trained on, not one from elsewhere."
    if data["copies"]:
        yield (
            f"{data['copies']:,} images were left out because the model was trained or validated "
            "on the same pictures or near copies of them."
        )
    if data["copies_unchecked"]:
        yield (
            "Images that the model was trained on could not be looked for "
            f"({data['copies_unchecked']}). If there are any, the figures are too good."
        )
    if data["changed_rules"]:
        yield (
            "The two data sets were built by versions that decode some files in another way "
            f"({'; '.join(data['changed_rules'])}). Build the older one again."
        )
    if data["left_out"]:
        shown = ", ".join(f"{name} ({n:,} images)" for name, n in data["left_out"].items())
        yield f"Left out by --map_classes: {shown}."
    missing = [n for n, k in zip(content["class_names"], external(first), strict=True) if not k]
    if missing:
        yield (
            f"No image is of the class {', '.join(missing)}. Both columns are of images of the "
            "other classes; the model may still answer with it, which counts as a mistake."
        )
    reading = first["dataset"]["reading"] or data
    if "jpeg" in (stored := {reading["encoding"], data["encoding"]}) and len(stored) > 1:
        yield (
            f"Images are stored as {data['encoding']} there and as {reading['encoding']} in the "
            "training data, which changes gray levels a little."
        )
    if "test" in (first["dataset"]["balanced_splits"] or ()):
        yield "The internal test split has balanced classes, not their natural shares."
    for figures in content["runs"]:
        for warning in figures["temperature_warnings"]:
            yield f"{run_name(figures)}: {warning}"


def external(figures: Mapping[str, Any]) -> Sequence[int]:
    """Images of each class elsewhere."""
    return figures["counts"]["external"]


def metric_rows(figures: Mapping[str, Any]) -> list[list[str]]:
    """Images, then the overall metrics, under `metric_header`."""
    images = [f"{sum(figures['counts'][place]):,}" for place in ("internal", "external")]
    rows = [["images", *images, ""]]
    return rows + [[TITLES[m], *_three(m, figures["metrics"][m])] for m in _SHOWN]


def metric_header(first: str = "") -> list[str]:
    return [first, "internal test", "elsewhere", "difference"]


def _three(metric: str, one: Mapping[str, Any]) -> list[str]:
    difference = with_interval(metric, one["difference"], change)
    if one["difference"]["estimate"] is not None:
        difference = difference.replace(" [", f"{unit(metric)} [", 1)
    places = [with_interval(metric, one[place]) for place in ("internal", "external")]
    return [*places, difference]


def class_rows(content: Mapping[str, Any], figures: Mapping[str, Any]) -> list[list[str]]:
    """Recall and AUROC of each class that is there, under `class_header`."""
    rows = []
    for c, name in enumerate(content["class_names"]):
        if not external(figures)[c]:
            continue
        counts = [f"{figures['counts'][place][c]:,}" for place in ("internal", "external")]
        for metric in ("recall", "auroc"):
            one = figures["metrics"][f"{metric}/{name}"]
            title = f"{mark(name, figures)}: {'AUROC' if metric == 'auroc' else metric}"
            rows.append([title, " / ".join(counts), *_three(f"{metric}/{name}", one)])
    return rows


def class_header() -> list[str]:
    return ["class", "images", *metric_header()[1:]]


def mark(name: str, figures: Mapping[str, Any]) -> str:
    """A class's name, after a * if it has too few groups of images in one of the places."""
    rare = {name for names in figures["rare_classes"].values() for name in names}
    return f"* {name}" if name in rare else name


def rare_note(figures: Mapping[str, Any]) -> str:
    if not any(figures["rare_classes"].values()):
        return ""
    return f"* fewer than {RARE_BELOW} groups of images, here or there: too few to say much."


def confusion_rows(content: Mapping[str, Any], figures: Mapping[str, Any]) -> list[list[str]]:
    """True classes with the share of each answer."""
    rows = []
    for name, counts in zip(content["class_names"], figures["confusion"], strict=True):
        total = sum(counts)
        if total:
            shares = [f"{n:,.0f} ({n / total:.0%})" for n in counts]
            rows.append([name, f"{total:,.0f}", *shares])
    return rows


def probability_header() -> list[str]:
    titles = [TITLES[m] for m in PROBABILITIES]
    return ["probabilities", "where", *titles]


def probability_rows(figures: Mapping[str, Any]) -> list[list[str]]:
    rows = []
    for variant, values in figures["probabilities"].items():
        for place, title in (("internal", "internal test"), ("external", "elsewhere")):
            if place in values[PROBABILITIES[0]]:
                cells = [number(m, one[place]["estimate"]) for m, one in values.items()]
                rows.append([_VARIANT_TITLES[variant], title, *cells])
    return rows


def line_header() -> list[str]:
    return ["class", *(f"{what} {where}" for what in ("intercept", "slope") for where in _WHERE)]


_WHERE = ("internal test", "elsewhere")


def line_rows(content: Mapping[str, Any], figures: Mapping[str, Any]) -> list[list[str]]:
    """Calibration lines of each class that is there, of calibrated probabilities."""
    rows = []
    for c, name in enumerate(content["class_names"]):
        if external(figures)[c]:
            cells = [
                _line(figures["lines"][f"{metric}/{name}"][place])
                for metric in ("calibration_intercept", "calibration_slope")
                for place in ("internal", "external")
            ]
            rows.append([mark(name, figures), *cells])
    return rows


def _line(one: Mapping[str, Any]) -> str:
    if one["estimate"] is None:
        return "–"
    # Adding 0 makes the -0.0 that rounding leaves a 0.0.
    shown = {
        n: f"{round(one[n], 2) + 0.0:.2f}"
        for n in ("estimate", "low", "high")
        if one[n] is not None
    }
    text = shown["estimate"]
    return text if one["low"] is None else f"{text} [{shown['low']}, {shown['high']}]"


def share_rows(figures: Mapping[str, Any]) -> list[list[str]]:
    """Class shares of training, estimated elsewhere and true there, under the classes' names."""
    titles = {
        "training": "training split",
        "estimated": "elsewhere, estimated without labels",
        "true": "elsewhere, true",
    }
    shares = figures["shares"]
    return [[title, *(f"{x:.1%}" for x in shares[name])] for name, title in titles.items()]


def shares_note(figures: Mapping[str, Any]) -> tuple[bool, str]:
    """Whether the estimated class shares are of use, and a sentence on how far they are off."""
    apart = figures["shares"]["apart"]
    far = f"{apart['estimated']:.1%} of all images would have to change their class"
    training = (
        f"with the shares of the training split it would be {apart['training']:.1%}, and on the "
        f"internal test split, where nothing has shifted, it is {apart['internal']:.1%}"
    )
    if not figures["shares"]["converged"]:
        far = f"the estimation did not come to an end, and {far}"
    if apart["estimated"] > _FAR or apart["estimated"] > max(apart["training"], 0.02):
        return False, (
            f"The estimated class shares are wrong: {far} to have them; {training}. The estimate "
            "assumes that the images of a class look the same as in training and takes every other "
            "difference for one of class shares, so here that assumption fails. Do not correct "
            "probabilities by it."
        )
    return True, (
        f"The estimated class shares are near the true ones: {far} to have them; {training}. Its "
        "assumption, that the images of a class look the same as in training, does no harm here."
    )


def correction_note(figures: Mapping[str, Any]) -> str:
    """What the correction by the estimated shares does to the Brier score."""
    values = figures["probabilities"]
    before, after = (
        values[variant]["brier"]["external"]["estimate"] for variant in (BIAS, ESTIMATED)
    )
    word = "improves" if after < before else "worsens"
    return (
        f"Correcting the bias-corrected probabilities by them {word} the Brier score there from "
        f"{before:.4f} to {after:.4f}."
    )


def by_run_rows(content: Mapping[str, Any]) -> list[list[str]]:
    """Each of several runs, under `metric_header`."""
    return [[run_name(one), *_three(PRIMARY, one["metrics"][PRIMARY])] for one in content["runs"]]


def subgroup_header(content: Mapping[str, Any]) -> list[str]:
    return ["subgroup", "images", TITLES[PRIMARY], *(f"recall {n}" for n in content["class_names"])]


def subgroup_rows(
    content: Mapping[str, Any], values: Mapping[str, Mapping[str, Any]]
) -> list[list[str]]:
    """The values of a column; dashes where too few groups of images have it."""
    rows = []
    for value, one in values.items():
        row = [value, f"{one['images']:,}"]
        for metric in (PRIMARY, *(f"recall/{name}" for name in content["class_names"])):
            figure = one["metrics"].get(metric)
            row.append(with_interval(metric, figure) if figure else "–")
        rows.append(row)
    return rows
