"""Methods as a comparison takes them: their runs, their predictions, and at which class shares
their probabilities are.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence

import numpy as np

from cxr_tfrecords.errors import UserError
from trainer import calibration, class_balance, evaluation
from trainer.finished_run import FinishedRun, read_run

# Raw; at the deployment's class shares; and with a temperature fitted on validation besides.
VARIANTS = ("raw", "prior_corrected", "calibrated")


@dataclasses.dataclass(frozen=True)
class Entry:
    """A method on a backbone: its runs, by rising seed."""

    name: str
    runs: tuple[FinishedRun, ...]

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(run.config.seed for run in self.runs)


@dataclasses.dataclass(frozen=True)
class Scored:
    """An entry's predictions on one split: by seed, log-probabilities [n, classes] by variant."""

    predictions: tuple[evaluation.Predictions, ...]
    variants: dict[str, tuple[np.ndarray, ...]]
    temperatures: tuple[float, ...]


def read_entries(named_runs: Sequence[tuple[str, str]]) -> list[Entry]:
    """Reads runs and gathers them.

    Args:
      named_runs: (name of the entry, run directory).

    Raises:
      UserError: two runs of an entry have one seed, or runs are of different data.
    """
    gathered: dict[str, dict[int, FinishedRun]] = {}
    first: FinishedRun | None = None
    for name, path in named_runs:
        run = read_run(path)
        first = first or run
        if run.dataset["fingerprint"] != first.dataset["fingerprint"]:
            raise UserError(
                f"{path} and {first.path} were trained on different data sets: their figures "
                "cannot be paired"
            )
        own = gathered.setdefault(name, {})
        if run.config.seed in own:
            raise UserError(
                f"{path} and {own[run.config.seed].path} are both {name} with seed "
                f"{run.config.seed}: leave one out"
            )
        own[run.config.seed] = run
    return [Entry(n, tuple(own[s] for s in sorted(own))) for n, own in gathered.items()]


def score_entry(entry: Entry, deploy_prior: Sequence[float] | None) -> Scored:
    predictions, temperatures = [], []
    variants: dict[str, list[np.ndarray]] = {variant: [] for variant in VARIANTS}
    for run in entry.runs:
        validation, test = (
            evaluation.read_predictions(os.path.join(run.path, f"predictions_{split}.csv"))
            for split in ("validation", "test")
        )
        trained_at = training_priors(run)
        natural = np.array(run.samples["natural"], np.float64)
        target = natural if deploy_prior is None else np.asarray(deploy_prior, np.float64)
        at_natural = calibration.correct_priors(validation.log_probabilities, trained_at, natural)
        temperature = calibration.fit_temperature(validation.labels, at_natural)
        corrected = calibration.correct_priors(test.log_probabilities, trained_at, natural)
        cooled = calibration.apply_temperature(corrected, temperature)
        predictions.append(test)
        temperatures.append(temperature)
        variants["raw"].append(test.log_probabilities)
        variants["prior_corrected"].append(
            calibration.correct_priors(test.log_probabilities, trained_at, target)
        )
        variants["calibrated"].append(calibration.correct_priors(cooled, natural, target))
    return Scored(
        tuple(predictions),
        {name: tuple(found) for name, found in variants.items()},
        tuple(temperatures),
    )


def training_priors(run: FinishedRun) -> np.ndarray:
    """float64 [classes], sum 1: the class shares that a run's probabilities are at.

    Those of the training stream, times what the loss weighs a class by; losses that add the log
    prior to the logits (balanced softmax, logit adjustment) leave raw logits at prior^(1 - tau).
    Focal loss and LDAM have no such shares: those of the stream are the nearest there is.
    """
    counts = run.samples["natural"]
    natural, stream = (np.array(run.samples[k], np.float64) for k in ("natural", "planned"))
    config = run.config
    if config.loss == "class_weighted":
        stream = stream * class_balance.balanced_weights(counts)
    elif config.loss == "effective_number":
        beta = config.effective_number_beta
        stream = stream * class_balance.effective_number_weights(counts, beta)
    elif config.loss in ("balanced_softmax", "logit_adjusted"):
        tau = config.logit_adjustment_tau if config.loss == "logit_adjusted" else 1.0
        stream = stream / (natural / natural.sum()) ** tau
    return stream / stream.sum()
