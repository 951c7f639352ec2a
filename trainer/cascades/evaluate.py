"""Evaluates a cascade whose stages are trained, and writes its folder.

CASCADE/
  STAGE/                      the run of each stage, as trainer.main leaves it
  cascade.md, cascade.json    all results
  tree.png                    the stages with their test images
  predictions_{validation,test}.csv  products of probabilities, in the layout of a run's
  routes_test.csv             where each test image was sent
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cxr_tfrecords import csv_rows, files
from cxr_tfrecords.checks import seal
from cxr_tfrecords.dataset_dir import DatasetDir
from cxr_tfrecords.errors import UserError
from trainer.cascades import figures, leaf_answers
from trainer.cascades.description import Cascade
from trainer.cascades.page import render
from trainer.cascades.picture import write_tree
from trainer.cascades.stage_answers import answer_all
from trainer.deployment.corrected_probabilities import plan_deployment
from trainer.evaluation.calibration import correct_priors
from trainer.evaluation.predictions import Predictions, write_predictions
from trainer.runs import run_files
from trainer.runs.finished_run import FinishedRun


@dataclasses.dataclass(frozen=True)
class Answered:
    """What a cascade answers to a split.

    Attributes:
      leaves: predictions over the leaves, whose logits are logarithms of products.
      variants: raw, prior_corrected, calibrated and equal_shares -> log-probabilities, float64
        [n, leaves].
      stages: stage -> its own answers, with the labels of the leaves.
      chosen, arrives: of hard routing, see `leaf_answers.route`.
      shares: that the raw products assume, see `leaf_answers.leaf_shares`.
    """

    leaves: Predictions
    variants: Mapping[str, np.ndarray]
    stages: Mapping[str, Predictions]
    chosen: np.ndarray
    arrives: Mapping[str, np.ndarray]
    shares: np.ndarray


def evaluate(
    cascade: Cascade,
    runs: Mapping[str, FinishedRun],
    data: DatasetDir,
    folder: str,
    *,
    flat: FinishedRun | None = None,
    reported: Mapping[str, Any] | None = None,
    resamples: int = 500,
) -> dict[str, Any]:
    """Writes all files of the folder but the runs of the stages.

    Args:
      runs: stage -> its finished run.
      data: with the leaves as its classes, see `stage_runs.leaf_data`.
      flat: a run of one model that decides among the leaves.
      reported: what the authors of a cascade report, see `read_recipes.read_reported`, with metrics
        such as `accuracy/STAGE`.

    Returns:
      The content of cascade.json.

    Raises:
      UserError: a model was not kept, a shard is damaged, or `flat` has other test images.
    """
    answered = answer_splits(cascade, runs, data)
    content = {
        **describe(cascade, runs, data, answered["test"], flat, resamples),
        "reported": dict(reported) if reported else None,
    }
    names = data.class_names
    for split, one in answered.items():
        write_predictions(run_files.predictions_path(folder, split), one.leaves, names)
    _write_routes(os.path.join(folder, run_files.CASCADE_ROUTES), answered["test"], names)
    write_tree(os.path.join(folder, run_files.CASCADE_TREE), content)
    files.write_text(os.path.join(folder, run_files.CASCADE_PAGE), render(content, runs, flat))
    files.write_json(
        os.path.join(folder, run_files.CASCADE),
        seal.sealed(content),
        sort_keys=False,
        allow_nan=False,
    )
    return content


def answer_splits(
    cascade: Cascade, runs: Mapping[str, FinishedRun], data: DatasetDir
) -> dict[str, Answered]:
    """Validation and test -> what the cascade answers."""
    plans = {name: plan_deployment(run) for name, run in runs.items()}
    order = {name: run.class_names for name, run in runs.items()}
    by_stage = {}
    for name, run in runs.items():
        print(f"{name}: answers to all images of validation and test", flush=True)
        by_stage[name] = answer_all(run, data)
    result = {}
    for split in run_files.SPLITS:
        stages = {name: parts[split] for name, parts in by_stage.items()}
        raw = {name: one.log_probabilities for name, one in stages.items()}
        variants = leaf_answers.leaf_variants(cascade, data.class_names, raw, order, plans)
        shares = leaf_answers.leaf_shares(cascade, data.class_names, order, plans, "trained_at")
        variants["equal_shares"] = correct_priors(
            variants["raw"], shares, np.full(len(shares), 1 / len(shares))
        )
        chosen, arrives = leaf_answers.route(cascade, data.class_names, raw, order)
        first = next(iter(stages.values()))
        leaves = dataclasses.replace(first, logits=variants["raw"].astype(np.float32))
        result[split] = Answered(leaves, variants, stages, chosen, arrives, shares)
    return result


def describe(
    cascade: Cascade,
    runs: Mapping[str, FinishedRun],
    data: DatasetDir,
    test: Answered,
    flat: FinishedRun | None,
    resamples: int,
) -> dict[str, Any]:
    """What cascade.json says of the stages and the whole, from the answers to the test split."""
    names = data.class_names
    hard = figures.routed(test.leaves, test.chosen)
    content: dict[str, Any] = {
        "class_names": list(names),
        "data": {
            "path": os.path.abspath(data.path),
            "fingerprint": data.fingerprint,
            "counts": {split: list(counts) for split, counts in data.counts.items()},
            "left_out": cascade.left_out,
            "class_flags": cascade.flat_flags,
        },
        "stages": [
            {
                "name": stage.name,
                "folder": stage.folder,
                "answers": {answer: list(stage.answers[answer]) for answer in order},
                "backbone": runs[stage.name].config.backbone,
                "updates": runs[stage.name].updates,
                **figures.measure_stage(
                    cascade,
                    stage,
                    order,
                    test.stages[stage.name],
                    names,
                    test.arrives[stage.name],
                    test.chosen,
                ),
            }
            for stage in cascade.stages
            for order in [runs[stage.name].class_names]
        ],
        "product": figures.measure(test.leaves, names),
        "probabilities": figures.measure_probabilities(
            test.leaves, test.variants, names, resamples
        ),
        "assumed_shares": dict(zip(names, test.shares.tolist(), strict=True)),
        "routed": figures.measure(hard, names),
        "routed_difference": figures.compare(
            hard, test.leaves, names, resamples, figures.DECISIONS
        ),
        "flat": None,
    }
    if flat:
        theirs = flat.predictions("test")
        if theirs.ids != test.leaves.ids:
            raise UserError(f"--flat_run={flat.path}: its test images are not those of the cascade")
        content["flat"] = {
            "path": flat.path,
            "backbone": flat.config.backbone,
            "updates": flat.updates,
            "metrics": figures.measure(theirs, names),
            "difference": figures.compare(test.leaves, theirs, names, resamples),
        }
    return content


def _write_routes(path: str, test: Answered, names: Sequence[str]) -> None:
    """id, true class, class by the product, class by hard routing, and which stages it came to."""
    with files.replacing(path) as temporary, csv_rows.open_csv(temporary, "w") as file:
        writer = csv_rows.writer(file)
        arrives = [f"arrives_{name}" for name in test.arrives]
        writer.writerow(["id", "class", "product", "routed", *arrives])
        product = test.leaves.logits.argmax(axis=1)
        for row, identity in enumerate(test.leaves.ids):
            labels = (test.leaves.labels[row], product[row], test.chosen[row])
            here = [int(one[row]) for one in test.arrives.values()]
            writer.writerow([identity, *(names[label] for label in labels), *here])
