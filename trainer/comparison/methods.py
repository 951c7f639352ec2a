"""The methods of a comparison: their runs and their predictions."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from cxr_tfrecords.errors import UserError
from trainer.deployment import corrected_probabilities
from trainer.deployment.corrected_probabilities import VARIANTS
from trainer.evaluation.predictions import Predictions
from trainer.runs.finished_run import FinishedRun


@dataclasses.dataclass(frozen=True)
class Entry:
    """A method on a backbone: its runs, ordered by seed and then by test fold."""

    name: str
    runs: tuple[FinishedRun, ...]

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(dict.fromkeys(run.config.seed for run in self.runs))

    @property
    def by_seed(self) -> tuple[tuple[FinishedRun, ...], ...]:
        """The runs of each seed: one, or one for each test fold."""
        return tuple(tuple(r for r in self.runs if r.config.seed == s) for s in self.seeds)


@dataclasses.dataclass(frozen=True)
class Scored:
    """An entry's predictions on the test split or on all test folds, in the order of its seeds.

    Attributes:
      predictions: of each seed.
      variants: each of `VARIANTS` -> log-probabilities of each seed, float64 [n, classes].
      temperatures: of each run, fitted on its own validation split.
    """

    predictions: tuple[Predictions, ...]
    variants: dict[str, tuple[np.ndarray, ...]]
    temperatures: tuple[float, ...]


def group_runs(named_runs: Sequence[tuple[str, FinishedRun]]) -> list[Entry]:
    """Groups runs by method.

    Runs of several test folds are cross-validation: each seed of a method must then have all folds.

    Args:
      named_runs: (name of the entry, run).

    Raises:
      UserError: two runs of an entry have the same seed and fold, a fold is missing, or runs are of
        different data.
    """
    gathered: dict[str, dict[tuple[int, int], FinishedRun]] = {}
    first: FinishedRun | None = None
    for name, run in named_runs:
        first = first or run
        if any(run.dataset[key] != first.dataset[key] for key in ("fingerprint", "class_names")):
            raise UserError(
                f"{run.path} and {first.path} were trained on different data sets or classes: "
                "their figures cannot be paired; leave one out"
            )
        known = gathered.setdefault(name, {})
        # -1: without folds. No data set has runs both with and without.
        key = run.config.seed, -1 if run.config.fold is None else run.config.fold
        if key in known:
            fold = "" if run.config.fold is None else f" and test fold {run.config.fold}"
            raise UserError(
                f"{run.path} and {known[key].path} are both {name} with seed {run.config.seed}"
                f"{fold}: leave one out"
            )
        known[key] = run
    entries = [Entry(n, tuple(runs[key] for key in sorted(runs))) for n, runs in gathered.items()]
    _check_folds(entries)
    return entries


def _check_folds(entries: Sequence[Entry]) -> None:
    """Refuses runs of several test folds if a method and seed lacks one of the data set's folds."""
    if len({run.config.fold for entry in entries for run in entry.runs}) < 2:
        return
    folds, missing = entries[0].runs[0].dataset.get("folds", 0), []
    for entry in entries:
        for seed, runs in zip(entry.seeds, entry.by_seed, strict=True):
            lacking = sorted(set(range(folds)) - {run.config.fold for run in runs})
            if lacking:
                missing.append(f"{entry.name} seed {seed}: fold {', '.join(map(str, lacking))}")
    if missing:
        raise UserError(
            f"the runs have several test folds, and some of the {folds} folds are missing "
            f"({'; '.join(missing)}): train these, or name the runs of one fold, or leave this "
            "method and seed out"
        )


def pool(runs: Sequence[FinishedRun]) -> Predictions:
    """The test predictions of one seed: of its run or, fold after fold, of the runs of all folds.

    Raises:
      UserError: a run has no readable predictions, or an image is in the test folds of two runs.
    """
    parts = [run.predictions("test") for run in runs]
    if len(parts) == 1:
        return parts[0]
    tested: dict[str, str] = {}
    for run, part in zip(runs, parts, strict=True):
        for image in part.ids:
            if image in tested:
                raise UserError(
                    f"{image} was tested in {tested[image]} and in {run.path}: folds share no "
                    "image, so one of these runs is not of this cross-validation; leave it out"
                )
        tested |= dict.fromkeys(part.ids, run.path)
    return Predictions(
        [image for part in parts for image in part.ids],
        np.concatenate([part.labels for part in parts]),
        np.concatenate([part.logits for part in parts]),
        [group for part in parts for group in part.groups or part.ids],
    )


def score_entry(entry: Entry, deploy_prior: Sequence[float] | None) -> Scored:
    """Reads the test predictions of an entry's runs and computes their variants.

    With folds, each run's own validation fold corrects its own test fold; then folds are pooled.

    Raises:
      UserError: a run has no readable predictions, or folds share an image.
    """
    temperatures: list[float] = []
    variants: dict[str, list[np.ndarray]] = {variant: [] for variant in VARIANTS}
    for runs in entry.by_seed:
        plans = [corrected_probabilities.plan_deployment(run, deploy_prior) for run in runs]
        temperatures += [plan.temperature for plan in plans]
        parts = [
            plan.variants(run.predictions("test").log_probabilities)
            for plan, run in zip(plans, runs, strict=True)
        ]
        for name, by_seed in variants.items():
            by_seed.append(np.concatenate([part[name] for part in parts]))
    return Scored(
        tuple(pool(runs) for runs in entry.by_seed),
        {name: tuple(by_seed) for name, by_seed in variants.items()},
        tuple(temperatures),
    )
