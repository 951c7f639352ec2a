"""A cascade where a finished run is evaluated: its classes are the leaves."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.special import logsumexp

from cxr_tfrecords import files
from cxr_tfrecords.errors import UserError
from trainer.cascades import description, leaf_answers
from trainer.cascades.description import Cascade
from trainer.deployment.corrected_probabilities import Deployment, plan_deployment
from trainer.evaluation.predictions import Predictions
from trainer.external.figures import Answers
from trainer.external.other_data import OtherData
from trainer.runs import run_files
from trainer.runs.finished_run import FinishedRun, read_kept_run


@dataclasses.dataclass(frozen=True)
class StagedDeployment(Deployment):
    """The correction of a cascade's probabilities: each stage is corrected by its own plan, and the
    results are multiplied, as trainer.predict does. So there is no temperature of the whole.

    Attributes:
      leaves: in the order of the probabilities.
      answers: stage -> the order of its answers; plans: stage -> its correction.
    """

    cascade: Cascade
    leaves: Sequence[str]
    answers: Mapping[str, Sequence[str]]
    plans: Mapping[str, Deployment]

    @classmethod
    def of(
        cls, cascade: Cascade, leaves: Sequence[str], runs: Mapping[str, FinishedRun]
    ) -> StagedDeployment:
        """Of the runs of the stages, for the class shares of the training split."""
        plans = {name: plan_deployment(run) for name, run in runs.items()}
        answers = {name: run.class_names for name, run in runs.items()}
        trained_at, natural, target = (
            leaf_answers.leaf_shares(cascade, leaves, answers, plans, kind)
            for kind in ("trained_at", "natural", "target")
        )
        return cls(trained_at, natural, target, 1.0, cascade, tuple(leaves), answers, plans)

    def variants(self, log_probabilities: np.ndarray) -> dict[str, np.ndarray]:
        """Each of `VARIANTS` of log-probabilities of the leaves, all float64 [n, leaves]."""
        by_stage = split(self.cascade, self.leaves, log_probabilities, self.answers)
        corrected = leaf_answers.leaf_variants(
            self.cascade, self.leaves, by_stage, self.answers, self.plans
        )
        return {**corrected, "raw": log_probabilities}  # unchanged to the last bit


def split(
    cascade: Cascade,
    leaves: Sequence[str],
    log_probabilities: np.ndarray,
    answers: Mapping[str, Sequence[str]],
) -> dict[str, np.ndarray]:
    """What the stages said, from their product: the reverse of `leaf_answers.multiply`.

    Args:
      log_probabilities: float64 [n, leaves]; answers: stage -> their order.

    Returns:
      Stage -> float64 [n, answers]; rows sum to 1 as probabilities.
    """
    result = {}
    for stage in cascade.stages:
        sums = [
            logsumexp(
                log_probabilities[:, [leaves.index(leaf) for leaf in cascade.leaves_below(answer)]],
                axis=1,
            )
            for answer in answers[stage.name]
        ]
        columns = np.stack(sums, axis=1)
        result[stage.name] = columns - logsumexp(columns, axis=1, keepdims=True)
    return result


@dataclasses.dataclass(frozen=True)
class WholeRun:
    """A finished cascade.

    Attributes:
      run: as if one model decided among the leaves; its path is the cascade's folder.
      stages: stage -> its run.
      plan: the correction of the probabilities.
    """

    run: FinishedRun
    stages: dict[str, FinishedRun]
    plan: StagedDeployment
    cascade: Cascade

    def answer(self, run: FinishedRun, other: OtherData) -> Answers:
        """As `evaluate_runs.answer_alone`, of `self.run`."""
        from trainer.external.evaluate_runs import make_answers

        return make_answers(run, *self._predict(other), self.plan)

    def _predict(self, other: OtherData) -> tuple[Predictions, np.ndarray]:
        """As `predict_other`, with the leaves as classes."""
        # Imported here, because it loads TensorFlow.
        from trainer.external.predict_other import predict_other

        answers, theirs = {}, np.zeros(0, np.int32)
        for name, run in self.stages.items():
            shown = dataclasses.replace(other, data=other.data.showing(run.config.mask))
            answers[name], theirs = predict_other(run, shown)
        logits = leaf_answers.multiply(
            self.cascade,
            self.run.class_names,
            {name: one.log_probabilities for name, one in answers.items()},
            {name: run.class_names for name, run in self.stages.items()},
        )
        first = next(iter(answers.values()))
        return dataclasses.replace(first, logits=logits.astype(np.float32)), theirs


def read_whole(folder: str) -> WholeRun:
    """Reads the folder of a finished cascade.

    Raises:
      UserError: a file is missing or damaged, or a stage's model was not kept.
    """
    cascade, leaves = description.read(folder)
    stages = {
        stage.name: read_kept_run(os.path.join(folder, stage.folder), "model")
        for stage in cascade.stages
    }
    first = stages[cascade.stages[0].name]
    path = os.path.join(folder, run_files.CASCADE)
    content = files.read_named_json(path, f"is {folder} the folder of a finished cascade?")
    try:
        data = {name: content["data"][name] for name in ("fingerprint", "counts")}
        held = {split: len(data["counts"][split]) for split in run_files.SPLITS}
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{path} is not the file of a cascade ({error}): run trainer.cascade again"
        ) from error
    if set(held.values()) != {len(leaves)}:
        raise UserError(f"{path} has other counts than classes: run trainer.cascade again")
    classes, class_map = cascade.class_flags(cascade.leaves)
    run = dataclasses.replace(
        first,
        path=folder,
        config=dataclasses.replace(
            first.config, run_dir=folder, classes=classes, map_classes=tuple(class_map)
        ),
        dataset={**first.dataset, **data, "class_names": list(leaves)},
        metrics={},
        samples={},
        audit=None,
    )
    return WholeRun(run, stages, StagedDeployment.of(cascade, leaves, stages), cascade)
