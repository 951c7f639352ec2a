"""What a study could have seen, and how large it would have to be, from its own variances."""

from __future__ import annotations

import dataclasses

import scipy.stats

from trainer.evaluation.crossed_seeds import Estimate

POWER = 0.8
_MOST_SEEDS = 100
_MOST_IMAGES = 1000.0  # times those of the study


def smallest_difference(one: Estimate, tests: int = 1, level: float = 0.95) -> float | None:
    """The true difference that a study like this finds with a probability of 80%.

    Args:
      one: a difference; only its variance counts.
      tests: number of methods that are compared; the smallest p-value counts this many times
        (Bonferroni, the first step of Holm), so this errs to the large side.

    Returns:
      None if the difference has no variance.
    """
    if not one.standard_error:
        return None
    alpha = (1 - level) / tests
    quantiles = scipy.stats.t.ppf([1 - alpha / 2, POWER], one.df)
    return float(quantiles.sum() * one.standard_error)


def seeds_needed(one: Estimate, margin: float, tests: int = 1, level: float = 0.95) -> int | None:
    """Seeds of each method with which `smallest_difference` is at most `margin`, on these test
    images. None: more seeds alone are not enough, or with a single seed their spread is unknown."""
    if not one.seed_df:
        return None
    for seeds in range(2, _MOST_SEEDS + 1):
        smallest = smallest_difference(_scaled(one, seeds, 1.0), tests, level)
        if smallest is not None and smallest <= margin:
            return seeds
    return None


def images_needed(
    one: Estimate, margin: float, tests: int = 1, level: float = 0.95
) -> float | None:
    """How many times the test images of this study it takes, with its number of seeds, so that
    `smallest_difference` is at most `margin`. None: more images alone are not enough."""
    if not _is_enough(one, _MOST_IMAGES, margin, tests, level):
        return None
    low, high = 2 / max(2, one.groups), _MOST_IMAGES  # an interval takes two groups of images
    if _is_enough(one, low, margin, tests, level):
        return low
    while high - low > 0.01 * high:
        middle = (low * high) ** 0.5
        if _is_enough(one, middle, margin, tests, level):
            high = middle
        else:
            low = middle
    return high


def _is_enough(one: Estimate, times: float, margin: float, tests: int, level: float) -> bool:
    smallest = smallest_difference(_scaled(one, one.seeds, times), tests, level)
    return smallest is not None and smallest <= margin


def _scaled(one: Estimate, seeds: int, images: float) -> Estimate:
    """The same study with other numbers: `seeds`, and `images` times the test images."""
    steady = max(0.0, one.seed_variance - one.noise)
    share = one.seeds / seeds
    return dataclasses.replace(
        one,
        seed_variance=(steady + one.noise / images) * share,
        image_variance=one.image_variance / images,
        noise=one.noise / images * share,
        seeds=seeds,
        seed_df=one.seed_df * (seeds - 1) / max(1, one.seeds - 1),
        groups=max(2, round(one.groups * images)),
    )
