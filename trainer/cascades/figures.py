"""What is measured of a cascade on the test split: each stage, and the whole from end to end."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from trainer.cascades.description import Cascade, Stage
from trainer.cascades.leaf_answers import as_logits
from trainer.evaluation import bootstrap
from trainer.evaluation.inference import Inference, name_metrics, plain
from trainer.evaluation.metrics import weighted_metrics
from trainer.evaluation.predictions import Predictions
from trainer.evaluation.shares import grouped_share
from trainer.runs.report_intervals import prediction_intervals

COMPARED = ("accuracy", "balanced_accuracy", "auroc_macro", "log_loss")
PROBABILITIES = ("accuracy", "balanced_accuracy", "auroc_macro", "log_loss", "brier", "ece")
# Of the answers of hard routing, which have no probabilities.
DECISIONS = ("accuracy", "balanced_accuracy")


def measure(predictions: Predictions, names: Sequence[str]) -> dict[str, Any]:
    """Metric -> estimate with interval over groups of images, as in a run's report; `images`; the
    confusion matrix, rows are true classes. Without images nothing but `images`."""
    if not len(predictions.labels):
        return {"images": 0}
    intervals, rare = prediction_intervals(predictions, names)
    flat = predictions.labels * len(names) + predictions.logits.argmax(axis=1)
    counts = np.bincount(flat, minlength=len(names) ** 2).reshape(len(names), len(names))
    return {
        "images": len(predictions.labels),
        "rare_classes": list(rare),
        "confusion_matrix": counts.tolist(),
        **{metric: plain(one) for metric, one in intervals.items()},
    }


def measure_stage(
    cascade: Cascade,
    stage: Stage,
    answers: Sequence[str],
    answered: Predictions,
    leaves: Sequence[str],
    arrives: np.ndarray,
    chosen: np.ndarray,
) -> dict[str, Any]:
    """A stage on the images that truly belong to it, and on those that arrive there.

    Args:
      answers: in the order of its logits.
      answered: its answers to all images, with the labels of the leaves.
      arrives: bool [n], whether hard routing sends an image here.
      chosen: int32 [n], the leaf that hard routing gives an image.

    Returns:
      belonging: `measure` of the images that belong; arriving: of those of them that arrive, since
      the others have no right answer here; arrived: all images that arrive; reach: share of the
      belonging ones that arrive; pure: share of the arriving ones that belong; right: share of the
      arriving ones whose leaf is right in the end.
    """
    below = {answer: set(cascade.leaves_below(answer)) for answer in answers}
    label_of = np.array(
        [next((c for c, a in enumerate(answers) if leaf in below[a]), -1) for leaf in leaves],
        np.int32,
    )
    own = dataclasses.replace(answered, labels=label_of[answered.labels])
    belongs = own.labels >= 0
    groups = np.asarray(answered.groups or answered.ids)
    shares = {
        "reach": (arrives, belongs),
        "pure": (belongs, arrives),
        "right": (chosen == answered.labels, arrives),
    }
    return {
        "belonging": measure(own.subset(belongs), answers),
        "arriving": measure(own.subset(belongs & arrives), answers),
        "arrived": int(arrives.sum()),
        **{
            name: plain(grouped_share(hits[among], groups[among]))
            for name, (hits, among) in shares.items()
        },
    }


def measure_probabilities(
    truth: Predictions, variants: Mapping[str, np.ndarray], names: Sequence[str], resamples: int
) -> dict[str, dict[str, Any]]:
    """Variant -> metric -> estimate with interval, of log-probabilities, float64 [n, classes]."""
    weights = bootstrap.group_weights(truth.groups or truth.ids, resamples, seed=0)
    inference = Inference(truth, names, [(0,)])
    result = {}
    for variant, values in variants.items():
        flat = weighted_metrics(truth.labels, values, weights, lines=False).flat(names)
        result[variant] = {
            m: plain(inference.mean(m, inference.study(m, [flat[m][np.newaxis]]).mean(0)))
            for m in PROBABILITIES
        }
    return result


def compare(
    ours: Predictions,
    theirs: Predictions,
    names: Sequence[str],
    resamples: int,
    overall: Sequence[str] = COMPARED,
) -> dict[str, Any]:
    """Metric -> ours - theirs with its interval; both are on the same images, and are resampled
    together, so that the difficulty of an image cancels."""
    weights = bootstrap.group_weights(ours.groups or ours.ids, resamples, seed=0)
    both = [
        weighted_metrics(p.labels, p.log_probabilities, weights, lines=False).flat(names)
        for p in (ours, theirs)
    ]
    inference = Inference(ours, names, [(0,), (0,)])
    result = {}
    for metric in name_metrics(overall, ("recall",), names):
        study = inference.study(metric, [one[metric][np.newaxis] for one in both])
        result[metric] = plain(inference.difference(metric, study, 0, 1))
    return result


def routed(truth: Predictions, chosen: np.ndarray) -> Predictions:
    """The decisions of hard routing as predictions."""
    return dataclasses.replace(truth, logits=as_logits(chosen, truth.logits.shape[1]))
