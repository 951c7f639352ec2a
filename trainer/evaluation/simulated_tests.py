"""Intervals and tests on simulated test sets, whose true metrics are known.

`python -m trainer.statistics_check` prints what is measured here. Each repetition draws a small
clustered test set from a simulated world, computes intervals and tests as for real runs, and asks
whether the interval contains the world's true value (coverage) and whether a test calls two equal
methods different (level).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
from scipy.special import log_softmax

from cxr_tfrecords.pages.markdown import markdown_table
from trainer.evaluation.bootstrap import Interval, group_weights
from trainer.evaluation.crossed_seeds import CrossedSeeds
from trainer.evaluation.inference import Inference
from trainer.evaluation.metrics import weighted_metrics
from trainer.evaluation.paired_tests import delong, mcnemar
from trainer.evaluation.predictions import Predictions
from trainer.evaluation.shares import grouped_share, wilson

_CLASSES = ("a", "b", "c", "rare")
_PREVALENCE = (0.17, 0.28, 0.48, 0.07)
_GROUPS = 200  # in a test set
RESAMPLES = 500
TRUTH_GROUPS = 60_000  # enough that chance hardly changes a metric
_METRICS = ("accuracy", "balanced_accuracy", "macro_f1", "mcc", "auroc_macro", "log_loss", "brier")


@dataclasses.dataclass(frozen=True)
class Check:
    """A share that was measured over the repetitions.

    Attributes:
      name: what was measured.
      expected: the nominal share.
      hits: how many of the `repetitions` had this outcome.
    """

    name: str
    expected: float
    hits: int
    repetitions: int

    @property
    def share(self) -> float:
        return self.hits / self.repetitions

    @property
    def error(self) -> float:
        """Standard error of the share, if the nominal share is the true one."""
        return float(np.sqrt(self.expected * (1 - self.expected) / self.repetitions))


@dataclasses.dataclass(frozen=True)
class World:
    """The distribution that test sets are drawn from.

    Attributes:
      largest_group: a group has 1 to this many images, which share their label, a difficulty for
        all models and another for each model.
      strengths: for each model, how far its logit of the true class is above the others on average.
    """

    largest_group: int
    strengths: Sequence[float]

    def draw(
        self, generator: np.random.Generator, groups: int
    ) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
        """Draws groups and labels [n], and log-probabilities [n, classes] of each model."""
        sizes = generator.integers(1, self.largest_group + 1, groups)
        member = np.repeat(np.arange(groups), sizes)
        labels = generator.choice(len(_PREVALENCE), groups, p=_PREVALENCE)[member]
        easy = generator.normal(0, 1, groups)[member]
        truth = np.eye(len(_PREVALENCE))[labels]
        shared = generator.normal(0, 0.7, truth.shape) + easy[:, np.newaxis] * truth
        models = []
        for strength in self.strengths:
            above = strength + generator.normal(0, 0.7, groups)[member]
            logits = shared + above[:, np.newaxis] * truth + generator.normal(0, 0.7, truth.shape)
            models.append(log_softmax(logits, axis=1))
        return member, labels, models

    def truth(self) -> list[dict[str, float]]:
        """Metrics of each model on enough groups that chance hardly matters."""
        generator = np.random.default_rng(10**6)
        _, labels, models = self.draw(generator, TRUTH_GROUPS)
        once = np.ones((1, len(labels)), np.int32)
        values = [_flat(labels, model, once, first=True) for model in models]
        return [{name: float(value[0]) for name, value in flat.items()} for flat in values]


def check_intervals(repetitions: int, seed: int = 0) -> list[Check]:
    """Coverage of the intervals of one model, and of a true difference of two."""
    world = World(3, (1.5, 1.8))
    truth = world.truth()
    hits: dict[str, int] = {}
    for generator in _generators(repetitions, seed):
        groups, labels, models = world.draw(generator, _GROUPS)
        weights = group_weights(groups, RESAMPLES, seed)
        a = _flat(labels, models[0], weights, first=True)
        b = _flat(labels, models[1], weights)
        inference = _inference(groups, labels, models=2)
        right = models[0].argmax(axis=1) == labels
        naive = wilson(int(right.sum()), len(right))
        _count(hits, "accuracy, images taken as independent (wrong)", naive, truth[0]["accuracy"])
        whole = grouped_share(right, groups)
        _count(hits, "accuracy, score interval over groups", whole, truth[0]["accuracy"])
        for name, true in truth[0].items():
            values = [a[name][np.newaxis], b.get(name, a[name])[np.newaxis]]
            study = inference.study(name, values)
            _count(hits, name, inference.mean(name, study.mean(0)), true)
            if name in b:
                both = inference.difference(name, study, 0, 1)
                _count(hits, f"difference of {name}", both, true - truth[1][name])
    return [Check(f"95% interval: {n}", 0.95, hits[n], repetitions) for n in sorted(hits)]


def check_levels(repetitions: int, seed: int = 0) -> list[Check]:
    """How often tests at 5% call two equal models different."""
    hits: dict[str, int] = {}
    for largest in (1, 3):
        world = World(largest, (1.5, 1.5))
        units = "single images" if largest == 1 else f"groups of 1 to {largest}"
        for generator in _generators(repetitions, seed):
            groups, labels, models = world.draw(generator, _GROUPS)
            right = [model.argmax(axis=1) == labels for model in models]
            weights = group_weights(groups, RESAMPLES, seed)
            accuracies = [(row @ weights.T / weights.sum(axis=1))[np.newaxis] for row in right]
            areas = delong(labels == 2, models[0][:, 2], models[1][:, 2])
            p_values = {
                "McNemar": mcnemar(*right).p_value,
                "DeLong": areas.p_value if areas else None,
                "bootstrap, accuracy": _p_value(accuracies, _GROUPS),
            }
            if largest > 1:
                flat = [_flat(labels, model, weights) for model in models]
                macro = [one["auroc_macro"][np.newaxis] for one in flat]
                rarest = len(np.unique(groups[labels == 3]))
                p_values["bootstrap, auroc_macro"] = _p_value(macro, rarest)
            for name, p_value in p_values.items():
                key = f"level of 5%: {name}, {units}"
                hits[key] = hits.get(key, 0) + (p_value is not None and p_value < 0.05)
    return [Check(name, 0.05, n, repetitions) for name, n in hits.items()]


def _p_value(values: Sequence[np.ndarray], groups: int) -> float | None:
    return CrossedSeeds(values, [(0,), (0,)], groups).difference(0, 1).p_value


def _inference(groups: np.ndarray, labels: np.ndarray, models: int) -> Inference:
    names = [str(group) for group in groups]
    test = Predictions(names, labels, np.zeros((len(labels), len(_CLASSES)), np.float32), names)
    return Inference(test, _CLASSES, [(0,)] * models)


def table(checks: Sequence[Check]) -> str:
    """A Markdown table with one row for each check."""
    rows = [[c.name, f"{c.expected:.0%}", f"{c.share:.1%}", f"{c.error:.1%}"] for c in checks]
    return markdown_table(["what", "promised", "measured", "Monte Carlo error"], rows)


def _flat(
    labels: np.ndarray, model: np.ndarray, weights: np.ndarray, first: bool = False
) -> dict[str, np.ndarray]:
    """The metrics that are checked; with the slow calibration line of class c if `first`."""
    arrays = weighted_metrics(labels, model, weights, lines=first)
    values = {name: arrays.overall[name] for name in _METRICS}
    if first:
        values["recall/rare"] = arrays.per_class["recall"][:, 3]
        for name in ("calibration_intercept", "calibration_slope"):
            values[f"{name}/c"] = arrays.per_class[name][:, 2]
    return values


def _count(hits: dict[str, int], name: str, span: Interval, true: float) -> None:
    inside = span.low is not None and span.high is not None and span.low <= true <= span.high
    hits[name] = hits.get(name, 0) + bool(inside)


def _generators(repetitions: int, seed: int) -> Iterator[np.random.Generator]:
    return map(np.random.default_rng, np.random.SeedSequence(seed).spawn(repetitions))
