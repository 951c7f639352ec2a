"""Figures of a run, or of the mean of its seeds, on the internal test split and elsewhere.

Both sets of images have their own bootstrap over groups, and all runs see the same resamples, so
that `evaluation.crossed_seeds` holds: seeds are crossed with images, and the two sets of images are
independent.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.special import log_softmax

from trainer.comparison.subgroups.membership import SubgroupTable
from trainer.deployment.corrected_probabilities import VARIANTS, Deployment
from trainer.evaluation import bootstrap, calibration, shares
from trainer.evaluation.crossed_seeds import CrossedSeeds
from trainer.evaluation.inference import LEVEL, RARE_BELOW, Inference, name_metrics, plain
from trainer.evaluation.metrics import weighted_metrics
from trainer.evaluation.predictions import Predictions
from trainer.evaluation.prior_shift import estimate_shares, fit_bias_corrected, shares_apart
from trainer.runs import remote_run
from trainer.runs.finished_run import FinishedRun

PLACES = ("internal", "external")
OVERALL = ("accuracy", "balanced_accuracy", "macro_f1", "mcc", "auroc_macro")
BY_CLASS = ("recall", "precision", "auroc")
PROBABILITIES = ("accuracy", "balanced_accuracy", "log_loss", "brier", "ece")
LINES = ("calibration_intercept", "calibration_slope")
# Calibrated by a temperature and a bias of each class, see `prior_shift.fit_bias_corrected`; and,
# elsewhere only, these at the class shares of EM and at the true ones.
BIAS = "bias_corrected"
ESTIMATED, TRUE = "estimated_shares", "true_shares"


@dataclasses.dataclass(frozen=True)
class Answers:
    """A run and its answers on both sets of images.

    Attributes:
      predictions: of each of `PLACES`.
      theirs: int32 [n], the labels that the images elsewhere have in their own data set.
      plan: the correction of its probabilities.
      estimated: the class shares elsewhere by EM, float64 [classes]; converged: whether EM ended.
      internal_apart: how far EM is from the true shares on the internal test split.
      variants: place -> variant -> log-probabilities, float64 [n, classes].
    """

    run: FinishedRun
    predictions: Mapping[str, Predictions]
    theirs: np.ndarray
    plan: Deployment
    estimated: np.ndarray
    converged: bool
    internal_apart: float
    variants: Mapping[str, Mapping[str, np.ndarray]]

    @classmethod
    def make(
        cls,
        run: FinishedRun,
        plan: Deployment,
        internal: Predictions,
        external: Predictions,
        theirs: np.ndarray,
    ) -> Answers:
        """Internal and external are predictions on images of the same classes; for `theirs` see the
        attribute."""
        predictions = {"internal": internal, "external": external}
        variants = {
            place: dict(plan.variants(p.log_probabilities)) for place, p in predictions.items()
        }
        # EM takes miscalibration for other class shares, so it needs more than a temperature.
        validation = run.predictions("validation")
        scale, bias = fit_bias_corrected(validation.labels, validation.log_probabilities)
        for place, p in predictions.items():
            variants[place][BIAS] = log_softmax(scale * p.log_probabilities + bias, axis=1)
        em = {place: estimate_shares(variants[place][BIAS], plan.natural) for place in PLACES}
        # A share of 0 would call images impossible: at least half an image of each class.
        estimated = np.maximum(em["external"].shares, 0.5 / len(external.labels))
        estimated /= estimated.sum()
        for name, target in ((ESTIMATED, estimated), (TRUE, _true_shares(external))):
            variants["external"][name] = calibration.correct_priors(
                variants["external"][BIAS], plan.natural, target
            )
        apart = shares_apart(em["internal"].shares, _true_shares(internal))
        converged = em["external"].converged
        return cls(run, predictions, theirs, plan, estimated, converged, apart, variants)


def _true_shares(predictions: Predictions) -> np.ndarray:
    counts = np.bincount(predictions.labels, minlength=predictions.logits.shape[1])
    return counts / counts.sum()


class Places:
    """Both sets of images, with the resamples that all figures share.

    Args:
      answers: of runs that predicted the same images.
      resamples: of the bootstrap.
    """

    def __init__(self, answers: Sequence[Answers], resamples: int) -> None:
        self.answers = answers
        self.class_names = answers[0].run.class_names
        self.weights = {
            place: bootstrap.group_weights(_groups(answers[0].predictions[place]), resamples, seed)
            for seed, place in enumerate(PLACES)
        }
        # A class's calibration line takes most of the time, and only that of the calibrated
        # probabilities is shown.
        self.values = [
            {
                place: {
                    variant: weighted_metrics(
                        one.predictions[place].labels,
                        scores,
                        self.weights[place],
                        lines=variant == "calibrated",
                    ).flat(self.class_names)
                    for variant, scores in variants.items()
                }
                for place, variants in one.variants.items()
            }
            for one in answers
        ]

    def figures(self, rows: Sequence[int], table: SubgroupTable | None) -> dict[str, Any]:
        """What evaluation.json has of a run (`rows` has one number) or of the mean of several.

        Returns:
          runs, seeds, temperatures (of a cascade those of its stages) and temperature_warnings (of
          those at a bound, with the name of the stage); dataset: that of the first run; counts:
          place -> images of each class; groups: place -> how many; metrics: name -> internal,
          external and difference (external - internal); probabilities: variant -> metric ->
          internal (not of the last two) and external; lines: metric by class -> the same, of
          calibrated probabilities; confusion [true][predicted], mean over runs; rare_classes: of
          each place; shares: see `_shares`; subgroups, if there is a table.
        """
        chosen = [self.answers[row] for row in rows]
        values = [self.values[row] for row in rows]
        seeds = [one.run.config.seed for one in chosen]
        inference = {
            place: Inference(self.answers[0].predictions[place], self.class_names, [seeds])
            for place in PLACES
        }
        metrics = name_metrics(OVERALL, BY_CLASS, self.class_names)
        lines = name_metrics((), LINES, self.class_names)
        confusion = [_confusion(one.predictions["external"]) for one in chosen]
        result: dict[str, Any] = {
            "runs": [remote_run.address_of(one.run.path) for one in chosen],
            "seeds": seeds,
            "dataset": {
                name: chosen[0].run.dataset.get(name)
                for name in ("path", "fingerprint", "balanced_splits", "reading")
            },
            "counts": {
                place: np.bincount(p.labels, minlength=len(self.class_names)).tolist()
                for place, p in chosen[0].predictions.items()
            },
            "groups": {place: len(set(p.groups)) for place, p in chosen[0].predictions.items()},
            "temperatures": [t for one in chosen for t in one.plan.temperatures],
            "temperature_warnings": [
                warning for one in chosen for warning in one.plan.temperature_warnings()
            ],
            "metrics": {m: _compare(m, "raw", values, inference) for m in metrics},
            "probabilities": {
                variant: {m: _compare(m, variant, values, inference) for m in PROBABILITIES}
                for variant in (*VARIANTS, BIAS, ESTIMATED, TRUE)
            },
            "lines": {m: _compare(m, "calibrated", values, inference) for m in lines},
            "confusion": np.mean(confusion, axis=0).tolist(),
            "rare_classes": {
                place: [name for name, n in one.rare_classes().items() if n]
                for place, one in inference.items()
            },
            "shares": _shares(chosen),
        }
        if table is not None:
            result["subgroups"] = self._subgroups(chosen, seeds, table)
        return result

    def _subgroups(
        self, chosen: Sequence[Answers], seeds: Sequence[int], table: SubgroupTable
    ) -> dict[str, Any]:
        """Column -> value -> images, groups and, where there are enough groups, metrics."""
        ids = chosen[0].predictions["external"].ids
        names = table.find(ids)
        columns = {}
        for column in table.columns:
            values = np.array(table.values(column, names))
            columns[column] = {
                value: self._subgroup(chosen, seeds, values == value)
                for value in sorted(set(values.tolist()))
            }
        return {"file": table.path, "columns": columns}

    def _subgroup(
        self, chosen: Sequence[Answers], seeds: Sequence[int], member: np.ndarray
    ) -> dict[str, Any]:
        parts = [one.predictions["external"].subset(member) for one in chosen]
        held = np.bincount(parts[0].labels, minlength=len(self.class_names)) > 0
        result: dict[str, Any] = {
            "images": len(parts[0].labels),
            "groups": len(set(parts[0].groups)),
            "metrics": {},
        }
        if result["groups"] < RARE_BELOW:
            return result
        weights = self.weights["external"][:, member]
        arrays = [
            weighted_metrics(p.labels, p.log_probabilities, weights, lines=False).flat(
                self.class_names
            )
            for p in parts
        ]
        inference = Inference(parts[0], self.class_names, [seeds])
        for metric in name_metrics(("balanced_accuracy",), ("recall",), self.class_names):
            rows = np.stack([one[metric] for one in arrays])
            one = inference.mean(metric, inference.study(metric, [rows]).mean(0))
            result["metrics"][metric] = plain(one)
        everywhere = np.bincount(chosen[0].predictions["external"].labels, minlength=len(held)) > 0
        if (everywhere & ~held).any():  # a mean over fewer classes is another quantity
            del result["metrics"]["balanced_accuracy"]
        return result


def _groups(predictions: Predictions) -> list[str]:
    return predictions.groups or predictions.ids


def _confusion(predictions: Predictions) -> np.ndarray:
    classes = predictions.logits.shape[1]
    flat = predictions.labels * classes + predictions.logits.argmax(axis=1)
    return np.bincount(flat, minlength=classes**2).reshape(classes, classes)


def _compare(
    metric: str,
    variant: str,
    values: Sequence[Mapping[str, Mapping[str, Mapping[str, np.ndarray]]]],
    inference: Mapping[str, Inference],
) -> dict[str, Any]:
    """A metric in each place and, for variants of both, external - internal."""
    rows = {
        place: np.stack([one[place][variant][metric] for one in values])
        for place in PLACES
        if variant in values[0][place]
    }
    means = {
        place: inference[place].mean(metric, inference[place].study(metric, [of]).mean(0))
        for place, of in rows.items()
    }
    result = {place: plain(one) for place, one in means.items()}
    if len(means) < len(PLACES):
        return result
    here, there = (means[place] for place in PLACES)
    groups = min(one.groups_of(metric) for one in inference.values())
    seeds = [range(len(values))] * 2
    study = CrossedSeeds([rows["external"], rows["internal"]], seeds, groups)
    difference = study.difference(0, 1).interval(LEVEL)
    if len(values) == 1:
        low, high = shares.square_and_add(there, here)
        difference = dataclasses.replace(
            difference, low=low, high=high, p_value=None, standard_error=None, df=None
        )
    return {**result, "difference": plain(difference)}


def _shares(chosen: Sequence[Answers]) -> dict[str, Any]:
    """Class shares, in label order: of training, true and estimated elsewhere (mean over runs);
    `apart`: how far the first and the last are from the true ones, see `shares_apart`, and EM on
    the internal test split from those there."""
    true = _true_shares(chosen[0].predictions["external"])
    rows = {
        "training": np.mean([one.plan.natural for one in chosen], axis=0),
        "estimated": np.mean([one.estimated for one in chosen], axis=0),
    }
    return {
        "true": true.tolist(),
        **{name: row.tolist() for name, row in rows.items()},
        "apart": {
            **{name: shares_apart(row, true) for name, row in rows.items()},
            "internal": float(np.mean([one.internal_apart for one in chosen])),
        },
        "converged": all(one.converged for one in chosen),
    }
