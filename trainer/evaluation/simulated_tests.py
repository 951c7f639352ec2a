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
from trainer.evaluation.bootstrap import (
    FIXED,
    RESAMPLED,
    Interval,
    group_weights,
    interval,
    paired_difference,
)
from trainer.evaluation.metrics import weighted_metrics
from trainer.evaluation.paired_tests import delong, mcnemar

_PREVALENCE = (0.17, 0.28, 0.48, 0.07)
_GROUPS = 200  # in a test set
RESAMPLES = 500
_SEED_SPREAD = 0.3  # standard deviation of a strength between seeds
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
        self, generator: np.random.Generator, groups: int, seed_spread: float = 0.0
    ) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
        """Draws groups and labels [n], and log-probabilities [n, classes] of each model.

        Args:
          groups: number of groups.
          seed_spread: standard deviation of a strength between images, which gives the average over
            seeds.
        """
        sizes = generator.integers(1, self.largest_group + 1, groups)
        member = np.repeat(np.arange(groups), sizes)
        labels = generator.choice(len(_PREVALENCE), groups, p=_PREVALENCE)[member]
        easy = generator.normal(0, 1, groups)[member]
        truth = np.eye(len(_PREVALENCE))[labels]
        shared = generator.normal(0, 0.7, truth.shape) + easy[:, np.newaxis] * truth
        models = []
        for strength in self.strengths:
            above = strength + generator.normal(0, 0.7, groups)[member]
            above += generator.normal(0, seed_spread, len(labels))
            logits = shared + above[:, np.newaxis] * truth + generator.normal(0, 0.7, truth.shape)
            models.append(log_softmax(logits, axis=1))
        return member, labels, models

    def truth(self, seed_spread: float = 0.0) -> list[dict[str, float]]:
        """Metrics of each model on enough groups that chance hardly matters."""
        generator = np.random.default_rng(10**6)
        _, labels, models = self.draw(generator, TRUTH_GROUPS, seed_spread)
        once = np.ones((1, len(labels)), np.int32)
        values = [_flat(labels, model, once, first=True) for model in models]
        return [{name: float(value[0]) for name, value in flat.items()} for flat in values]


def check_intervals(repetitions: int, seed: int = 0) -> list[Check]:
    """Coverage of cluster bootstrap intervals of one method and of a true difference."""
    world = World(3, (1.5, 1.8))
    truth = world.truth()
    hits: dict[str, int] = {}
    for generator in _generators(repetitions, seed):
        groups, labels, models = world.draw(generator, _GROUPS)
        weights = group_weights(groups, RESAMPLES, seed)
        a = _flat(labels, models[0], weights, first=True)
        b = _flat(labels, models[1], weights)
        singly = group_weights(np.arange(len(labels)), 300, seed)
        right = models[0].argmax(axis=1) == labels
        naive = interval(right @ singly.T / singly.sum(axis=1))
        _count(hits, "accuracy, images drawn singly (wrong)", naive, truth[0]["accuracy"])
        for name, true in truth[0].items():
            _count(hits, f"{name}", interval(a[name]), true)
            if name in b:
                both = paired_difference(a[name], b[name])
                _count(hits, f"difference of {name}", both, true - truth[1][name])
    return [Check(f"95% interval: {n}", 0.95, hits[n], repetitions) for n in sorted(hits)]


def check_seeds(repetitions: int, seed: int = 0) -> list[Check]:
    """Coverage for the difference of two *methods* when few seeds of each were trained."""
    center = (1.5, 1.8)
    truth = World(3, center).truth(_SEED_SPREAD)
    difference = truth[0]["accuracy"] - truth[1]["accuracy"]
    hits: dict[str, int] = {}
    counts = (2, 3, 5)
    for generator in _generators(repetitions, seed):
        for count in counts:
            strengths = np.repeat(center, count) + generator.normal(0, _SEED_SPREAD, 2 * count)
            groups, labels, models = World(3, tuple(strengths)).draw(generator, _GROUPS)
            weights = group_weights(groups, RESAMPLES, seed)
            right = np.stack([model.argmax(axis=1) == labels for model in models])
            values = right @ weights.T / weights.sum(axis=1)
            for seeds in (FIXED, RESAMPLED):
                both = paired_difference(values[:count], values[count:], seeds=seeds)
                _count(hits, f"difference of accuracy, {count} seeds {seeds}", both, difference)
    return [Check(f"95% interval: {name}", 0.95, n, repetitions) for name, n in hits.items()]


def check_levels(repetitions: int, seed: int = 0) -> list[Check]:
    """How often tests at 5% call two equal methods different."""
    hits: dict[str, int] = {}
    for largest in (1, 3):
        world = World(largest, (1.5, 1.5))
        units = "single images" if largest == 1 else f"groups of 1 to {largest}"
        for generator in _generators(repetitions, seed):
            groups, labels, models = world.draw(generator, _GROUPS)
            right = [model.argmax(axis=1) == labels for model in models]
            weights = group_weights(groups, RESAMPLES, seed)
            a, b = (row @ weights.T / weights.sum(axis=1) for row in right)
            areas = delong(labels == 2, models[0][:, 2], models[1][:, 2])
            p_values = {
                "McNemar": mcnemar(*right).p_value,
                "DeLong": areas.p_value if areas else None,
                "paired bootstrap, accuracy": paired_difference(a, b).p_value,
            }
            if largest > 1:
                a, b = (_flat(labels, model, weights)["auroc_macro"] for model in models)
                p_values["paired bootstrap, auroc_macro"] = paired_difference(a, b).p_value
            for name, p_value in p_values.items():
                key = f"level of 5%: {name}, {units}"
                hits[key] = hits.get(key, 0) + (p_value is not None and p_value < 0.05)
    return [Check(name, 0.05, n, repetitions) for name, n in hits.items()]


# (repetitions, seed) -> what each check measured.
CHECKS = (check_intervals, check_seeds, check_levels)


def table(checks: Sequence[Check]) -> str:
    """A Markdown table with one row for each check."""
    rows = [[c.name, f"{c.expected:.0%}", f"{c.share:.1%}", f"{c.error:.1%}"] for c in checks]
    return markdown_table(["what", "promised", "measured", "Monte Carlo error"], rows)


def _flat(
    labels: np.ndarray, model: np.ndarray, weights: np.ndarray, first: bool = False
) -> dict[str, np.ndarray]:
    """The metrics that are checked; with the slow calibration line of class 2 if `first`."""
    arrays = weighted_metrics(labels, model, weights, lines=first)
    values = {name: arrays.overall[name] for name in _METRICS}
    if first:
        values["recall of 7%"] = arrays.per_class["recall"][:, 3]
        for name in ("calibration_intercept", "calibration_slope"):
            values[name] = arrays.per_class[name][:, 2]
    return values


def _count(hits: dict[str, int], name: str, span: Interval, true: float) -> None:
    inside = span.low is not None and span.high is not None and span.low <= true <= span.high
    hits[name] = hits.get(name, 0) + bool(inside)


def _generators(repetitions: int, seed: int) -> Iterator[np.random.Generator]:
    return map(np.random.default_rng, np.random.SeedSequence(seed).spawn(repetitions))
