"""What is known of each method of a comparison without resampling: its runs, their budget, and
McNemar's and DeLong's tests, seed by seed."""

from __future__ import annotations

import dataclasses
import datetime
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from trainer.comparison import operating_points
from trainer.comparison.methods import Entry, Scored
from trainer.deployment.corrected_probabilities import VARIANTS
from trainer.evaluation import calibration, paired_tests
from trainer.evaluation.metrics import log_odds
from trainer.runs import remote_run, run_files
from trainer.runs.training_priors import planned_in_last_epoch, training_priors

_LAST_SECOND = 253_402_300_799  # of the year 9999


def newest_run(entries: Sequence[Entry]) -> str:
    """Date (UTC) on which the newest run predicted the test split, such as `2026-11-28`."""
    paths = [run_files.predictions_path(run.path, "test") for e in entries for run in e.runs]
    # A clock that was wrong may have given a time that no calendar has.
    newest = min(max(map(os.path.getmtime, paths)), _LAST_SECOND)
    return datetime.datetime.fromtimestamp(newest, datetime.UTC).date().isoformat()


def count_folds(entries: Sequence[Entry]) -> int:
    """Number of test folds that the comparison pools; 0: one test split, or one fold."""
    count = len(entries[0].by_seed[0])
    return count if count > 1 else 0


def describe_entry(
    entry: Entry,
    scored: Scored,
    class_names: Sequence[str],
    sample_weights: Mapping[str, np.ndarray],
    sensitivity: float,
) -> dict[str, Any]:
    """What is known of an entry without resampling, as JSON values.

    `samples` and `config` are those of the first run. `seeds` has one item a seed; `runs`,
    `updates`, `epochs`, `best_epochs`, `minutes` and `temperatures` have one a run: where folds are
    pooled, those of the first seed's folds come first.

    Args:
      sample_weights: variant -> float [n], how much each test image counts.
    """
    run = entry.runs[0]
    confusion = np.sum([r.metrics["test"]["confusion_matrix"] for r in entry.runs], axis=0)
    differing = ("run_dir", "seed", *(("fold",) if count_folds([entry]) else ()))
    return {
        "seeds": list(entry.seeds),
        "runs": [remote_run.address_of(r.path) for r in entry.runs],
        "config": {k: v for k, v in run.config.to_json().items() if k not in differing},
        "samples": run.samples,
        "planned_last": planned_in_last_epoch(run),
        "training_priors": np.mean([training_priors(r) for r in entry.runs], axis=0).tolist(),
        "updates": [r.updates for r in entry.runs],
        "epochs": [int(r.history[-1]["epoch"]) for r in entry.runs],
        "best_epochs": [int(r.best["epoch"]) for r in entry.runs],
        "minutes": [round(sum(row["seconds"] for row in r.history) / 60, 2) for r in entry.runs],
        "confusion_matrix": (confusion / len(entry.seeds)).tolist(),
        "temperatures": list(scored.temperatures),
        "operating_points": operating_points.of_seeds(entry.by_seed, sensitivity),
        "reliability": {
            v: _reliability(scored, v, class_names, sample_weights[v]) for v in VARIANTS
        },
    }


def _reliability(
    scored: Scored, variant: str, class_names: Sequence[str], weights: np.ndarray
) -> dict[str, dict[str, list[float]]]:
    """Curves of the first seed: pooled seeds would show an average of models that nobody uses."""
    labels = scored.predictions[0].labels
    probabilities = np.exp(scored.variants[variant][0])
    curves = {}
    for c, name in enumerate(class_names):
        curve = calibration.reliability_curve(labels == c, probabilities[:, c], weights=weights)
        curves[name] = {
            field.name: np.asarray(getattr(curve, field.name)).tolist()
            for field in dataclasses.fields(curve)
        }
    return curves


def add_tests(
    result: dict[str, Any],
    entries: Sequence[Entry],
    reference: str,
    scored: Mapping[str, Scored],
    class_names: Sequence[str],
) -> None:
    """McNemar's and DeLong's tests of each seed, which compare two trained models.

    They are not joined to one p-value: each seed may point in another direction.
    """
    seeds = {entry.name: entry.seeds for entry in entries}
    for name, one in result.items():
        one["mcnemar"], one["delong"] = [], {c: [] for c in class_names}
        for seed in seeds[name]:
            if seed not in seeds[reference]:
                continue
            a = scored[name].predictions[seeds[name].index(seed)]
            b = scored[reference].predictions[seeds[reference].index(seed)]
            right = [p.logits.argmax(1) == p.labels for p in (a, b)]
            one["mcnemar"].append(
                {"seed": seed, **dataclasses.asdict(paired_tests.mcnemar(*right))}
            )
            odds = [log_odds(p.log_probabilities) for p in (a, b)]
            for c, class_name in enumerate(class_names):
                test = paired_tests.delong(a.labels == c, odds[0][:, c], odds[1][:, c])
                if test is not None:
                    one["delong"][class_name].append({"seed": seed, **dataclasses.asdict(test)})
