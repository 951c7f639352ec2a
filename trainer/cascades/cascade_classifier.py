"""A cascade in the place of a model: its answers are over the leaves.

Where this module is imported, `Classifier.load` loads the folder of a cascade too.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence

import numpy as np

from trainer.cascades import description, leaf_answers
from trainer.cascades.description import Cascade
from trainer.cascades.staged_deployment import StagedDeployment
from trainer.deployment.answers import Answers
from trainer.deployment.predictor import Classifier, Settings
from trainer.deployment.thresholds import choose_both
from trainer.evaluation import conformal
from trainer.evaluation.metrics import log_odds
from trainer.evaluation.predictions import Predictions, read_predictions
from trainer.runs import run_files


class CascadeClassifier(Classifier):
    """The models of all stages, whose probabilities are multiplied. Images unlike the training
    images are found by the detector of the first stage, which has seen images of all classes.

    Args:
      folder: of a finished cascade.
      settings: `deploy_prior` has a share for each leaf, in the order of its predictions.

    Raises:
      UserError: a file is missing or damaged, or a stage's model was not kept.
    """

    def __init__(self, folder: str, settings: Settings) -> None:
        content = description.read_content(folder)
        self.cascade, leaves = description.interpret(content, folder)
        self.stages: dict[str, Classifier] = {}
        for stage in self.cascade.stages:
            prior = _stage_prior(self.cascade, leaves, tuple(stage.answers), settings.deploy_prior)
            self.stages[stage.name] = Classifier.load(
                os.path.join(folder, stage.folder),
                deploy_prior=prior,
                ood_method="none" if self.stages else settings.ood_method,
                false_alarms=settings.false_alarms,
            )
        first = next(iter(self.stages.values()))
        path = run_files.predictions_path(folder, "validation")
        validation = read_predictions(path, content["data"]["counts"]["validation"])
        thresholds, set_thresholds = choose_both(
            validation, settings.sensitivity, settings.coverage
        )
        plans = {name: one.deployment for name, one in self.stages.items()}
        order = {name: one.class_names for name, one in self.stages.items()}
        super().__init__(
            folder,
            leaves,
            deployment=StagedDeployment.of(self.cascade, leaves, order, plans),
            thresholds=thresholds,
            set_thresholds=set_thresholds,
            reading=first.reading,
            batch_size=first.batch_size,
            model=None,
        )
        self.detector = first.detector

    @classmethod
    def is_in(cls, path: str) -> bool:
        return description.is_cascade(path)

    @classmethod
    def names_in(cls, path: str) -> tuple[str, ...]:
        return description.read(path)[1]

    @classmethod
    def open(cls, path: str, settings: Settings) -> CascadeClassifier:
        return cls(path, settings)

    @property
    def model_hash(self) -> str:
        """SHA-256 of the hashes of all stages' models."""
        text = "".join(one.model_hash for one in self.stages.values())
        return hashlib.sha256(text.encode()).hexdigest()

    def heat_maps(self, pixels: np.ndarray, labels: Sequence[int]) -> np.ndarray:
        """As `Classifier.heat_maps`, each of the last stage that leads to the leaf: there it is
        told from the answers most like it."""
        rows = []
        for row, label in enumerate(labels):
            stage, answer = self.cascade.path(self.class_names[label])[-1]
            one = self.stages[stage.name]
            place = one.class_names.index(answer)
            rows.append(one.heat_maps(pixels[row : row + 1], [place])[0])
        return np.stack(rows)

    def predict_pixels(self, pixels: np.ndarray, batch_size: int | None = None) -> Answers:
        """As `Classifier.predict_pixels`, with the leaves as classes; a logit is the logarithm of a
        product of raw probabilities."""
        answers = {n: one.predict_pixels(pixels, batch_size) for n, one in self.stages.items()}
        variants = leaf_answers.leaf_variants(
            self.cascade,
            self.class_names,
            {name: _predictions(one.logits).log_probabilities for name, one in answers.items()},
            {name: one.class_names for name, one in answers.items()},
            {name: one.deployment for name, one in self.stages.items()},
        )
        given = _predictions(variants["raw"].astype(np.float32))
        first = next(iter(answers.values()))
        return Answers(
            class_names=self.class_names,
            logits=given.logits,
            probabilities={name: np.exp(values) for name, values in variants.items()},
            above_threshold=log_odds(given.log_probabilities) >= self.thresholds,
            in_set=conformal.prediction_sets(given.probabilities, self.set_thresholds),
            out_of_distribution=first.out_of_distribution,
            out_of_distribution_score=first.out_of_distribution_score,
        )


def _predictions(logits: np.ndarray) -> Predictions:
    return Predictions([""] * len(logits), np.zeros(len(logits), np.int32), logits)


def _stage_prior(
    cascade: Cascade,
    leaves: Sequence[str],
    answers: Sequence[str],
    deploy_prior: Sequence[float] | None,
) -> list[float] | None:
    """The share of each answer where the cascade is used: the sum over its leaves. None: those of
    training, also for a stage that no image should come to."""
    if deploy_prior is None:
        return None
    share = dict(zip(leaves, deploy_prior, strict=True))
    sums = [sum(share[leaf] for leaf in cascade.leaves_below(answer)) for answer in answers]
    return sums if sum(sums) else None
