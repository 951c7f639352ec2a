"""Compares finished runs: every number of a comparison, from their predictions alone.

A method is all runs of one backbone that differ in nothing but the seed. Metrics are means over
seeds; seeds and test images are crossed, see `evaluation.crossed_seeds`, with one bootstrap over
groups for all methods. The result is a dictionary, comparison.json, from which page and text are
made.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from cxr_tfrecords.errors import UserError
from cxr_tfrecords.pages import class_lists
from trainer.comparison import decision_curves, operating_points, verdicts
from trainer.comparison.entry_details import (
    add_tests,
    count_folds,
    describe_entry,
    newest_run,
)
from trainer.comparison.methods import Entry, Scored, score_entry
from trainer.deployment.corrected_probabilities import VARIANTS, deployment_weights
from trainer.evaluation import bootstrap
from trainer.evaluation.crossed_seeds import CrossedSeeds
from trainer.evaluation.inference import LEVEL, Inference, name_metrics, plain, stack
from trainer.evaluation.metrics import OVERALL, weighted_metrics
from trainer.evaluation.predictions import Predictions

FORMAT = "cxr-comparison/2"
# By class; the others of `metrics.PER_CLASS` are in each run's metrics.json.
BY_CLASS = ("recall", "specificity", "precision", "f1", "auroc", "auprc")
# What balancing can reach by a shift of thresholds alone, which costs no training.
FREE = "posthoc_logit_adjusted"
MARGIN = 0.02
# Judged after the primary metric.
SECONDARY = "brier"

Values = Mapping[str, Mapping[str, Mapping[str, np.ndarray]]]
# (variant of the probabilities, metric) -> its values of all methods.
Studies = Callable[[str, str], CrossedSeeds]


def compare(
    entries: Sequence[Entry],
    *,
    reference: str,
    primary: str = "balanced_accuracy",
    margin: float = MARGIN,
    resamples: int = 2000,
    seed: int = 0,
    deploy_prior: Sequence[float] | None = None,
    sensitivity: float = operating_points.SENSITIVITY,
    benefit_class: str = "",
) -> dict[str, Any]:
    """Compares all entries with the reference on the test split or, pooled, on all test folds.

    Args:
      reference: name of the entry that the others are compared with.
      primary: metric of `metrics.OVERALL` that the verdict is about, to be chosen beforehand.
      margin: smallest difference of the primary metric that matters, in its unit (0.02 is two
        points), to be chosen beforehand.
      resamples, seed: of the bootstrap.
      deploy_prior: class shares that probabilities are corrected to, and at which the corrected
        ones are scored; None: those of the training split before any balancing, and test images
        count as they are.
      sensitivity: of the operating points, on validation, in 0..1.
      benefit_class: of the decision curves; empty: the rarest class of the training split.

    Returns:
      The content of comparison.json.

    Raises:
      UserError: there is no such reference or class, the sensitivity is not in 0..1, or test
        images differ between runs.
    """
    if not 0 <= sensitivity <= 1:
        raise UserError(f"--sensitivity={sensitivity} must be from 0 to 1, such as 0.95")
    names = [entry.name for entry in entries]
    if reference not in names:
        raise UserError(f"--reference={reference} is not one of {', '.join(names)}")
    class_names = entries[0].runs[0].class_names
    benefit_class = decision_curves.choose_class(benefit_class, entries[0].runs[0].dataset)
    scored = {entry.name: score_entry(entry, deploy_prior) for entry in entries}
    test = scored[reference].predictions[0]
    for entry in entries:
        _check_same_images(entry, scored[entry.name], test)
    groups = test.groups or test.ids
    weights = bootstrap.group_weights(groups, resamples, seed)
    corrected_weights = _deployment_weights(entries[0], test, weights, deploy_prior)
    by_variant = {v: weights if v == "raw" else corrected_weights for v in VARIANTS}
    values = {
        name: {v: _resample(one, v, by_variant[v], class_names) for v in VARIANTS}
        for name, one in scored.items()
    }
    inference = Inference(test, class_names, [entry.seeds for entry in entries])

    @functools.cache
    def study(variant: str, metric: str) -> CrossedSeeds:
        return inference.study(metric, stack(values, variant, metric))

    results = {
        entry.name: describe_entry(
            entry,
            scored[entry.name],
            class_names,
            {v: by_variant[v][0] for v in VARIANTS},
            sensitivity,
        )
        for entry in entries
    }
    _add_intervals(results, values, study, inference, class_names)
    net_benefit = decision_curves.add_net_benefit(
        results,
        scored,
        list(class_names).index(benefit_class),
        benefit_class,
        by_variant["calibrated"],
        inference,
    )
    single = len(np.unique(groups)) == len(test.labels)
    differences = _differences(entries, reference, study, inference, class_names)
    _add_verdicts(differences, entries, reference, study, inference, (primary, margin))
    if single:
        add_tests(differences, entries, reference, scored, class_names)
    return {
        "format": FORMAT,
        "reference": reference,
        "primary": primary,
        "margin": margin,
        "class_names": list(class_names),
        "dataset": entries[0].runs[0].dataset,
        "newest_run": newest_run(entries),
        "folds": count_folds(entries),
        "test": {
            "images": len(test.labels),
            "groups": len(np.unique(groups)),
            "single_image_groups": single,
            "counts": np.bincount(test.labels, minlength=len(class_names)).tolist(),
            "rare_classes": inference.rare_classes(),
        },
        "settings": {
            "resamples": resamples,
            "seed": seed,
            "level": LEVEL,
            "deploy_prior": None if deploy_prior is None else list(deploy_prior),
            "sensitivity": sensitivity,
        },
        "net_benefit": net_benefit,
        "entries": results,
        "differences": differences,
    }


def _deployment_weights(
    entry: Entry, test: Predictions, weights: np.ndarray, deploy_prior: Sequence[float] | None
) -> np.ndarray:
    """Weights that score corrected probabilities at the class shares that they are corrected to.

    The test split has these shares itself, unless the user names others or it was balanced.
    """
    run = entry.runs[0]
    if deploy_prior is not None:
        return deployment_weights(test.labels, deploy_prior, weights)
    if "test" in run.dataset["balanced_splits"]:
        return deployment_weights(test.labels, run.samples["natural"], weights)
    return weights


def _check_same_images(entry: Entry, scored: Scored, test: Predictions) -> None:
    for runs, predictions in zip(entry.by_seed, scored.predictions, strict=True):
        if predictions.ids != test.ids or not np.array_equal(predictions.labels, test.labels):
            raise UserError(
                f"{runs[0].path} was tested on other images than the first run: leave it out of "
                "--runs"
            )


def _resample(
    scored: Scored, variant: str, weights: np.ndarray, class_names: Sequence[str]
) -> dict[str, np.ndarray]:
    """Metric -> float64 [seeds, 1 + resamples]; a class's are called `recall/COVID`."""
    rows = []
    # Lines of hundreds of classes would take many minutes: they are not resampled.
    all_lines = len(class_names) <= class_lists.ROWS
    for test, log_probabilities in zip(scored.predictions, scored.variants[variant], strict=True):
        row = weighted_metrics(test.labels, log_probabilities, weights, lines=all_lines)
        values = row.flat(class_names)
        if not all_lines:
            whole = weighted_metrics(test.labels, log_probabilities, weights[:1]).flat(class_names)
            for name in _line_names(class_names):
                values[name][:1] = whole[name]
        rows.append(values)
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def _add_intervals(
    results: dict[str, dict[str, Any]],
    values: Values,
    study: Studies,
    inference: Inference,
    class_names: Sequence[str],
) -> None:
    """Adds `metrics`, `by_seed` and `probabilities` to each entry."""

    def means(variant: str, names: Sequence[str]) -> list[dict[str, Any]]:
        return [
            {m: plain(inference.mean(m, study(variant, m).mean(i))) for m in names}
            for i in range(len(results))
        ]

    shown = name_metrics(OVERALL, BY_CLASS, class_names)
    calibrated = [*OVERALL, *_calibration_names(class_names)]
    metrics = means("raw", shown)
    probabilities = {variant: means(variant, calibrated) for variant in VARIANTS}
    for i, (name, result) in enumerate(results.items()):
        result["metrics"] = metrics[i]
        result["by_seed"] = {m: values[name]["raw"][m][:, 0].tolist() for m in OVERALL}
        result["probabilities"] = {v: one[i] for v, one in probabilities.items()}


def _calibration_names(class_names: Sequence[str]) -> list[str]:
    return [*_line_names(class_names), *(f"brier/{name}" for name in class_names)]


def _line_names(class_names: Sequence[str]) -> list[str]:
    kinds = ("calibration_slope", "calibration_intercept")
    return [f"{kind}/{name}" for kind in kinds for name in class_names]


def _differences(
    entries: Sequence[Entry],
    reference: str,
    study: Studies,
    inference: Inference,
    class_names: Sequence[str],
) -> dict[str, Any]:
    """Entry -> metric -> entry minus reference, with p-values corrected over the entries."""
    names = [entry.name for entry in entries]
    base, others = names.index(reference), [n for n in names if n != reference]
    result: dict[str, Any] = {
        name: {"metrics": {}, "calibrated": {}, "free": None} for name in others
    }
    shown = name_metrics(OVERALL, BY_CLASS, class_names)
    for part, variant, metrics in (
        ("metrics", "raw", shown),
        ("calibrated", "calibrated", OVERALL),
    ):
        for metric in metrics:
            crossed = study(variant, metric)
            intervals = [
                inference.difference(metric, crossed, names.index(n), base) for n in others
            ]
            adjusted = bootstrap.holm([one.p_value for one in intervals])
            for name, one, p_value in zip(others, intervals, adjusted, strict=True):
                result[name][part][metric] = {**plain(one), "p_holm": p_value}
    return result


def _add_verdicts(
    result: dict[str, Any],
    entries: Sequence[Entry],
    reference: str,
    study: Studies,
    inference: Inference,
    question: tuple[str, float],
) -> None:
    """Adds to each difference `verdict` (primary metric, then Brier score), and `free`: the
    difference of the primary metric to `FREE` of the same backbone, if that is one of the entries.
    """
    (primary, margin), names = question, [entry.name for entry in entries]
    base = names.index(reference)
    judged = {
        metric: verdicts.judge(
            metric,
            {n: study("raw", metric).difference(names.index(n), base) for n in result},
            {n: one["metrics"][metric]["p_holm"] for n, one in result.items()},
            margin if metric == primary else None,
        )
        for metric in (primary, SECONDARY)
    }
    for name, one in result.items():
        one["verdict"] = {metric: words[name] for metric, words in judged.items()}
        free = FREE + name.removeprefix(name.split(" ")[0])
        if free in names and free != name:
            at = (names.index(name), names.index(free))
            one["free"] = plain(inference.difference(primary, study("raw", primary), *at))
