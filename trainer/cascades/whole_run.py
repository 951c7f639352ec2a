"""A cascade where a finished run is evaluated: its classes are the leaves."""

from __future__ import annotations

import dataclasses
import os

import numpy as np

from trainer.cascades import description, leaf_answers
from trainer.cascades.description import Cascade
from trainer.cascades.staged_deployment import StagedDeployment
from trainer.deployment.corrected_probabilities import plan_deployment
from trainer.evaluation.predictions import Predictions
from trainer.external.figures import Answers
from trainer.external.other_data import OtherData
from trainer.runs.finished_run import FinishedRun, read_kept_run


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
    content = description.read_content(folder)
    cascade, leaves = description.interpret(content, folder)
    stages = {
        stage.name: read_kept_run(os.path.join(folder, stage.folder), "model")
        for stage in cascade.stages
    }
    first = stages[cascade.stages[0].name]
    data = {name: content["data"][name] for name in ("fingerprint", "counts")}
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
    answers = {name: stage.class_names for name, stage in stages.items()}
    plans = {name: plan_deployment(stage) for name, stage in stages.items()}
    return WholeRun(run, stages, StagedDeployment.of(cascade, leaves, answers, plans), cascade)
