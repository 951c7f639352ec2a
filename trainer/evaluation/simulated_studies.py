"""Simulated studies: methods with several seeds on the same test images, whose truth is known.

`python -m trainer.statistics_check` prints what is measured here: how often the interval of a
difference contains the true one, how often a study of equal methods calls one different (the
family-wise error, after Holm), and how often a true gain is found (power).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import scipy.stats

from cxr_tfrecords.pages.markdown import markdown_table
from trainer.evaluation import bootstrap
from trainer.evaluation.crossed_seeds import CrossedSeeds

RESAMPLES = 300
_ACCURACY = 0.75  # of the reference, over all seeds
# Standard deviations of what makes an image right or wrong: for all models, for all seeds of one
# method, and for a single model. Two seeds of a method then give the same answer for 82% of images.
_IMAGE, _METHOD, _MODEL = 1.0, 0.3, 0.55


@dataclasses.dataclass(frozen=True)
class Scenario:
    """A kind of study.

    Attributes:
      images: in the test split; seeds: of each method.
      seed_points: of each method, the standard deviation of its accuracy between seeds, in points;
        the first method is the reference.
      gain: of the second method over the others, in points of accuracy.
      correlation: between the methods' effects of the same seed.
      group_size: images in a group, on average.
    """

    name: str
    images: int
    seeds: int
    seed_points: tuple[float, ...]
    gain: float = 0.0
    correlation: float = 0.0
    group_size: int = 1


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What was measured of a scenario, shares of the repetitions.

    Attributes:
      coverage: of the 95% intervals of all differences to the reference; worst: of the method
        with the least.
      family_error: studies that call at least one equal method different.
      power: studies that find the gain; None without a gain.
      width: of an interval, in points, on average.
    """

    coverage: float
    worst: float
    family_error: float
    power: float | None
    width: float


def scenarios() -> list[Scenario]:
    """The scenarios of docs/statistics.md."""
    result = [
        Scenario(f"{methods} methods, seeds differ by {points}", images, seeds, (points,) * methods)
        for methods in (7, 2)
        for images in (353, 4000)
        for seeds in (2, 3, 5)
        for points in (3, 9)
    ]
    result += [
        Scenario("7 methods, a gain of 9.2, seeds differ by 1", 353, 3, (1,) * 7, gain=9.2),
        Scenario("7 methods, a gain of 9.2, seeds differ by 3", 353, 3, (3,) * 7, gain=9.2),
        Scenario("7 methods, correlated seeds", 4000, 3, (9,) * 7, correlation=0.8),
        Scenario("7 methods, groups of 2 images", 353, 3, (3,) * 7, group_size=2),
    ]
    result += [
        Scenario(f"7 methods, seeds differ by {text}", images, seeds, points)
        for images in (353, 4000)
        for seeds in (3, 5)
        for text, points in (
            ("2 to 6", (2, 6, 2, 4, 2, 2, 3)),
            ("1, of one method by 9", (1, 9, 1, 1, 1, 1, 1)),
            ("1, of the reference by 9", (9, 1, 1, 1, 1, 1, 1)),
        )
    ]
    return result


def measure(scenario: Scenario, repetitions: int, seed: int = 0) -> Outcome:
    """Simulates studies of a scenario."""
    methods = len(scenario.seed_points)
    truth = np.array([0.0, scenario.gain / 100, *[0.0] * (methods - 2)])[:methods]
    covered = np.zeros(methods - 1)
    wrong = found = 0
    widths = []
    for generator in map(np.random.default_rng, np.random.SeedSequence(seed).spawn(repetitions)):
        study = _draw(scenario, truth, generator)
        intervals = [study.difference(i, 0).interval() for i in range(1, methods)]
        adjusted = bootstrap.holm([one.p_value for one in intervals])
        called = np.array([p is not None and p < 0.05 for p in adjusted])
        for i, one in enumerate(intervals):
            if one.low is not None and one.high is not None:
                covered[i] += one.low <= truth[i + 1] <= one.high
                widths.append(100 * (one.high - one.low))
        wrong += bool(called[truth[1:] == 0].any())
        found += bool(called[0])
    shares = covered / repetitions
    power = found / repetitions if scenario.gain else None
    return Outcome(
        float(shares.mean()),
        float(shares.min()),
        wrong / repetitions,
        power,
        float(np.mean(widths)),
    )


def _draw(scenario: Scenario, truth: np.ndarray, generator: np.random.Generator) -> CrossedSeeds:
    """The accuracies of a study: an image is right if its margin is above 0."""
    spread = np.sqrt(_IMAGE**2 + _METHOD**2 + _MODEL**2)
    height = scipy.stats.norm.pdf(scipy.stats.norm.ppf(_ACCURACY)) / spread
    deviation = np.array(scenario.seed_points) / 100 / height  # of margins
    mean = scipy.stats.norm.ppf(_ACCURACY + truth) * np.sqrt(spread**2 + deviation**2)
    methods, seeds, images = len(truth), scenario.seeds, scenario.images
    groups = max(1, images // scenario.group_size)
    member = np.arange(images) % groups
    shared = np.sqrt(scenario.correlation) * generator.normal(0, 1, seeds)
    alone = np.sqrt(1 - scenario.correlation) * generator.normal(0, 1, (methods, seeds))
    models = mean[:, np.newaxis] + deviation[:, np.newaxis] * (shared + alone)
    by_image = generator.normal(0, _IMAGE, groups)[member]
    by_method = generator.normal(0, _METHOD, (methods, groups))[:, member]
    noise = generator.normal(0, _MODEL, (methods, seeds, images))
    right = models[..., np.newaxis] + by_image + by_method[:, np.newaxis] + noise > 0
    weights = bootstrap.group_weights(member, RESAMPLES, int(generator.integers(2**31)))
    values = right.astype(np.float32) @ weights.astype(np.float32).T / weights.sum(axis=1)
    return CrossedSeeds(list(values), [tuple(range(seeds))] * methods, groups)


def table(repetitions: int, seed: int, chosen: Sequence[Scenario]) -> str:
    """A Markdown table with one row for each scenario."""
    rows = []
    for scenario in chosen:
        one = measure(scenario, repetitions, seed)
        row = [scenario.name, str(scenario.images), str(scenario.seeds)]
        row += [f"{one.coverage:.1%}", f"{one.worst:.1%}", f"{one.family_error:.1%}"]
        row += ["" if one.power is None else f"{one.power:.0%}", f"{one.width:.1f}"]
        rows.append(row)
    header = ["study (differences in points)", "test images", "seeds", "95% intervals that hold"]
    header += ["of the worst method", "family-wise error", "power", "width, points"]
    return markdown_table(header, rows)
