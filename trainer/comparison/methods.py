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
    """A method on a backbone: its runs, ordered by seed."""

    name: str
    runs: tuple[FinishedRun, ...]

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(run.config.seed for run in self.runs)


@dataclasses.dataclass(frozen=True)
class Scored:
    """An entry's predictions on the test split, in the order of its seeds.

    Attributes:
      predictions: of each seed's run.
      variants: each of `VARIANTS` -> log-probabilities of each run, float64 [n, classes].
      temperatures: of each run, fitted on validation.
    """

    predictions: tuple[Predictions, ...]
    variants: dict[str, tuple[np.ndarray, ...]]
    temperatures: tuple[float, ...]


def group_runs(named_runs: Sequence[tuple[str, FinishedRun]]) -> list[Entry]:
    """Groups runs by method.

    Args:
      named_runs: (name of the entry, run).

    Raises:
      UserError: two runs of an entry have the same seed, or runs are of different data.
    """
    gathered: dict[str, dict[int, FinishedRun]] = {}
    first: FinishedRun | None = None
    for name, run in named_runs:
        first = first or run
        if run.dataset["fingerprint"] != first.dataset["fingerprint"]:
            raise UserError(
                f"{run.path} and {first.path} were trained on different data sets: their figures "
                "cannot be paired; leave one out"
            )
        by_seed = gathered.setdefault(name, {})
        if run.config.seed in by_seed:
            raise UserError(
                f"{run.path} and {by_seed[run.config.seed].path} are both {name} with seed "
                f"{run.config.seed}: leave one out"
            )
        by_seed[run.config.seed] = run
    return [Entry(n, tuple(runs[s] for s in sorted(runs))) for n, runs in gathered.items()]


def score_entry(entry: Entry, deploy_prior: Sequence[float] | None) -> Scored:
    """Reads the test predictions of an entry's runs and computes their variants.

    Raises:
      UserError: a run has no readable predictions.
    """
    predictions, plans = [], []
    variants: dict[str, list[np.ndarray]] = {variant: [] for variant in VARIANTS}
    for run in entry.runs:
        test = run.predictions("test")
        plan = corrected_probabilities.plan_deployment(run, deploy_prior)
        predictions.append(test)
        plans.append(plan)
        for name, log_probabilities in plan.variants(test.log_probabilities).items():
            variants[name].append(log_probabilities)
    return Scored(
        tuple(predictions),
        {name: tuple(by_seed) for name, by_seed in variants.items()},
        tuple(plan.temperature for plan in plans),
    )
