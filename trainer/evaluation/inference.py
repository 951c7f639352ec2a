"""Intervals of a comparison's metrics: which groups decide a metric, its range, rare classes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from trainer.evaluation import shares
from trainer.evaluation.bootstrap import Interval
from trainer.evaluation.crossed_seeds import CrossedSeeds, Estimate
from trainer.evaluation.metrics import LOWER_IS_BETTER
from trainer.evaluation.predictions import Predictions

LEVEL = 0.95
# In a class of fewer groups, figures are marked, and differences of its own figures not tested.
RARE_BELOW = 15
# Of a mean over classes, the smallest class decides.
_OVER_CLASSES = ("balanced_accuracy", "macro_f1", "auroc_macro", "auprc_macro")
# Their bootstrap is centred on a value that is too high, and no interval was found that holds.
_WITHOUT_INTERVAL = ("ece",)
_ANYTHING = (-np.inf, np.inf)
# Metrics whose range is not 0 to 1.
_BOUNDS = {
    "mcc": (-1.0, 1.0),
    "brier": (0.0, 2.0),
    "log_loss": (0.0, np.inf),
    "calibration_slope": _ANYTHING,
    "calibration_intercept": _ANYTHING,
}


def better(metric: str, difference: float) -> bool:
    """Whether a difference of a metric is an improvement."""
    return (difference < 0) == (metric.split("/")[0] in LOWER_IS_BETTER)


class Inference:
    """Intervals of the metrics of a test split.

    Args:
      test: the test split; only its labels and groups count.
      class_names: by label.
      seeds: of each method, in the order of all values.
    """

    def __init__(
        self, test: Predictions, class_names: Sequence[str], seeds: Sequence[Sequence[int]]
    ) -> None:
        groups = np.asarray(test.groups or test.ids)
        self._total = len(np.unique(groups))
        self._by_class = {
            name: len(np.unique(groups[test.labels == c])) for c, name in enumerate(class_names)
        }
        self._outside = {
            name: len(np.unique(groups[test.labels != c])) for c, name in enumerate(class_names)
        }
        self._seeds = seeds

    def rare_classes(self) -> dict[str, int]:
        """Class -> groups in the test split, of the classes with fewer than `RARE_BELOW`."""
        return {name: n for name, n in self._by_class.items() if n < RARE_BELOW}

    def groups_of(self, metric: str) -> int:
        """Number of groups that decide a metric, such as `accuracy` or `recall/COVID`."""
        kind, _, class_name = metric.partition("/")
        if class_name and kind == "specificity":
            return self._outside[class_name]
        if class_name and kind != "brier":
            return self._by_class[class_name]
        if kind in _OVER_CLASSES:
            return min(n for n in self._by_class.values() if n)
        return self._total

    def study(self, metric: str, values: Sequence[np.ndarray]) -> CrossedSeeds:
        """Args: values: of each method, float64 [seeds, 1 + resamples]."""
        return CrossedSeeds(values, self._seeds, self.groups_of(metric))

    def mean(self, metric: str, one: Estimate) -> Interval:
        """The interval of one method."""
        bounds = _BOUNDS.get(metric.split("/")[0])
        if metric in _WITHOUT_INTERVAL:
            return _without_ends(one.interval(LEVEL))
        if bounds is None:
            return one.share_interval(LEVEL, rare=self._is_rare(metric))
        return dataclasses.replace(one.interval(LEVEL, bounds), p_value=None)

    def difference(self, metric: str, study: CrossedSeeds, i: int, k: int) -> Interval:
        """The interval of method `i` minus method `k`, with its p-value."""
        interval = study.difference(i, k).interval(LEVEL)
        if metric in _WITHOUT_INTERVAL:
            return _without_ends(interval)
        if not self._is_rare(metric) or metric.split("/")[0] in _BOUNDS:
            return interval
        a, b = (self.mean(metric, study.mean(m)) for m in (i, k))
        low, high = shares.square_and_add(a, b)
        return dataclasses.replace(
            interval, low=low, high=high, p_value=None, standard_error=None, df=None
        )

    def _is_rare(self, metric: str) -> bool:
        return "/" in metric and self.groups_of(metric) < RARE_BELOW


def _without_ends(interval: Interval) -> Interval:
    return dataclasses.replace(
        interval, low=None, high=None, p_value=None, standard_error=None, df=None
    )


def plain(interval: Interval) -> dict[str, Any]:
    """As JSON values."""
    return dataclasses.asdict(interval)


def name_metrics(
    overall: Sequence[str], by_class: Sequence[str], class_names: Sequence[str]
) -> list[str]:
    """Overall metrics, then those by class, as `recall/COVID`."""
    return [*overall, *(f"{metric}/{name}" for metric in by_class for name in class_names)]


def stack(
    values: Mapping[str, Mapping[str, Mapping[str, np.ndarray]]], variant: str, metric: str
) -> list[np.ndarray]:
    """The values of one metric, of each method."""
    return [one[variant][metric] for one in values.values()]
