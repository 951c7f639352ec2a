"""Intervals of net benefit on simulated test sets, whose true net benefit is known.

`python -m trainer.statistics_check` prints what is measured here: how often the 95% interval of a
method's net benefit contains the true one, for a rare class and three seeds.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import scipy.stats
from scipy.special import expit, logit

from trainer.evaluation.bootstrap import group_weights
from trainer.evaluation.crossed_seeds import CrossedSeeds
from trainer.evaluation.net_benefit import SHOWN, net_benefit
from trainer.evaluation.simulated_tests import Check

RESAMPLES = 300
_SEEDS = 3
# Of an image's score: its distance between classes, and the standard deviations of what all models
# share, of a single model and image, and of a seed.
_DISTANCE, _IMAGE, _MODEL, _SEED = 2.0, 1.0, 0.55, 0.1


@dataclasses.dataclass(frozen=True)
class World:
    """images: of a test set, in groups of `group_size`; share: of images in the rare class."""

    images: int
    share: float
    group_size: int = 1

    def draw(
        self, generator: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
        """Groups and labels (whether an image is of the class), [images] each, and the calibrated
        probability of each image, [images], by the model of each seed."""
        groups = self.images // self.group_size
        member = np.arange(self.images) % groups
        positive = (generator.random(groups) < self.share)[member]
        shared = _DISTANCE * positive + generator.normal(0, _IMAGE, groups)[member]
        models = []
        for shift in generator.normal(0, _SEED, _SEEDS):
            score = shared + shift + generator.normal(0, _MODEL, self.images)
            evidence = _DISTANCE / (_IMAGE**2 + _MODEL**2) * (score - _DISTANCE / 2)
            models.append(expit(logit(self.share) + evidence))
        return member, positive, models

    def truth(self) -> np.ndarray:
        """Net benefit at each threshold of `SHOWN`, over all images and seeds."""
        thresholds, variance = np.array(SHOWN), _IMAGE**2 + _MODEL**2
        evidence = logit(thresholds) - logit(self.share)
        cut = evidence * variance / _DISTANCE + _DISTANCE / 2
        spread = np.sqrt(variance + _SEED**2)
        called = [scipy.stats.norm.sf((cut - mean) / spread) for mean in (_DISTANCE, 0.0)]
        odds = thresholds / (1 - thresholds)
        return self.share * called[0] - (1 - self.share) * called[1] * odds


WORLDS = (World(353, 0.05), World(353, 0.07, group_size=2), World(4000, 0.05), World(4000, 0.01))


def check_net_benefit(repetitions: int, seed: int = 0) -> list[Check]:
    """Coverage of the intervals at each threshold of `SHOWN`, in each of `WORLDS`.

    A test set in which no model calls any image has no interval, and counts as not covered.
    """
    checks = []
    for world in WORLDS:
        truth, hits = world.truth(), np.zeros(len(SHOWN), int)
        for generator in map(
            np.random.default_rng, np.random.SeedSequence(seed).spawn(repetitions)
        ):
            groups, positive, models = world.draw(generator)
            weights = group_weights(groups, RESAMPLES, int(generator.integers(2**31)))
            values = np.stack([net_benefit(positive, p, np.array(SHOWN), weights) for p in models])
            count = len(np.unique(groups[positive]))
            for t, true in enumerate(truth):
                study = CrossedSeeds([values[:, :, t]], [tuple(range(_SEEDS))], count)
                one = study.mean(0).interval()
                hits[t] += one.low is not None and one.low <= true <= (one.high or 0.0)
        units = "" if world.group_size == 1 else f" in groups of {world.group_size}"
        name = f"95% interval: net benefit, {world.images:,} images{units}, {world.share:.0%} of "
        checks += [
            Check(f"{name}the class, from {threshold:.0%} on", 0.95, int(n), repetitions)
            for threshold, n in zip(SHOWN, hits, strict=True)
        ]
    return checks
