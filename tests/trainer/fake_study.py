"""A study of made-up runs: small splits, so that a comparison takes well under a second."""

from __future__ import annotations

import os

from tests.trainer import fake_run
from trainer.comparison import compare_methods
from trainer.comparison.methods import group_runs
from trainer.runs.finished_run import read_run

COUNTS = {"train": [240, 380, 650, 80], "validation": [20, 30, 40, 10], "test": [21, 31, 43, 9]}
PLANNED = {
    "none": COUNTS["train"],
    "undersample": [80, 80, 80, 80],
    "oversample": [720, 760, 650, 640],
}
STEPS = {"none": 42, "undersample": 10, "oversample": 86}


def write_study(directory: str | os.PathLike[str], seeds=(0, 1), **options) -> list[str]:
    """Runs of 3 samplers on the same images; returns their directories. options: of `write_run`."""
    return [
        fake_run.write_run(
            os.path.join(directory, "runs", f"tiny-{sampler}-seed{seed}"),
            planned=planned,
            steps=STEPS[sampler],
            rng_seed=10 * seed + number,
            sampler=sampler,
            seed=seed,
            **{"counts": COUNTS, "backbone": "tiny", **options},
        )
        for seed in seeds
        for number, (sampler, planned) in enumerate(PLANNED.items())
    ]


def compare(paths, resamples: int = 20, **options):
    """(content, entries) as `trainer.compare` makes them."""
    runs = [read_run(path) for path in paths]
    entries = group_runs([(run.config.sampler, run) for run in runs])
    return compare_methods.compare(
        entries, reference="none", resamples=resamples, **options
    ), entries
