"""A cascade in the place of a model: trainer.predict's answers are then over its leaves."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence

import numpy as np

from cxr_tfrecords.pages.class_lists import few
from trainer.cascades import description, leaf_answers
from trainer.cascades.description import Cascade
from trainer.deployment.corrected_probabilities import Deployment, parse_deploy_prior
from trainer.deployment.predictor import Answers, Classifier, choose_thresholds
from trainer.evaluation import conformal
from trainer.evaluation.metrics import log_odds
from trainer.evaluation.predictions import Predictions, read_predictions
from trainer.runs import run_files


class CascadeClassifier(Classifier):
    """The models of all stages, whose probabilities are multiplied. Images unlike the training
    images are found by the detector of the first stage, which has seen images of all classes.

    Args:
      folder: of a finished cascade.
      deploy_prior: share of each leaf where it is used, in the order of its predictions; None:
        those of the training split.
      The others as in `Classifier.load`.

    Raises:
      UserError: a file is missing or damaged, or a stage's model was not kept.
    """

    def __init__(
        self,
        folder: str,
        deploy_prior: Sequence[float] | None,
        sensitivity: float,
        coverage: float,
        ood_method: str,
        false_alarms: float,
    ) -> None:
        self.cascade, self.class_names = description.read(folder)
        self.path = folder
        self.stages: dict[str, Classifier] = {}
        for stage in self.cascade.stages:
            path = os.path.join(folder, stage.folder)
            names = tuple(stage.answers)
            self.stages[stage.name] = Classifier.load(
                path,
                deploy_prior=_stage_prior(self.cascade, self.class_names, names, deploy_prior),
                ood_method="none" if self.stages else ood_method,
                false_alarms=false_alarms,
            )
        first = next(iter(self.stages.values()))
        self.reading, self.detector, self.model = first.reading, first.detector, first.model
        self.batch_size, self.decoders = first.batch_size, first.decoders
        validation = read_predictions(run_files.predictions_path(folder, "validation"))
        self.thresholds = choose_thresholds(validation, sensitivity)
        self.set_thresholds = conformal.choose_thresholds(
            validation.labels, validation.probabilities, coverage, validation.groups
        )
        plans = {name: one.deployment for name, one in self.stages.items()}
        order = {name: one.class_names for name, one in self.stages.items()}

        def shares(kind: str) -> np.ndarray:
            with np.errstate(divide="ignore"):  # a share of 0
                rows = {n: np.log(getattr(plan, kind))[np.newaxis] for n, plan in plans.items()}
            return np.exp(leaf_answers.multiply(self.cascade, self.class_names, rows, order)[0])

        # Each stage has its own temperature, so that there is none of the whole.
        self.deployment = Deployment(shares("trained_at"), shares("natural"), shares("target"), 1.0)

    @property
    def model_hash(self) -> str:
        """SHA-256 of the hashes of all stages' models."""
        text = "".join(one.model_hash for one in self.stages.values())
        return hashlib.sha256(text.encode()).hexdigest()

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


def load_cascades(
    paths: Sequence[str], *, deploy_prior: Sequence[str], **settings
) -> list[Classifier]:
    """The cascade of a folder, as `several_models.load_models` gives models."""
    (path,) = paths
    prior = parse_deploy_prior(deploy_prior, description.read(path)[1])
    one = CascadeClassifier(path, prior, **settings)
    print(f"cascade {path}: {few(one.class_names)}", flush=True)
    return [one]


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
