"""Few points give the same weighted sums, and the same lines, as the images that they replace."""

import numpy as np
import pytest
from scipy.special import expit

from trainer.evaluation.calibration_line import recalibration_line
from trainer.evaluation.condensed_scores import Scores


def _scores(count, resamples, share=0.3, shift=4.0, seed=0):
    """Falling scores of two classes, and the weights of resamples."""
    rng = np.random.default_rng(seed)
    positive = rng.random(count) < share
    values = rng.normal(0, 2, count) + shift * positive
    order = np.argsort(-values)
    weights = rng.multinomial(count, np.full(count, 1 / count), resamples).astype(float)
    return Scores(positive[order], values[order], weights)


@pytest.mark.parametrize("steepest", [1.0, 3.0, 20.0])
def test_condensed_scores_have_the_sums_of_all_curves_up_to_the_steepest(steepest):
    scores = _scores(2000, 5)
    few = scores.condensed(steepest)
    if steepest < 20:
        assert few.values.size < scores.values.size / 3
    for slope in (-steepest, 0.3 * steepest, steepest):
        for level in (-3.0, 0.0, 6.0):
            for side in (True, False):
                sums = []
                for one in (scores, few):
                    x, weights = one.values, one.weights[:, one.positive == side]
                    curve = expit(level + slope * x) * x
                    sums.append(weights @ curve[one.positive == side])
                np.testing.assert_allclose(sums[1], sums[0], rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(("share", "shift"), [(0.3, 4.0), (0.03, 8.0), (0.02, 1.0), (0.5, -3.0)])
def test_lines_of_many_resamples_are_those_of_each_alone(share, shift):
    scores = _scores(600, 60, share, shift)
    together = recalibration_line(scores.positive, scores.values, scores.weights)
    alone = [
        recalibration_line(scores.positive, scores.values, scores.weights[[row]])
        for row in range(60)
    ]
    for many, each in zip(together, zip(*alone, strict=True), strict=True):
        np.testing.assert_allclose(many, np.concatenate(each), rtol=1e-6, atol=1e-8)
