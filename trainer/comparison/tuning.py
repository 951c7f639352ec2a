"""`--tune=N`: an equal number of tries of the learning rate and of each method's own parameters.

Every method, backbone and test fold is trained N times with `SEED`, which no run of the results
has. Try 0 has the values that all runs would have without tuning; the others are drawn at random
(Bergstra and Bengio 2012). The try with the best primary metric on validation gives its values to
the runs of all seeds. The test split has no part in it. Methods of `trainer.decouple` start from
the run `none`, with the values chosen for that one.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import os
import random
import string
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cxr_tfrecords.errors import UserError
from trainer.balancing.loss_table import LOSSES
from trainer.balancing.sampler_table import SAMPLERS
from trainer.comparison import study_checks, study_runs
from trainer.comparison.method_grid import Cell
from trainer.comparison.study_cells import Study
from trainer.runs import run_files
from trainer.runs.finished_run import FinishedRun, read_run
from trainer.settings.config import TrainConfig

SEED = 1000
# The learning rate is multiplied by a number from 1/10 to 10; its logarithm is uniform.
_RATE_RANGE = 10.0
# Parameters of methods: the smallest and the largest value of the uniform draws.
_RANGES = {
    "focal_gamma": (0.5, 4.0),
    "logit_adjustment_tau": (0.5, 2.0),
    "ldam_max_margin": (0.1, 1.0),
    "balance_power": (0.5, 1.0),
    "mixup_alpha": (0.05, 0.8),
}
# --effective_number_beta is 1 - 10^-x with x in this range: 0.9 to 0.9999.
_BETA_RANGE = (1.0, 4.0)


@dataclasses.dataclass(frozen=True)
class Tuned:
    """The tries of one method, backbone and test fold.

    Attributes:
      cells, values, runs: of each try; its run is None if it failed or diverged.
      diverged: whether the loss of each try became NaN or infinite.
      best: index of the chosen try; 0 if none was finished.
    """

    cells: Sequence[Cell]
    values: Sequence[Mapping[str, float]]
    runs: Sequence[FinishedRun | None]
    diverged: Sequence[bool]
    best: int

    @property
    def chosen(self) -> Cell:
        return self.cells[self.best]


def tune(
    study: Study, cells: Sequence[Cell], count: int, primary: str, jobs: int
) -> tuple[Study, list[Tuned]]:
    """Trains the tries that are not finished, and gives the runs of all seeds the values of the
    best. All that is wrong with these runs is refused before a try is trained.

    Args:
      cells: those of the study that are to be tuned, with all seeds of a method or none.
      count: tries of each method; primary: the metric of validation that chooses.
      jobs: runs at the same time.

    Returns:
      The study with these cells only, and the tries of each method.

    Raises:
      UserError: the runs of the results or of the tries cannot be trained, or are not those that
        this command would make.
      TemporaryError: another process trains a try.
    """
    if count < 2:
        raise UserError(f"--tune={count} tries the defaults alone: give 2 or more, or 0 for none")
    if any(cell.seed == SEED for cell in cells):
        raise UserError(f"--seeds: {SEED} is the seed of --tune's runs: name another one")
    study = dataclasses.replace(study, cells=cells)
    tries = make_tries(study, count)
    _check(study, tries, count)
    print(f"tuning: {count} tries of each method, judged by {primary} on validation", flush=True)
    outcome = study_runs.run_study(tries, tries.cells, jobs)
    study_runs.check_elsewhere(tries, outcome)
    return choose(study, tries, primary)


def make_tries(study: Study, count: int) -> Study:
    """The same study with the runs of tuning as its cells, the tries of a method side by side."""
    tuned = dict.fromkeys(map(_tuned_cell, _trained(study)))
    values = {
        dataclasses.replace(cell, draw=number): _flags(study.config(cell), number)
        for cell in tuned
        for number in range(count)
    }
    return dataclasses.replace(study, cells=list(values), values=values)


def choose(study: Study, tries: Study, primary: str) -> tuple[Study, list[Tuned]]:
    """Gives the runs of all seeds the values of their method's best try on validation.

    Args:
      tries: as `make_tries` gives them; a try that is not finished is not chosen.
    """
    grouped: dict[Cell, list[Cell]] = {}
    for cell in tries.cells:
        grouped.setdefault(dataclasses.replace(cell, draw=None), []).append(cell)
    tuned = {}
    for key, cells in grouped.items():
        runs = [read_run(tries.run_dir(c)) if tries.is_finished(c) else None for c in cells]
        scores = [_score(run, primary) for run in runs]
        values = [_values(tries.config(c)) for c in cells]
        diverged = [tries.has_diverged(c) for c in cells]
        tuned[key] = Tuned(cells, values, runs, diverged, scores.index(max(scores)))
    chosen = {cell: tries.values[tuned[_tuned_cell(cell)].chosen] for cell in _trained(study)}
    return dataclasses.replace(study, values=chosen), list(tuned.values())


def describe(
    tuned: Sequence[Tuned], primary: str, entry_name: Callable[[Cell], str]
) -> dict[str, Any]:
    """`tuning` of comparison.json: the metric, the seed, and by entry and test fold each try."""
    methods: dict[str, list[dict[str, Any]]] = {}
    for one in tuned:
        tries = [
            {
                "values": dict(values),
                "validation": None if run is None else run.metrics["validation"][primary],
                "diverged": diverged,
                "updates": 0 if run is None else run.updates,
                "minutes": 0 if run is None else sum(r["seconds"] for r in run.history) / 60,
            }
            for values, run, diverged in zip(one.values, one.runs, one.diverged, strict=True)
        ]
        chosen = {"fold": one.cells[0].fold, "chosen": one.best, "tries": tries}
        methods.setdefault(entry_name(one.cells[0]), []).append(chosen)
    return {"metric": primary, "seed": SEED, "tries": len(tuned[0].cells), "methods": methods}


def _trained(study: Study) -> list[Cell]:
    """The cells that are trained themselves; decoupled ones start from a run of these."""
    return [cell for cell in study.cells if not cell.method.decoupled]


def _tuned_cell(cell: Cell) -> Cell:
    return dataclasses.replace(cell, seed=SEED)


def _check(study: Study, tries: Study, count: int) -> None:
    study_checks.check_same_study(tries)
    for cell in _trained(study):
        before = _count_tries(study, cell)
        if os.path.exists(os.path.join(study.run_dir(cell), run_files.CONFIG)) and before != count:
            had = f"after {before} tries" if before else "without tuning"
            give = f"give --tune={before}" if before else "leave --tune out"
            raise UserError(
                f"--tune={count}: {study.run_dir(cell)} was trained {had}: {give}, or name another "
                "--study_dir"
            )
    by_draw = []
    for number in range(count):
        values = {
            cell: tries.values[dataclasses.replace(_tuned_cell(cell), draw=number)]
            for cell in _trained(study)
        }
        by_draw.append(dataclasses.replace(study, values=values))
    study_checks.check_same_study(*by_draw)
    both = dataclasses.replace(tries, cells=[*tries.cells, *study.cells])
    study_checks.check_trainable(both, both.cells)


def _count_tries(study: Study, cell: Cell) -> int:
    """The number of tries of the cell's method that were started, whatever became of them. All are
    before the runs of the results."""
    for number in itertools.count():
        one = dataclasses.replace(_tuned_cell(cell), draw=number)
        if not os.path.exists(study.run_dir(one)) and not os.path.exists(study.log(one)):
            break
    return number


def _score(run: FinishedRun | None, primary: str) -> float:
    value = None if run is None else run.metrics["validation"][primary]
    return -math.inf if value is None or math.isnan(value) else float(value)


def _parameters(config: TrainConfig) -> list[str]:
    """Names of the settings that are tuned beside the learning rate."""
    names = [
        (name or "").removeprefix("0.")
        for _, name, _, _ in string.Formatter().parse(LOSSES[config.loss].settings_text)
    ]
    if config.mixup_alpha:
        names.append("mixup_alpha")
    if SAMPLERS[config.sampler].takes_target and not config.target_distribution:
        names.append("balance_power")
    return [name for name in names if name in _RANGES or name == "effective_number_beta"]


def _flags(config: TrainConfig, number: int) -> dict[str, str]:
    """Flags of a try; none for try 0. Try k is the same whatever the number of tries, and draws the
    same factor of the learning rate for all methods."""
    if number == 0:
        return {}

    def uniform(name: str, low: float, high: float) -> float:
        return low + (high - low) * random.Random(f"{SEED} {number} {name}").random()

    rate = config.learning_rate * _RATE_RANGE ** uniform("learning_rate", -1, 1)
    flags = {"learning_rate": f"{rate:.3g}"}
    for name in _parameters(config):
        if name == "effective_number_beta":
            value = 1 - 10 ** -uniform(name, *_BETA_RANGE)
            flags[name] = f"{value:.5f}"
        else:
            flags[name] = f"{uniform(name, *_RANGES[name]):.3g}"
    return flags


def _values(config: TrainConfig) -> dict[str, float]:
    """The values of a try by the names of their settings, without those left at None."""
    values = {name: getattr(config, name) for name in ["learning_rate", *_parameters(config)]}
    return {name: value for name, value in values.items() if value is not None}
