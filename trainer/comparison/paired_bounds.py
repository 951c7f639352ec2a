"""Bounds of McNemar's test where only the confusion matrices of two models are known."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping

import numpy as np
import scipy.stats

from trainer.evaluation.paired_tests import mcnemar


@dataclasses.dataclass(frozen=True)
class PairedBounds:
    """McNemar's test of two models on the same images, over all predictions that their matrices
    allow.

    Attributes:
      first, second: names of the models.
      only_first, only_second: the most images that one alone can have classified correctly; both
        are reached together.
      p_low, p_high: the smallest and the largest mid-p value.
      exact_high: the largest p-value of the exact test, which is more careful.
    """

    first: str
    second: str
    only_first: int
    only_second: int
    p_low: float
    p_high: float
    exact_high: float


def paired_bounds(models: Mapping[str, np.ndarray]) -> list[PairedBounds]:
    """Bounds of McNemar's test for every pair of models with as many test images in each class,
    which are taken to be the same images.

    In a class of n images of which a and b were classified wrongly by the two models, the number
    that both got wrong is at least max(0, a + b - n) and at most min(a, b), and may be anything
    between. The rest of the errors are of one model alone. Their difference is fixed, so the
    p-value is the largest where the fewest errors are shared: with one more error on each side its
    binomial tail grows.

    Args:
      models: name -> int64 [classes, classes], rows are true classes.
    """
    results = []
    for (first, a), (second, b) in itertools.combinations(models.items(), 2):
        images = a.sum(axis=1)
        if np.array_equal(images, b.sum(axis=1)):
            wrong_a, wrong_b = images - np.diag(a), images - np.diag(b)
            fewest = int(np.maximum(0, wrong_a + wrong_b - images).sum())
            most = int(np.minimum(wrong_a, wrong_b).sum())
            errors = int(wrong_a.sum()), int(wrong_b.sum())
            only_first, only_second = errors[1] - fewest, errors[0] - fewest
            p_low = _mcnemar(errors[1] - most, errors[0] - most)
            p_high = _mcnemar(only_first, only_second)
            count = only_first + only_second
            exact = float(scipy.stats.binomtest(only_first, count).pvalue) if count else 1.0
            results.append(
                PairedBounds(first, second, only_first, only_second, p_low, p_high, exact)
            )
    return results


def paired_sentence(bounds: PairedBounds) -> str:
    """What the bounds say of the two models, in words."""
    a, b = bounds.first, bounds.second
    if bounds.p_high < 0.05:
        meaning = "They differ beyond chance, whichever images each got wrong."
    elif bounds.p_low >= 0.05:
        meaning = "They do not differ beyond chance, whichever images each got wrong."
    else:
        meaning = "Whether they differ beyond chance depends on which images each got wrong."
    return (
        f"{a} and {b} have the same number of images in every class, so probably the same images. "
        f"If so, at most {bounds.only_second:,} were wrong by {a} alone and {bounds.only_first:,} "
        f"by {b} alone, and the p-value of McNemar's test (mid-p) is between {bounds.p_low:.2g} "
        f"and {bounds.p_high:.2g} (exact test: at most {bounds.exact_high:.2g}). {meaning}"
    )


def _mcnemar(only_first: int, only_second: int) -> float:
    first_is_right = np.repeat([True, False], [only_first, only_second])
    return mcnemar(first_is_right, ~first_is_right).p_value
