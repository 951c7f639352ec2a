"""Sections of a card on what was measured: on the test split, on probabilities, and elsewhere."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from cxr_tfrecords.pages.markdown import escaped, plain_table
from trainer.card.facts import Facts
from trainer.comparison.text import TITLES, number, with_interval
from trainer.evaluation import conformal, out_of_distribution
from trainer.evaluation.inference import RARE_BELOW
from trainer.evaluation.shares import grouped_share
from trainer.exporting import contract
from trainer.external import text as external_text

_OVERALL = ("accuracy", "balanced_accuracy", "macro_f1", "mcc", "auroc_macro", "auprc_macro")
_BY_CLASS = ("recall", "specificity", "precision", "f1", "auroc", "auprc")


def results(facts: Facts) -> Iterator[str]:
    run, names = facts.run, facts.run.class_names
    test = run.metrics["test"]
    images = sum(run.dataset["counts"]["test"])
    yield (
        f"On {images:,} test images, read once, at the end. The class is that of the highest raw "
        f"probability; with {len(names)} classes, chance is a balanced accuracy of "
        f"{1 / len(names):.0%}. Intervals are of 95%, over groups of images (copies, patients); "
        "they hold for other test images and not for another training."
    )
    rows = [[TITLES[m], _figure(facts, m, test[m])] for m in _OVERALL]
    yield plain_table(["test split", ""], rows)
    rows = [
        [
            f"{escaped(name)}{' *' if name in facts.rare else ''}",
            f"{values['support']:,}",
            *(_figure(facts, f"{m}/{name}", values[m]) for m in _BY_CLASS),
        ]
        for name, values in test["per_class"].items()
    ]
    header = ["class", "images", "recall", "specificity", "precision", "F1", "AUROC", "AUPRC"]
    yield plain_table(header, rows)
    if facts.rare:
        yield f"\\* fewer than {RARE_BELOW} groups of test images: too few to say much."
    yield "Which class is taken for which (rows: true class; columns: answer):"
    rows = [
        [escaped(name), *(f"{n:,}" for n in counts)]
        for name, counts in zip(names, test["confusion_matrix"], strict=True)
    ]
    yield plain_table(["", *map(escaped, names)], rows)
    answered = np.sum(test["confusion_matrix"], axis=0)
    never = [escaped(name) for name, n in zip(names, answered, strict=True) if not n]
    if never:
        yield f"**On the test split the model never answers with: {'; '.join(never)}.**"


def _figure(facts: Facts, metric: str, value: float | None) -> str:
    """The value of metrics.json, with its interval where there is one."""
    if value is None or metric not in facts.ends:
        return number(metric, value)
    ends = dataclasses.asdict(facts.ends[metric])
    return with_interval(metric, {**ends, "estimate": value})


def probabilities(facts: Facts) -> Iterator[str]:
    deployment, names = facts.deployment, facts.run.class_names
    yield (
        "Raw probabilities assume the class shares that training saw. `probabilities` are "
        "corrected to those of the place of use (Saerens et al. 2002) at a temperature that was "
        "fitted on validation (Guo et al. 2017). ECE is the calibration error. Lower is "
        "better for all three:"
    )
    rows = [
        [f"`{output}`", *(number(metric, scores[metric]) for metric in contract.SCORES)]
        for output, scores in deployment["test"].items()
    ]
    yield plain_table(["test split", *(TITLES[metric] for metric in contract.SCORES)], rows)
    target = ", ".join(
        f"{escaped(n)} {share:.1%}" for n, share in deployment["class_shares"]["target"].items()
    )
    temperature = deployment["temperature"]
    yield f"Class shares of the place of use: {target}. Temperature: {temperature:.3f}."
    if deployment["temperature_warning"]:
        yield f"Warning: {deployment['temperature_warning']}"
    if deployment["test_weighted_to_target"]:
        yield "For this table, test images were weighted to these class shares."
    yield (
        "Calibration of raw probabilities by class: intercept (0 is right; below 0 the class is "
        "predicted too often) and slope (1 is right; below 1 the probabilities are too extreme):"
    )
    per_class = facts.run.metrics["test"]["per_class"]
    rows = [
        [escaped(n), *(_plain(per_class[n][f"calibration_{m}"]) for m in ("intercept", "slope"))]
        for n in names
    ]
    yield plain_table(["test split", "intercept", "slope"], rows)


def _plain(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def thresholds(facts: Facts) -> Iterator[str]:
    run, deployment = facts.run, facts.deployment
    points, sets = deployment["operating_points"], deployment["prediction_sets"]
    test = run.predictions("test")
    groups = np.asarray(test.groups or test.ids)
    levels = np.array(list(sets["thresholds"].values()))
    in_set = conformal.prediction_sets(test.probabilities, levels)
    rows = []
    for c, name in enumerate(run.class_names):
        threshold = points["thresholds"][name]
        of_class = test.labels == c
        shown = ["–", "–", "–"]
        if threshold is not None:
            above = test.probabilities[:, c] >= threshold
            shown = [
                f"{threshold:.4f}",
                _share(above[of_class], groups[of_class]),
                _share(~above[~of_class], groups[~of_class]),
            ]
        rows.append([escaped(name), *shown, _share(in_set[of_class, c], groups[of_class])])
    yield (
        "Each class has a threshold on its raw probability, chosen on validation for a "
        f"sensitivity of {points['sensitivity']:.0%}. A prediction set holds the classes that "
        f"cannot be excluded; for each true class it holds that class in {sets['coverage']:.0%} of "
        "images like those of validation (class-conditional conformal prediction). What both do on "
        "the test split:"
    )
    header = ["class", "threshold", "sensitivity", "specificity", "in the prediction set"]
    yield plain_table(header, rows)
    yield f"Mean size of a prediction set: {in_set.sum(axis=1).mean():.2f} classes."


def _share(hits: np.ndarray, groups: np.ndarray) -> str:
    if not len(hits):
        return "–"
    return with_interval("recall", dataclasses.asdict(grouped_share(hits, groups)))


def unlike_training(facts: Facts) -> Iterator[str]:
    if facts.detector is None:
        return
    method, images = facts.detector
    yield (
        f"`trainer.predict` flags images unlike the training images ({method}, on the network's "
        f"features). The threshold is set on {images:,} validation images, of which "
        f"{out_of_distribution.FALSE_ALARMS:.0%} are flagged, unless another rate is asked for. "
        "It misses some: docs/out_of_distribution.md of the project has what. An image that is not "
        "flagged is not thereby a radiograph of the right kind."
    )


def elsewhere(facts: Facts) -> Iterator[str]:
    for one in facts.elsewhere:
        yield f"**{escaped(one.verdict)}**"
        if one.notes:
            yield "\n".join(f"- {escaped(note)}" for note in one.notes)
        for header, rows in (
            (external_text.metric_header(), one.metrics),
            (external_text.class_header(), one.classes),
        ):
            yield plain_table(header, [list(map(escaped, row)) for row in rows])


def shortcuts(facts: Facts) -> Iterator[str]:
    if not facts.shortcuts:
        return
    first, *more = map(escaped, facts.shortcuts)
    yield " ".join([f"**{first}**", *more])
    yield (
        "The trained model was asked about changed images: lungs blacked out, only the border, "
        "and others (`python -m trainer.shortcuts`)."
    )
