"""The verdict of a comparison in words, and what a reader must know beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from cxr_tfrecords.pages.class_lists import few
from trainer.comparison import verdicts
from trainer.comparison.text import TITLES, change, p_equals, unit, with_interval

THRESHOLD_FREE = "auroc_macro"


def verdict_lines(content: Mapping[str, Any]) -> list[str]:
    """One sentence a method: the primary metric with its verdict, then the Brier score."""
    return [f"{name}: {_verdict(content, name)}" for name in content["differences"]]


def headline(content: Mapping[str, Any]) -> str:
    """What the study says, in one to three sentences."""
    primary, reference = content["primary"], content["reference"]
    if verdicts.of_models(content):
        return (
            "With one seed a method these are differences of trained models, which say nothing of "
            "the methods: train at least 3 seeds each (--seeds=0,1,2)."
        )
    total = len(content["differences"])
    parts = []
    for word in (verdicts.BETTER, verdicts.WORSE, verdicts.EQUIVALENT, verdicts.INCONCLUSIVE):
        names = verdicts.named(content, primary, word)
        if names:
            parts.append(f"{word}: {', '.join(names)}")
    margin = change(primary, content["margin"]).lstrip("+")
    methods = f"{total} methods" if total > 1 else "one method"
    text = (
        f"{TITLES[primary].capitalize()} of {methods} against {reference} (margin {margin}"
        f"{unit(primary)}): {'; '.join(parts)}."
    )
    worse = verdicts.named(content, "brier", verdicts.WORSE)
    if worse:
        text += f" Raw probabilities are worse (Brier score) with {', '.join(worse)}."
    return text


def warnings(content: Mapping[str, Any]) -> list[str]:
    """What a reader must know beside the verdict, a sentence each."""
    lines = []
    rare = content["test"]["rare_classes"]
    if rare:
        listed = few(f"{name} ({n} groups)" for name, n in rare.items())
        lines.append(
            f"Too few test images: {listed}. Figures of such a class are marked with *; they and "
            "means over classes rest on few images, and differences of the class are not tested."
        )
    seeds = {tuple(entry["seeds"]) for entry in content["entries"].values()}
    if len(seeds) > 1:
        lines.append(
            "Not all methods have the same seeds: where they differ, seeds are not paired, and "
            "each method brings its own variance. Train the same seeds for all."
        )
    elif len(next(iter(seeds))) == 2:
        lines.append("Two seeds say little of how much seeds differ: train at least 3.")
    updates = {max(entry["updates"]) for entry in content["entries"].values()}
    if max(updates) > 1.1 * min(updates):
        lines.append(
            f"Unequal budgets: the methods made {min(updates):,} to {max(updates):,} updates. "
            "Effects of methods and of budgets are not separated."
        )
        if "recipes" not in content:
            lines[-1] += (
                " --budget=steps gives all methods the same number, and crt those of its second "
                "stage besides."
            )
    lines += content["recipes"]["confounded"] if "recipes" in content else [_tuning(content)]
    return [*lines, *_still_improving(content)]


def _tuning(content: Mapping[str, Any]) -> str:
    """How the learning rate and the methods' own parameters were chosen."""
    if "tuning" not in content:
        # crt's second stage has a learning rate of its own.
        entries = [e for name, e in content["entries"].items() if not name.startswith("crt")]
        if len({entry["config"]["learning_rate"] for entry in entries}) > 1:
            return (
                "The methods have different learning rates. How they were chosen is not known "
                "here: trainer.compare --tune gives each method the same number of tries."
            )
        return (
            "This comparison tuned nothing: another learning rate or other parameters may suit one "
            "method better than another, and change the verdict."
        )
    tuning, chosen, others = content["tuning"], [], []
    for name in content["entries"]:
        folds = tuning["methods"].get(name)
        if not folds:
            others.append(name)
            continue
        texts = [_chosen_values(one) for one in folds]
        chosen.append(f"{name}: {' / '.join(texts)}")
    text = (
        f"Each method had {tuning['tries']} tries of the learning rate and its own parameters "
        f"(seed {tuning['seed']}), judged by {TITLES[tuning['metric']]} on validation. Chosen "
        f"values: {'; '.join(chosen)}."
    )
    if others:
        text += f" Not tuned themselves, they start from the tuned runs: {', '.join(others)}."
    return text


def _chosen_values(fold: Mapping[str, Any]) -> str:
    values = fold["tries"][fold["chosen"]]["values"]
    text = ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in values.items())
    diverged = sum(one.get("diverged", False) for one in fold["tries"])
    failed = sum(not one["updates"] for one in fold["tries"]) - diverged
    ends = [f"{n} {end}" for n, end in ((diverged, "diverged"), (failed, "failed")) if n]
    return text + (f" (of the tries {', '.join(ends)})" if ends else "")


def _still_improving(content: Mapping[str, Any]) -> Iterator[str]:
    """A sentence if runs have their best epoch at the end, where more epochs might help."""
    total, late = 0, {}
    for name, entry in content["entries"].items():
        ends = zip(entry["best_epochs"], entry["epochs"], strict=True)
        total += len(entry["epochs"])
        if count := sum(best == last for best, last in ends):
            late[name] = count
    if late:
        listed = ", ".join(f"{name} ({count})" for name, count in late.items())
        yield (
            f"Still improving at the last epoch: the best epoch of {sum(late.values())} of {total} "
            f"runs is their last one, {listed}. More epochs (--epochs) may change the verdict."
        )


def _verdict(content: Mapping[str, Any], name: str) -> str:
    primary, one = content["primary"], content["differences"][name]
    judged = one["verdict"][primary]
    text = f"{TITLES[primary]} {with_interval(primary, one['metrics'][primary], change)}"
    text += unit(primary)
    if judged["word"] is None:
        p_value = one["metrics"][primary]["p_value"]
        return f"{text}: {_models_differ(p_value)}; {_exploratory(one, primary, content)}"
    text += f", {p_equals(judged['p_holm'])} after Holm: {judged['word']}"
    if judged["word"] == verdicts.INCONCLUSIVE:
        text += f" ({_needed(content, primary, judged)})"
    brier = one["metrics"]["brier"]
    text += f"; Brier score {with_interval('brier', brier, change)}: "
    text += str(one["verdict"]["brier"]["word"])
    after = one["calibrated"]["brier"]["estimate"]
    text += f", after correction {change('brier', after)}"
    return f"{text}; {_exploratory(one, primary, content)}"


def _models_differ(p_value: float | None) -> str:
    if p_value is None:
        return "these two trained models cannot be told apart by a test"
    differ = "differ" if p_value < verdicts.ALPHA else "are not shown to differ"
    return f"these two trained models {differ} ({p_equals(p_value)}, uncorrected)"


def _needed(content: Mapping[str, Any], primary: str, judged: Mapping[str, Any]) -> str:
    """What this study could have seen, and what it would take to see the margin."""
    smallest = judged["smallest_difference"]
    if smallest is None:
        return "its smallest visible difference is unknown"
    text = f"could have seen {change(primary, smallest).lstrip('+')}{unit(primary)}"
    ways = []
    if judged["seeds_needed"]:
        ways.append(f"{judged['seeds_needed']} seeds")
    if judged["images_needed"]:
        images = judged["images_needed"] * content["test"]["images"]
        ways.append(f"{float(f'{images:.2g}'):,.0f} test images")
    margin = change(primary, content["margin"]).lstrip("+")
    if not ways:
        return f"{text}; the margin of {margin} takes more seeds and more test images"
    return f"{text}; the margin of {margin} takes about {' or '.join(ways)}"


def _exploratory(one: Mapping[str, Any], primary: str, content: Mapping[str, Any]) -> str:
    """What helps to understand the verdict, and is not judged."""
    parts = []
    if primary != THRESHOLD_FREE:
        area = one["metrics"][THRESHOLD_FREE]
        parts.append(f"{TITLES[THRESHOLD_FREE]} {with_interval(THRESHOLD_FREE, area, change)}")
    if one["free"] is not None:
        free = with_interval(primary, one["free"], change)
        parts.append(f"against a shift of thresholds alone {free}{unit(primary)}")
    return ", ".join(parts)
