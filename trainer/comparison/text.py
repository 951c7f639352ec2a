"""How numbers of a comparison are written, and rows that its page and its text share.

Every number is from comparison.json.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from cxr_tfrecords.pages import class_lists
from trainer.comparison import class_tables
from trainer.deployment.corrected_probabilities import temperature_warning
from trainer.settings import chosen_classes, image_size

TITLES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "mcc": "MCC",
    "auroc_macro": "AUROC (macro)",
    "auprc_macro": "AUPRC (macro)",
    "log_loss": "log loss",
    "brier": "Brier score",
    "ece": "ECE",
}
_TESTED = class_lists.COLUMNS  # classes of the table of tests, a column each
# Shown as percent, and their differences as points.
_PERCENT = ("accuracy", "balanced_accuracy", "macro_f1", "recall", "specificity", "precision", "f1")


def is_percent(metric: str) -> bool:
    return metric.split("/")[0] in _PERCENT


def unit(metric: str) -> str:
    return " points" if is_percent(metric) else ""


def number(metric: str, value: float | None) -> str:
    """`81.2%` or `0.8123`; a dash where it is undefined."""
    if value is None:
        return "–"
    return f"{value:.1%}" if is_percent(metric) else f"{value:.4f}"


def change(metric: str, value: float | None) -> str:
    """`+1.2` (points) or `+0.0123`."""
    if value is None:
        return "–"
    scale, decimals = (100, 1) if is_percent(metric) else (1, 4)
    # Adding 0 makes the -0.0 that rounding leaves a +0.0.
    return f"{round(scale * value, decimals) + 0.0:+.{decimals}f}"


def with_interval(metric: str, one: Mapping[str, Any], show: Any = number) -> str:
    """`81.2% [78.0%, 84.1%]`, or the estimate alone where there is no interval."""
    estimate = show(metric, one["estimate"])
    if one["low"] is None:
        return estimate
    return f"{estimate} [{show(metric, one['low'])}, {show(metric, one['high'])}]"


def p_equals(p_value: float | None) -> str:
    """`p < 0.001` or `p = 0.032`, for a sentence."""
    text = p_text(p_value)
    return f"p {text}" if text.startswith("<") else f"p = {text}"


def p_text(p_value: float | None) -> str:
    if p_value is None:
        return "–"
    return "< 0.001" if p_value < 0.001 else f"{p_value:.3f}"


def class_mark(content: Mapping[str, Any], class_name: str) -> str:
    """The class's name, after a * if it has too few groups in the test split."""
    return f"* {class_name}" if class_name in content["test"]["rare_classes"] else class_name


def tests_rows(content: Mapping[str, Any]) -> list[list[str]]:
    """McNemar's and DeLong's tests of each seed, under `tests_header`."""
    rows, shown = [], class_tables.shown_names(content, _TESTED)
    for name, one in content["differences"].items():
        areas = {c: {test["seed"]: test for test in one["delong"][c]} for c in shown}
        for test in one["mcnemar"]:
            row = [name, str(test["seed"]), f"{test['only_a']} : {test['only_b']}"]
            row.append(p_text(test["p_value"]))
            for tests in areas.values():
                area = tests.get(test["seed"])
                row.append(p_text(area["p_value"]) if area else "–")
            rows.append(row)
    return rows


def tests_header(content: Mapping[str, Any]) -> list[str]:
    """Of the rows of `tests_rows`."""
    shown = class_tables.shown_names(content, _TESTED)
    names = [f"DeLong {class_mark(content, name)}, p" for name in shown]
    return ["method", "seed", "right alone : reference alone", "McNemar, p", *names]


def tests_note(content: Mapping[str, Any]) -> str:
    """What the tests image by image are, or why there are none."""
    if not content["test"]["single_image_groups"]:
        return (
            "McNemar's and DeLong's tests assume independent images, but groups of this test split "
            "hold several images: use the intervals above."
        )
    models = f"the models of all {content['folds']} folds" if content["folds"] else "trained models"
    return (
        f"Each row compares {models} of two methods with the same seed, image by image: McNemar's "
        "mid-p test of the accuracy and DeLong's test of the AUROC. p-values are not corrected, "
        "and not joined over seeds, because seeds may point in different directions. "
        f"{class_tables.left_out(content, _TESTED)}".rstrip()
    )


def title(content: Mapping[str, Any]) -> str:
    """The heading of page and text."""
    count, images = len(content["entries"]), f"{content['test']['images']:,} test images"
    if "recipes" in content:
        return f"Which recipe does better? {count} recipes on {images}"
    return f"Does balancing help? {count} methods on {images}"


def design_line(content: Mapping[str, Any]) -> str:
    """Data set, network, budget, seeds and date of a study."""
    data, entries = content["dataset"], content["entries"].values()
    configs = [entry["config"] for entry in entries]
    networks = {f"{c['backbone']} (trainable: {c['trainable']})": None for c in configs}
    chosen = chosen_classes.describe(
        configs[0].get("classes", ()), configs[0].get("map_classes", ())
    )
    seeds = sorted({seed for entry in entries for seed in entry["seeds"]})
    parts = (
        f"Data set {os.path.basename(data['path'].rstrip('/')) or data['path']}",
        f"{len(content['class_names'])} classes{f' ({chosen})' if chosen else ''}",
        ", ".join(networks),
        *sorted({image_size.describe(data["image_size"], c.get("image_size", 0)) for c in configs}),
        f"{_range(n for entry in entries for n in entry['epochs'])} epochs",
        f"{_range(n for entry in entries for n in entry['updates'])} updates a run",
        f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}",
        *folds_line(content),
        f"newest run {content['newest_run']}",
    )
    return " · ".join(parts)


def folds_line(content: Mapping[str, Any]) -> list[str]:
    """How many folds are pooled, or which one is tested; empty for a data set without folds."""
    if content["folds"]:
        return [f"{content['folds']} folds, pooled"]
    fold = next(iter(content["entries"].values()))["config"]["fold"]
    return [] if fold is None else [f"test fold {fold} of {content['dataset']['folds']}"]


def tested(content: Mapping[str, Any]) -> str:
    """What the figures are of, to begin a sentence: the test split, or all folds."""
    return f"All {content['folds']} folds, pooled" if content["folds"] else "Test split"


def first_run(content: Mapping[str, Any]) -> str:
    """Which run of each method is shown where one is enough."""
    return "first seed, fold 0" if content["folds"] else "first seed"


def run_titles(content: Mapping[str, Any], entry: Mapping[str, Any]) -> list[str]:
    """`seed 0`, or `seed 0 fold 2` where folds are pooled: each run of an entry."""
    folds = [f" fold {k}" for k in range(content["folds"])] or [""]
    return [f"seed {seed}{fold}" for seed in entry["seeds"] for fold in folds]


def _range(numbers: Iterable[int]) -> str:
    """`42`, or `10 to 86` if they differ."""
    ordered = sorted(numbers)
    low, high = ordered[0], ordered[-1]
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def budget_header(content: Mapping[str, Any]) -> list[str]:
    """The header of `budget_rows`."""
    header = ["method", "seeds", "updates", "epochs", "minutes in all"]
    return [*header, "tuning besides"] if "tuning" in content else header


def budget_rows(content: Mapping[str, Any]) -> list[list[str]]:
    """What each method's runs cost, under `budget_header`: one number a run, or their range where
    folds are pooled."""

    def by_run(numbers: Sequence[int]) -> str:
        return _range(numbers) if content["folds"] else ", ".join(f"{n:,}" for n in numbers)

    return [
        [
            name,
            ", ".join(map(str, entry["seeds"])),
            by_run(entry["updates"]),
            by_run(entry["epochs"]),
            f"{sum(entry['minutes']):.1f}",
            *([_tuning_cost(content["tuning"], name)] if "tuning" in content else []),
        ]
        for name, entry in content["entries"].items()
    ]


def _tuning_cost(tuning: Mapping[str, Any], name: str) -> str:
    tries = [one for fold in tuning["methods"].get(name, ()) for one in fold["tries"]]
    if not tries:
        return "that of none"
    updates, minutes = (sum(one[key] for one in tries) for key in ("updates", "minutes"))
    return f"{len(tries)} runs, {updates:,} updates, {minutes:.1f} min"


def temperatures(values: Sequence[float]) -> str:
    """`1.24, 0.10 (bound)`: the temperature of each run."""
    return ", ".join(f"{t:.2f}{' (bound)' if temperature_warning(t) else ''}" for t in values)


def temperature_notes(content: Mapping[str, Any]) -> Iterator[str]:
    """A sentence for each end of the range that a temperature is at: which runs, and why."""
    runs: dict[str, list[str]] = {}
    for name, entry in content["entries"].items():
        titles = run_titles(content, entry)
        for title, value in zip(titles, entry["temperatures"], strict=True):
            if warning := temperature_warning(value):
                runs.setdefault(warning, []).append(f"{name} {title}")
    for warning, names in runs.items():
        yield f"{', '.join(names)}: {warning}"
