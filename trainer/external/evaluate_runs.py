"""Evaluates finished runs on another data set and writes the results into a new folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from cxr_tfrecords import files
from cxr_tfrecords.checks import seal
from cxr_tfrecords.concurrency import temporary
from cxr_tfrecords.decoding import rules
from cxr_tfrecords.errors import UserError
from trainer.comparison.study_progress import announced
from trainer.comparison.subgroups.membership import SubgroupTable
from trainer.deployment.corrected_probabilities import Deployment, plan_deployment
from trainer.evaluation.predictions import Predictions, write_predictions
from trainer.external.figures import Answers, Places
from trainer.external.other_data import OtherData
from trainer.external.other_names import answer_shares
from trainer.external.page import render, render_markdown
from trainer.external.predict_other import predict_other
from trainer.runs.finished_run import FinishedRun
from trainer.runs.run_data import is_data_of, pixel_rules


def evaluate_runs(
    runs: Sequence[FinishedRun],
    other: OtherData,
    output_dir: str,
    *,
    table: SubgroupTable | None = None,
    resamples: int = 500,
    answer: Callable[[FinishedRun, OtherData], Answers] | None = None,
) -> dict[str, Any]:
    """Writes evaluation.html, evaluation.md, evaluation.json and the predictions of each run.

    Args:
      runs: that `open_other` opened the data set for.
      output_dir: new or empty; nothing is left in it if anything fails.
      answer: what answers for a run, if not its model alone.

    Returns:
      The content of evaluation.json, without its digest.

    Raises:
      UserError: a model was not kept, a shard is damaged, or the subgroup table does not fit.
    """
    answers = []
    for run in runs:
        print(f"{run.path} on {other.data.path}", flush=True)
        answers.append((answer or answer_alone)(run, other))
    with announced(f"computing intervals from {resamples:,} resamples"):
        content = describe(answers, other, table, resamples)
    with temporary.replacing_folder(output_dir) as folder:
        for name, one in zip(prediction_files(runs), answers, strict=True):
            path = os.path.join(folder, name)
            write_predictions(path, one.predictions["external"], one.run.class_names)
        files.write_json(
            os.path.join(folder, "evaluation.json"),
            seal.sealed(content),
            sort_keys=False,
            allow_nan=False,
        )
        files.write_text(os.path.join(folder, "evaluation.md"), render_markdown(content))
        files.write_text(os.path.join(folder, "evaluation.html"), render(content, answers))
    return content


def prediction_files(runs: Sequence[FinishedRun]) -> list[str]:
    """predictions.csv of one run; predictions_1.csv, predictions_2.csv, … of several."""
    if len(runs) == 1:
        return ["predictions.csv"]
    return [f"predictions_{number}.csv" for number in range(1, len(runs) + 1)]


def answer_alone(run: FinishedRun, other: OtherData) -> Answers:
    """What a run's model answers."""
    return make_answers(run, *predict_other(run, other))


def make_answers(
    run: FinishedRun, external: Predictions, theirs: np.ndarray, plan: Deployment | None = None
) -> Answers:
    """Both predictions, the internal ones of the classes that are there, so that means over classes
    are over the same ones.

    Args:
      plan: the correction of its probabilities; None: `plan_deployment`.
    """
    internal = run.predictions("test")
    classes = len(run.class_names)
    held = np.bincount(external.labels, minlength=classes) > 0
    if (held & (np.bincount(internal.labels, minlength=classes) == 0)).any():
        raise UserError(
            f"{run.path}: its test split has no image of a class that the other data set has: "
            "leave that class out with --map_classes"
        )
    internal = internal.subset(held[internal.labels])
    return Answers.make(run, plan or plan_deployment(run), internal, external, theirs)


def describe(
    answers: Sequence[Answers], other: OtherData, table: SubgroupTable | None, resamples: int
) -> dict[str, Any]:
    """The content of evaluation.json: the data, the figures of each run and, of runs that differ
    in their seeds alone, of their mean (see `figures.Places.figures` and
    `other_names.answer_shares`)."""
    names = answers[0].run.class_names
    pooled = differ_by_seed([one.run for one in answers])
    # Other runs may have other internal test images.
    parts = [answers] if pooled else [[one] for one in answers]
    places = [Places(part, resamples) for part in parts]

    def figures(place: Places, rows: Sequence[int]) -> dict[str, Any]:
        chosen = [place.answers[row] for row in rows]
        shares = answer_shares(chosen, place.weights["external"], other)
        return place.figures(rows, table) | {"other_names": shares}

    return {
        "class_names": list(names),
        "data": {
            "path": os.path.abspath(other.data.path),
            "fingerprint": other.data.fingerprint,
            "split": other.split,
            "classes": other.class_pairs(names),
            "left_out": other.left_out,
            "copies": len(other.copies),
            "copies_unchecked": other.unchecked,
            "encoding": other.data.encoding,
            "is_of_training": any(is_data_of(one.run, other.data.path) for one in answers),
            "changed_rules": rules.changes_between(
                pixel_rules(answers[0].run) or other.data.pixel_rules, other.data.pixel_rules
            ),
        },
        "resamples": resamples,
        "runs": [figures(p, [row]) for p in places for row in range(len(p.answers))],
        "mean": figures(places[0], range(len(answers))) if pooled else None,
    }


def differ_by_seed(runs: Sequence[FinishedRun]) -> bool:
    """Whether there are several runs of one method, data set and split, each with its own seed."""
    first = runs[0]
    seeds = {run.config.seed for run in runs}
    if len(runs) < 2 or len(seeds) < len(runs):
        return False
    return all(
        run.dataset["fingerprint"] == first.dataset["fingerprint"]
        and _method(run) == _method(first)
        and all(
            text.startswith("--seed:") for text in first.config.differences(run.config.to_json())
        )
        for run in runs[1:]
    )


def _method(run: FinishedRun) -> str | None:
    return run.decoupled["method"] if run.decoupled else None
