"""A comparison in words and tables: the verdict, and comparison.md.

Every number is from comparison.json.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cxr_tfrecords.pages.markdown import plain_table
from trainer.comparison import compare_methods, operating_points
from trainer.deployment.corrected_probabilities import VARIANTS

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
# Shown as percent, and their differences as points.
_PERCENT = ("accuracy", "balanced_accuracy", "macro_f1", "recall", "specificity", "precision", "f1")
ALPHA = 0.05


def is_percent(metric: str) -> bool:
    return metric.split("/")[0] in _PERCENT


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
    """`81.2% [78.0%, 84.1%]`."""
    return (
        f"{show(metric, one['estimate'])} [{show(metric, one['low'])}, {show(metric, one['high'])}]"
    )


def p_text(p_value: float | None) -> str:
    if p_value is None:
        return "–"
    return "< 0.001" if p_value < 0.001 else f"{p_value:.3f}"


def verdicts(content: Mapping[str, Any]) -> list[str]:
    """One sentence a method: the primary metric, whether it differs, and the Brier score."""
    return [f"{name}: {_verdict(content, name)}" for name in content["differences"]]


def headline(content: Mapping[str, Any]) -> str:
    """What the study found, in one or two sentences."""
    primary, reference = content["primary"], content["reference"]
    helped = _significant(content, primary, better=True)
    harmed = _significant(content, primary, better=False)
    total = len(content["differences"])
    title = TITLES[primary]
    if not helped and not harmed:
        which = f"None of {total} methods differs" if total > 1 else "The method does not differ"
        text = f"{which} from {reference} in {title} by more than chance."
    else:
        found = []
        if helped:
            found.append(f"better {title} than {reference}: {', '.join(helped)}")
        if harmed:
            found.append(f"worse: {', '.join(harmed)}")
        text = f"Of {total} method{'s' if total > 1 else ''}: {'; '.join(found)}."
    worse = [
        name
        for name, one in content["differences"].items()
        if is_clear(one["metrics"]["brier"]) and one["metrics"]["brier"]["estimate"] > 0
    ]
    if worse:
        text += f" Raw probabilities are worse (Brier score) with {', '.join(worse)}."
    return text


def _significant(content: Mapping[str, Any], metric: str, *, better: bool) -> list[str]:
    return [
        name
        for name, one in content["differences"].items()
        if is_clear(one["metrics"][metric])
        and compare_methods.better(metric, one["metrics"][metric]["estimate"]) == better
    ]


def is_clear(one: Mapping[str, Any]) -> bool:
    """Whether a difference is beyond chance, after correction over the methods."""
    return one["p_holm"] is not None and one["p_holm"] < ALPHA and bool(one["estimate"])


def _verdict(content: Mapping[str, Any], name: str) -> str:
    primary, found = content["primary"], content["differences"][name]
    one = found["metrics"][primary]
    unit = " points" if is_percent(primary) else ""
    text = f"{TITLES[primary]} {with_interval(primary, one, change)}{unit}"
    text += f", p = {p_text(one['p_holm'])} after Holm: "
    if one["p_holm"] is None:
        text += "not tested"
    elif is_clear(one):
        text += "better" if compare_methods.better(primary, one["estimate"]) else "worse"
    else:
        text += "no evidence of a difference"
    brier, cooled = found["metrics"]["brier"], found["calibrated"]["brier"]
    text += f"; Brier {_direction('brier', brier)} ({with_interval('brier', brier, change)})"
    after = f"{_direction('brier', cooled)} ({change('brier', cooled['estimate'])})"
    return f"{text}, after correction {after}"


def _direction(metric: str, one: Mapping[str, Any]) -> str:
    if not is_clear(one):
        return "not clearly different"
    return "better" if compare_methods.better(metric, one["estimate"]) else "worse"


def markdown(content: Mapping[str, Any]) -> str:
    """The whole comparison as one page."""
    test, settings = content["test"], content["settings"]
    counted = zip(content["class_names"], test["counts"], strict=True)
    counts = ", ".join(f"{name} {count:,}" for name, count in counted)
    methods = len(content["entries"])
    shown = ("balanced_accuracy", "accuracy", "macro_f1", "mcc", "auroc_macro")
    parts = [
        f"# Does balancing help? {methods} methods on {test['images']:,} test images",
        f"**{headline(content)}**",
        "\n".join(f"- {line}" for line in verdicts(content)),
        f"Test split: {test['images']:,} images in {test['groups']:,} groups ({counts}). Figures "
        f"are means over seeds with {settings['level']:.0%} intervals from "
        f"{settings['resamples']:,} resamples of groups and seeds; differences are paired, their "
        "p-values corrected over the methods (Holm).",
        "## Results",
        _metrics_table(content, tuple(TITLES)),
        f"## Difference to {content['reference']}",
        _differences_table(content, shown),
        "## Recall by class",
        _metrics_table(content, tuple(f"recall/{c}" for c in content["class_names"])),
        "## Probabilities",
        "Raw; corrected from the class mix of training to that of the deployment (Saerens et al. "
        "2002); and with a temperature fitted on validation too (Guo et al. 2017).",
        _probability_table(content),
        "## Operating points",
        operating_points.markdown(content),
        "## Tests by image",
        _tests_table(content),
        "## Budget",
        plain_table(BUDGET_HEADER, budget_rows(content)),
    ]
    return "\n\n".join(parts) + "\n"


def _metrics_table(content: Mapping[str, Any], metrics: Sequence[str]) -> str:
    header = ["method", *(TITLES.get(m, m.partition("/")[2]) for m in metrics)]
    rows = [
        [name, *(with_interval(m, entry["metrics"][m]) for m in metrics)]
        for name, entry in content["entries"].items()
    ]
    return plain_table(header, rows)


def _differences_table(content: Mapping[str, Any], metrics: Sequence[str]) -> str:
    header = ["method"]
    for metric in metrics:
        header += [TITLES[metric] + (", points" if is_percent(metric) else ""), "p (Holm)"]
    rows = []
    for name, found in content["differences"].items():
        row = [name]
        for metric in metrics:
            one = found["metrics"][metric]
            row += [with_interval(metric, one, change), p_text(one["p_holm"])]
        rows.append(row)
    return plain_table(header, rows)


def _probability_table(content: Mapping[str, Any]) -> str:
    metrics = ("brier", "ece", "log_loss")
    header = ["method", "probabilities", *(TITLES[m] for m in metrics), "temperature"]
    rows = []
    for name, entry in content["entries"].items():
        for variant in VARIANTS:
            found = entry["probabilities"][variant]
            cooled = ", ".join(f"{t:.2f}" for t in entry["temperatures"])
            rows.append(
                [
                    name,
                    variant.replace("_", " "),
                    *(with_interval(m, found[m]) for m in metrics),
                    cooled if variant == "calibrated" else "",
                ]
            )
    return plain_table(header, rows)


def _tests_table(content: Mapping[str, Any]) -> str:
    names = content["class_names"]
    header = ["method", "McNemar (accuracy)", *(f"DeLong {name}" for name in names)]
    rows = [
        [
            name,
            p_text(found["mcnemar"]["p_holm"]),
            *(p_text(found["delong"][c]["p_holm"]) for c in names),
        ]
        for name, found in content["differences"].items()
    ]
    note = (
        "p-values: McNemar's and DeLong's tests of each seed, combined by twice their median "
        "(Rueschendorf 1982), corrected over the methods (Holm). They assume independent images."
    )
    return plain_table(header, rows) + "\n\n" + note


BUDGET_HEADER = ("method", "seeds", "updates", "epochs", "minutes in all")


def budget_rows(content: Mapping[str, Any]) -> list[list[str]]:
    """What each method's runs cost, under `BUDGET_HEADER`."""
    return [
        [
            name,
            ", ".join(map(str, entry["seeds"])),
            ", ".join(f"{n:,}" for n in entry["updates"]),
            ", ".join(map(str, entry["epochs"])),
            f"{sum(entry['minutes']):.1f}",
        ]
        for name, entry in content["entries"].items()
    ]
