"""A study of made-up runs: small splits, so that a comparison takes well under a second."""

from __future__ import annotations

import os

from tests.trainer import fake_run
from trainer import comparison

COUNTS = {"train": [240, 380, 650, 80], "validation": [58, 97, 161, 22], "test": [69, 118, 207, 28]}
PLANNED = {
    "none": COUNTS["train"],
    "undersample": [80, 80, 80, 80],
    "oversample": [720, 760, 650, 640],
}
STEPS = {"none": 42, "undersample": 10, "oversample": 86}


def write_study(directory: str | os.PathLike[str], seeds=(0, 1), **settings) -> list[str]:
    """Runs of 3 samplers on the same images; returns their directories."""
    return [
        fake_run.write_run(
            os.path.join(directory, "runs", f"tiny-{sampler}-seed{seed}"),
            counts=COUNTS,
            planned=planned,
            steps=STEPS[sampler],
            rng_seed=10 * seed + number,
            **{"sampler": sampler, "seed": seed, "backbone": "tiny", **settings},
        )
        for seed in seeds
        for number, (sampler, planned) in enumerate(PLANNED.items())
    ]


def compare(paths, resamples: int = 60, **options):
    """(content, entries) as `trainer.compare` makes them."""
    from trainer.finished_run import read_run

    entries = comparison.read_entries([(read_run(p).config.sampler, p) for p in paths])
    return comparison.compare(entries, reference="none", resamples=resamples, **options), entries
