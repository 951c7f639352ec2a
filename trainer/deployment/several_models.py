"""Several models that answer together, as --model=RUN1,RUN2 asks for; one model is a case of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from cxr_tfrecords.errors import UserError
from cxr_tfrecords.pages.class_lists import few
from trainer.deployment.answers import Answers
from trainer.deployment.corrected_probabilities import VARIANTS, parse_deploy_prior
from trainer.deployment.predictor import Classifier


@dataclasses.dataclass(frozen=True)
class Combined:
    """What one or several models say of n images.

    Attributes:
      classes: integer [n], the class of the largest logit; of several models, of the largest mean
        raw probability.
      probabilities: each of `VARIANTS`, the mean over the models, float64 [n, classes].
      above_threshold, in_set: bool [n, classes], what more than half of the models say.
      disagreement: float64 [n], the largest standard deviation between the models of a class's
        calibrated probability; 0 of one model.
      out_of_distribution: bool [n], what more than half of the models say; None if one of them does
        not check images.
    """

    classes: np.ndarray
    probabilities: dict[str, np.ndarray]
    above_threshold: np.ndarray
    in_set: np.ndarray
    disagreement: np.ndarray
    out_of_distribution: np.ndarray | None


def combine(answers: Sequence[Answers]) -> Combined:
    """Unites the answers of models to the same images."""
    means = {v: np.mean([one.probabilities[v] for one in answers], axis=0) for v in VARIANTS}
    calibrated = [one.probabilities["calibrated"] for one in answers]
    scores = answers[0].logits if len(answers) == 1 else means["raw"]
    flags = [one.out_of_distribution for one in answers if one.out_of_distribution is not None]
    return Combined(
        classes=scores.argmax(axis=1),
        probabilities=means,
        above_threshold=np.mean([one.above_threshold for one in answers], axis=0) > 0.5,
        in_set=np.mean([one.in_set for one in answers], axis=0) > 0.5,
        disagreement=np.std(calibrated, axis=0).max(axis=1),
        out_of_distribution=np.mean(flags, axis=0) > 0.5 if len(flags) == len(answers) else None,
    )


def load_models(
    paths: Sequence[str],
    *,
    deploy_prior: Sequence[str],
    sensitivity: float,
    coverage: float,
    ood_method: str,
    false_alarms: float,
) -> list[Classifier]:
    """Loads models that read images in one way; prints a line for each.

    Args:
      deploy_prior: `CLASS=share` items; none: the natural shares.
      sensitivity, coverage, ood_method, false_alarms: see `Classifier.load`.

    Raises:
      UserError: a model cannot be used, has other classes or another reading than the first, or is
        one of the others again, so that their agreement would tell nothing.
    """
    classifiers: list[Classifier] = []
    for path in paths:
        prior = None
        if deploy_prior or classifiers:  # only then is a run read twice, which may lie in a store
            names = Classifier.kind_of(path).names_in(path)
            # Told before it is loaded, which may take minutes.
            if classifiers and names != classifiers[0].class_names:
                raise _unlike(path, classifiers[0])
            prior = parse_deploy_prior(deploy_prior, names) if deploy_prior else None
        one = Classifier.load(
            path,
            deploy_prior=prior,
            sensitivity=sensitivity,
            coverage=coverage,
            ood_method=ood_method,
            false_alarms=false_alarms,
        )
        if classifiers and one.reading != classifiers[0].reading:
            raise _unlike(path, classifiers[0])
        twin = next((other for other in classifiers if other.model_hash == one.model_hash), None)
        if twin:
            raise UserError(f"--model: {path} is the same model as {twin.path}: name it once")
        print(
            f"model {path}: {few(one.class_names)}; {one.reading.image_size} px, "
            f"{'gray' if one.reading.channels == 1 else 'RGB'}",
            flush=True,
        )
        classifiers.append(one)
    return classifiers


def _unlike(path: str, first: Classifier) -> UserError:
    return UserError(
        f"--model: {path} has other classes, or reads images in another way, than {first.path}: "
        "give models that were trained on the same data set"
    )


def why_no_heat_maps(classifiers: Sequence[Classifier]) -> str:
    """As `Classifier.no_heat_maps`, of the first that has none: all of them are needed."""
    return next((one.no_heat_maps for one in classifiers if one.no_heat_maps), "")
