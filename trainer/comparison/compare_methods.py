"""Compares finished runs: every number of a comparison, from their predictions alone.

A method is all runs of one backbone that differ in nothing but the seed. Metrics are means over
seeds with intervals from one bootstrap over groups, the same resamples for all methods, so that
differences are paired; see `evaluation.bootstrap`. Beside each p-value is the one that is corrected
for the number of methods. The result is a dictionary, comparison.json, from which page and text are
made.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cxr_tfrecords.errors import UserError
from trainer.comparison import operating_points
from trainer.comparison.methods import Entry, Scored, score_entry
from trainer.deployment.corrected_probabilities import VARIANTS
from trainer.evaluation import bootstrap, calibration, paired_tests
from trainer.evaluation.metrics import LOWER_IS_BETTER, OVERALL, log_odds, weighted_metrics
from trainer.evaluation.predictions import Predictions
from trainer.runs.training_priors import training_priors

FORMAT = "cxr-comparison/1"
# By class; the others of `metrics.PER_CLASS` are in each run's metrics.json.
BY_CLASS = ("recall", "specificity", "precision", "f1", "auroc", "auprc")
LEVEL = 0.95
# Range of metrics whose range is not 0 to 1.
_ANYTHING = (-np.inf, np.inf)
_BOUNDS = {
    "mcc": (-1.0, 1.0),
    "brier": (0.0, 2.0),
    "log_loss": (0.0, np.inf),
    "calibration_slope": _ANYTHING,
    "calibration_intercept": _ANYTHING,
}


def compare(
    entries: Sequence[Entry],
    *,
    reference: str,
    primary: str = "balanced_accuracy",
    resamples: int = 2000,
    seed: int = 0,
    deploy_prior: Sequence[float] | None = None,
) -> dict[str, Any]:
    """Compares all entries with the reference on the test split.

    Args:
      reference: name of the entry that the others are compared with.
      primary: metric of `metrics.OVERALL` that the verdict is about, to be chosen beforehand.
      resamples, seed: of the bootstrap.
      deploy_prior: class shares that probabilities are corrected to; None: those of the training
        split before any balancing.

    Returns:
      The content of comparison.json.

    Raises:
      UserError: there is no such reference, or test images differ between runs.
    """
    names = [entry.name for entry in entries]
    if reference not in names:
        raise UserError(f"--reference={reference} is not one of {', '.join(names)}")
    class_names = entries[0].runs[0].class_names
    scored = {entry.name: score_entry(entry, deploy_prior) for entry in entries}
    test = scored[reference].predictions[0]
    for entry in entries:
        _check_same_images(entry, scored[entry.name], test)
    weights = bootstrap.group_weights(test.groups or test.ids, resamples, seed)
    values = {
        name: {variant: _resample(one, variant, weights, class_names) for variant in VARIANTS}
        for name, one in scored.items()
    }
    results = {
        entry.name: _describe_entry(entry, scored[entry.name], values[entry.name], class_names)
        for entry in entries
    }
    differences = _differences(entries, reference, values, scored, class_names)
    return {
        "format": FORMAT,
        "reference": reference,
        "primary": primary,
        "class_names": list(class_names),
        "dataset": entries[0].runs[0].dataset,
        "test": {
            "images": len(test.labels),
            "groups": len(np.unique(test.groups or test.ids)),
            "counts": np.bincount(test.labels, minlength=len(class_names)).tolist(),
        },
        "settings": {"resamples": resamples, "seed": seed, "level": LEVEL},
        "entries": results,
        "differences": differences,
    }


def _check_same_images(entry: Entry, scored: Scored, test: Predictions) -> None:
    for run, predictions in zip(entry.runs, scored.predictions, strict=True):
        if predictions.ids != test.ids or not np.array_equal(predictions.labels, test.labels):
            raise UserError(
                f"{run.path} was tested on other images than the first run: leave it out of --runs"
            )


def _resample(
    scored: Scored, variant: str, weights: np.ndarray, class_names: Sequence[str]
) -> dict[str, np.ndarray]:
    """Metric -> float64 [seeds, 1 + resamples]; a class's are called `recall/COVID`."""
    rows = []
    for test, log_probabilities in zip(scored.predictions, scored.variants[variant], strict=True):
        rows.append(weighted_metrics(test.labels, log_probabilities, weights).flat(class_names))
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def _describe_entry(
    entry: Entry,
    scored: Scored,
    values: Mapping[str, Mapping[str, np.ndarray]],
    class_names: Sequence[str],
) -> dict[str, Any]:
    run = entry.runs[0]
    shown = [*OVERALL, *(f"{metric}/{c}" for metric in BY_CLASS for c in class_names)]
    confusion = np.sum([r.metrics["test"]["confusion_matrix"] for r in entry.runs], axis=0)
    return {
        "seeds": list(entry.seeds),
        "runs": [r.path for r in entry.runs],
        "config": {k: v for k, v in run.config.to_json().items() if k not in ("run_dir", "seed")},
        "samples": run.samples,
        "training_priors": training_priors(run).tolist(),
        "updates": [int(r.history[-1]["step"]) for r in entry.runs],
        "epochs": [int(r.history[-1]["epoch"]) for r in entry.runs],
        "minutes": [round(sum(row["seconds"] for row in r.history) / 60, 2) for r in entry.runs],
        "confusion_matrix": confusion.tolist(),
        "metrics": {name: _bounded(name, values["raw"][name]) for name in shown},
        "by_seed": {name: values["raw"][name][:, 0].tolist() for name in OVERALL},
        "probabilities": {
            variant: {
                name: _bounded(name, values[variant][name])
                for name in (*OVERALL, *_calibration_names(class_names))
            }
            for variant in VARIANTS
        },
        "temperatures": list(scored.temperatures),
        "operating_points": operating_points.of_runs(entry.runs),
        "reliability": {v: _reliability(scored, v, class_names) for v in VARIANTS},
    }


def _calibration_names(class_names: Sequence[str]) -> list[str]:
    kinds = ("calibration_slope", "calibration_intercept", "brier")
    return [f"{kind}/{name}" for kind in kinds for name in class_names]


def _reliability(
    scored: Scored, variant: str, class_names: Sequence[str]
) -> dict[str, dict[str, list[float]]]:
    """Curves of the first seed: pooled seeds would show an average of models that nobody uses."""
    labels = scored.predictions[0].labels
    probabilities = np.exp(scored.variants[variant][0])
    curves = {}
    for c, name in enumerate(class_names):
        curve = calibration.reliability_curve(labels == c, probabilities[:, c])
        curves[name] = {
            field.name: np.asarray(getattr(curve, field.name)).tolist()
            for field in dataclasses.fields(curve)
        }
    return curves


def _differences(
    entries: Sequence[Entry],
    reference: str,
    values: Mapping[str, Mapping[str, Mapping[str, np.ndarray]]],
    scored: Mapping[str, Scored],
    class_names: Sequence[str],
) -> dict[str, Any]:
    """Entry -> metric -> entry minus reference, with p-values corrected over the entries."""
    base = next(entry for entry in entries if entry.name == reference)
    others = [entry for entry in entries if entry.name != reference]
    names = [*OVERALL, *(f"{metric}/{c}" for metric in BY_CLASS for c in class_names)]
    result: dict[str, Any] = {entry.name: {"metrics": {}, "calibrated": {}} for entry in others}
    for part, variant, metrics in (
        ("metrics", "raw", names),
        ("calibrated", "calibrated", OVERALL),
    ):
        for metric in metrics:
            differences = [
                bootstrap.paired_difference(
                    values[entry.name][variant][metric],
                    values[reference][variant][metric],
                    paired_seeds=entry.seeds == base.seeds,
                )
                for entry in others
            ]
            adjusted = bootstrap.holm([one.p_value for one in differences])
            for entry, one, p_value in zip(others, differences, adjusted, strict=True):
                result[entry.name][part][metric] = {**_plain(one), "p_holm": p_value}
    _add_tests(result, others, base, scored, class_names)
    return result


def _add_tests(
    result: dict[str, Any],
    others: Sequence[Entry],
    base: Entry,
    scored: Mapping[str, Scored],
    class_names: Sequence[str],
) -> None:
    """McNemar's and DeLong's tests by seed, combined by twice the median p-value (Rueschendorf
    1982), which is valid whatever the dependence between seeds; then corrected over the entries."""
    for entry in others:
        pairs = [
            (scored[entry.name].predictions[i], scored[base.name].predictions[base.seeds.index(s)])
            for i, s in enumerate(entry.seeds)
            if s in base.seeds
        ]
        mcnemars = [
            paired_tests.mcnemar(a.logits.argmax(1) == a.labels, b.logits.argmax(1) == b.labels)
            for a, b in pairs
        ]
        result[entry.name]["mcnemar"] = {
            "by_seed": [dataclasses.asdict(test) for test in mcnemars],
            "p_value": _combined([test.p_value for test in mcnemars]),
        }
        result[entry.name]["delong"] = {}
        for c, name in enumerate(class_names):
            tests = [
                paired_tests.delong(a.labels == c, _odds(a)[:, c], _odds(b)[:, c]) for a, b in pairs
            ]
            known = [test for test in tests if test is not None]
            result[entry.name]["delong"][name] = {
                "by_seed": [dataclasses.asdict(test) for test in known],
                "p_value": _combined([test.p_value for test in known]),
            }
    for kind in ("mcnemar", *(("delong", name) for name in class_names)):
        tests_of_kind = [
            result[e.name][kind] if isinstance(kind, str) else result[e.name][kind[0]][kind[1]]
            for e in others
        ]
        adjusted = bootstrap.holm([one["p_value"] for one in tests_of_kind])
        for one, p_value in zip(tests_of_kind, adjusted, strict=True):
            one["p_holm"] = p_value


def _odds(predictions: Predictions) -> np.ndarray:
    return log_odds(predictions.log_probabilities)


def _combined(p_values: Sequence[float | None]) -> float | None:
    known = [p for p in p_values if p is not None]
    return min(1.0, 2 * float(np.median(known))) if known else None


def _bounded(metric: str, values: np.ndarray) -> dict[str, Any]:
    """The interval of a metric, cut to the metric's range: with few seeds, resamples exceed it."""
    result = _plain(bootstrap.interval(values))
    bounds = _BOUNDS.get(metric.split("/")[0], (0.0, 1.0))
    for end in ("low", "high"):
        if result[end] is not None:
            result[end] = float(np.clip(result[end], *bounds))
    return result


def _plain(interval: bootstrap.Interval) -> dict[str, Any]:
    return dataclasses.asdict(interval)


def better(metric: str, difference: float) -> bool:
    """Whether a difference of a metric is an improvement."""
    return (difference < 0) == (metric.split("/")[0] in LOWER_IS_BETTER)
