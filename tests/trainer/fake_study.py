"""A study of made-up runs: small splits, so that a comparison takes well under a second."""

from __future__ import annotations

import dataclasses
import os
import pathlib

from cxr_tfrecords import files
from tests.trainer import fake_run
from trainer.comparison import compare_methods, method_grid, study_cells
from trainer.comparison.methods import group_runs
from trainer.runs import same_run
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


def finish_cell(study: study_cells.Study, cell: method_grid.Cell, **written) -> str:
    """Writes the finished run of a study's cell, with its settings; returns its directory.

    written: of `write_run`, such as `config`'s fields, to be other than the study's.
    """
    config = dataclasses.asdict(study.config(cell))
    del config["data_dir"]
    config["run_dir"] = study.run_dir(cell)
    data = study.data[cell.fold]
    dataset = {"fingerprint": data.fingerprint, "path": data.path, "folds": data.folds}
    options = {"counts": COUNTS, "planned": COUNTS["train"], "dataset": dataset, **config}
    return fake_run.write_run(study.run_dir(cell), **{**options, **written})


def decouple_cell(study: study_cells.Study, cell: method_grid.Cell, **origin) -> str:
    """Writes the finished run of a decoupled cell, whose base is finished."""
    path = finish_cell(study, cell)
    model = os.path.join(study.run_dir(study.base(cell)), "model.keras")
    if not os.path.exists(model):
        pathlib.Path(model).write_text("a model")
    name = os.path.join(path, "config.json")
    content = files.read_json(name)
    content["decoupled"] = {
        "method": cell.method.decoupled,
        "from_run": os.path.dirname(model),
        "flags": method_grid.DECOUPLED[cell.method.decoupled],
        "from_config": content["config"],
        "model_sha256": same_run.hash_file(model),
        "tau": 1.0,
        "priors": [0.25] * 4,
        **origin,
    }
    files.write_json(name, content)
    return path
