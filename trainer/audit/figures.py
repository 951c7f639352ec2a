"""Figures of each condition: intervals over groups of images, paired with the whole image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trainer.audit.conditions import WHOLE
from trainer.evaluation import bootstrap
from trainer.evaluation.inference import Inference, name_metrics, plain
from trainer.evaluation.metrics import weighted_metrics
from trainer.evaluation.predictions import Predictions

OVERALL = ("balanced_accuracy", "accuracy", "auroc_macro")


def chance_of(metric: str, classes: int) -> float | None:
    """What guessing reaches; None for the accuracy, where it depends on the class shares."""
    if metric == "accuracy":
        return None
    return 1 / classes if metric == "balanced_accuracy" else 0.5


def describe(
    predictions: Mapping[str, Predictions], class_names: Sequence[str], seed: int, resamples: int
) -> dict[str, dict[str, dict[str, Any]]]:
    """Args: predictions: by condition, of the same images, the whole image among them.

    Returns:
      Condition -> metric (of `OVERALL`, and `auroc/<class>`) -> estimate, low and high; chance;
      kept: (estimate - chance) / (estimate of the whole image - chance), None where the whole image
      is not above chance; difference: to the whole image, an interval of the same resamples.
    """
    names = list(predictions)
    whole = names.index(WHOLE)
    tested = predictions[WHOLE]
    weights = bootstrap.group_weights(tested.groups or tested.ids, resamples, 0)
    values = {
        name: weighted_metrics(one.labels, one.log_probabilities, weights, lines=False).flat(
            class_names
        )
        for name, one in predictions.items()
    }
    inference = Inference(tested, class_names, [[seed]] * len(names))
    result: dict[str, dict[str, dict[str, Any]]] = {name: {} for name in names}
    for metric in name_metrics(OVERALL, ("auroc",), class_names):
        study = inference.study(metric, [values[name][metric][None] for name in names])
        chance = chance_of(metric, len(class_names))
        full = inference.mean(metric, study.mean(whole)).estimate
        for number, name in enumerate(names):
            one = inference.mean(metric, study.mean(number))
            kept = None
            if chance is not None and full is not None and one.estimate is not None:
                kept = (one.estimate - chance) / (full - chance) if full > chance else None
            result[name][metric] = {
                **{key: plain(one)[key] for key in ("estimate", "low", "high")},
                "chance": chance,
                "kept": kept,
                "difference": plain(inference.difference(metric, study, number, whole)),
            }
    return result
