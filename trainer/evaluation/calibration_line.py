"""Calibration intercept and slope by logistic regression, for many weight vectors at once."""

from __future__ import annotations

import dataclasses

import numpy as np

from trainer.evaluation.condensed_scores import Scores

_STEPS = 100  # of Newton's method, at most
_CLOSE = 1e-10  # a smaller error ends it
_KEPT = 0.7  # share of rows that go on
_CERTAIN = 40.0  # log-odds
# Largest slope and intercept in size: scores that separate the classes perfectly have an infinite
# slope, and nearly perfect ones a slope that depends on a few images. 10 is what a temperature of
# 0.1, the lowest that `calibration` fits, would make.
BOUND = 10.0
# Images at an end that are looked at first: one of them counts in nearly every resample.
_FIRST = 16
_FEW = 16  # Fewer resamples are fitted on the images themselves.
# The first try is for slopes of twice the slope of all resamples together, and the second for these
# times as steep ones.
_STEEPER = 4.0


def recalibration_line(
    positive: np.ndarray, log_odds: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Logistic recalibration (Cox 1958; Van Calster et al. 2019, BMC Medicine 17:230).

    slope b: of logit P(positive) = a + b * log_odds. 1 is ideal; below 1 the predictions are too
    extreme (overfitted), above 1 not extreme enough.
    intercept a: of the same model with b fixed at 1 ("calibration in the large"). 0 is ideal; below
    0 the class is predicted too often, as after balanced training without a correction.

    Args:
      positive: bool [n].
      log_odds: float64 [n], predicted; beyond +-40 they count as 40.
      weights: float64 [b, n], how often each image counts.

    Returns:
      (intercept, slope), float64 [b] each, within +-`BOUND`; NaN if there is no positive or no
      negative. If the scores separate the two perfectly, the slope is `BOUND`, or minus it if
      positives have the lower ones: read it as "at least". NaN if all scores are equal.
    """
    # In float64, odds of e^40 are certainty. Without the limit, one image of probability 0 would be
    # infinite, or so far away that all others look equal.
    log_odds = np.clip(log_odds, -_CERTAIN, _CERTAIN)
    positives = weights @ positive
    both = (positives > 0) & (weights.sum(axis=1) > positives)
    intercept = np.full(len(weights), np.nan)
    slope = np.full(len(weights), np.nan)
    if both.any():
        intercept[both], slope[both] = _lines(Scores(positive, log_odds, weights[both]))
    return np.clip(intercept, -BOUND, BOUND), np.clip(slope, -BOUND, BOUND)


def _lines(scores: Scores) -> tuple[np.ndarray, np.ndarray]:
    """(intercept, slope), float64 [b] each; every row has a positive and a negative."""
    overlap = _overlap(scores.positive, scores.values, scores.weights)
    slope = np.empty(len(overlap))
    side = _mean_difference(scores.positive, scores.values, scores.weights[~overlap])
    slope[~overlap] = np.where(side == 0, np.nan, np.sign(side) * BOUND)
    left, line, level = np.flatnonzero(overlap), np.zeros((1, 2)), np.zeros((1, 1))
    if len(overlap) < _FEW:
        if len(left):
            slope[left] = _fit_slope(scores.rows(left), line)[:, 1]
        return _fit_intercept(scores, level), slope
    # The line of all resamples together is near that of each: two or three steps away.
    pooled = dataclasses.replace(scores, weights=scores.weights.sum(axis=0, keepdims=True))
    level = np.nan_to_num(_fit_intercept(pooled, level))[:, np.newaxis]
    if len(left):
        line = np.nan_to_num(_fit_slope(pooled, line))
    steepest = 1 + 2 * float(abs(line[0, 1]))
    condensed = scores.condensed(steepest)
    intercept = _fit_intercept(condensed, level)
    # Condensed scores say nothing of a line that is steeper than they were made for.
    for limit in (steepest, _STEEPER * steepest, np.inf):
        if not len(left):
            break
        part = condensed if limit == steepest else scores
        part = part.rows(left)
        if steepest < limit < np.inf:
            part = part.condensed(limit)
        slope[left] = _fit_slope(part, line)[:, 1]
        left = left[~(np.abs(slope[left]) <= limit)]
    return intercept, slope


def _overlap(positive: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """bool [b]: whether the likelihood has a finite maximum (Albert and Anderson 1984)."""
    ranges = []
    for members in (np.flatnonzero(positive), np.flatnonzero(~positive)):
        rising = members[np.argsort(scores[members], kind="stable")]
        ranges.append([scores[_first_counted(weights, at)] for at in (rising, rising[::-1])])
    (low, high), (other_low, other_high) = ranges
    return (low < other_high) & (other_low < high)


def _first_counted(weights: np.ndarray, order: np.ndarray) -> np.ndarray:
    """int [b]: the first image of `order` whose weight is above 0; there is one in each row."""
    counted = weights[:, order[:_FIRST]] > 0
    found = order[counted.argmax(axis=1)]
    rest = ~counted.any(axis=1)
    if rest.any():
        found[rest] = order[(weights[rest][:, order] > 0).argmax(axis=1)]
    return found


def _mean_difference(positive: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """float64 [b], mean score of the positives minus that of the negatives."""
    means = [weights[:, p] @ scores[p] / weights[:, p].sum(axis=1) for p in (positive, ~positive)]
    return means[0] - means[1]


def _fit_intercept(scores: Scores, start: np.ndarray) -> np.ndarray:
    """float64 [b], for the slope 1. start: float64 [1, 1]."""
    return _maximize(scores, np.ones((1, len(scores.values))), scores.values, start)[:, 0]


def _fit_slope(scores: Scores, start: np.ndarray) -> np.ndarray:
    """float64 [b, 2], intercept and slope. start: float64 [1, 2]."""
    center, scale = scores.values.mean(), scores.values.std()
    x = (scores.values - center) / scale
    design = np.stack([np.ones_like(x), x])
    scaled = start @ np.array([[1, 0], [center, scale]])
    values = _maximize(scores, design, np.zeros_like(x), scaled)
    return values @ np.array([[1, 0], [-center / scale, 1 / scale]])


def _maximize(
    scores: Scores, design: np.ndarray, offset: np.ndarray, start: np.ndarray
) -> np.ndarray:
    """Logistic regressions: damped Newton steps for each row of weights.

    The step length log(1 + d) / d converges from any start on logistic losses (Sun and Tran-Dinh
    2019, Generalized self-concordant functions, section 4), with no line search. After a whole
    step, the error is about d times its size.

    Args:
      design: float64 [k, n], the regressors, k of 1 or 2; offset: float64 [n].
      start: float64 [1, k], near all solutions.

    Returns:
      float64 [b, k]; NaN for rows that have not converged after `_STEPS` steps.
    """
    weights, sign = scores.weights, np.where(scores.positive, 1.0, -1.0)
    signed, fixed = sign * design, sign * offset
    products = np.stack([design[i] * design[k] for i, k in _PAIRS[len(design)]])
    # At the ends of a regressor a step changes the log-odds most.
    ends = np.stack([design.min(axis=1), design.max(axis=1)])
    values = np.repeat(start, len(weights), axis=0)
    moving, at = np.arange(len(weights)), start
    for _ in range(_STEPS):
        wrong = _wrong(at @ signed + fixed)
        if len(at) == 1:  # the same for all rows, as at the start
            gradient = weights @ (signed * wrong).T
            curvature = weights @ (products * (wrong * (1 - wrong))).T
        else:
            errors = weights * wrong
            gradient = errors @ signed.T
            wrong *= errors
            errors -= wrong
            curvature = errors @ products.T
        step = _solve(curvature, gradient)
        d = np.maximum(np.abs(step @ ends.T).max(axis=1, keepdims=True), 1e-12)
        values[moving] += step * (np.log1p(d) / d)
        going = ~(d[:, 0] * np.abs(step).max(axis=1) <= _CLOSE)
        if not going.any():
            return values
        # Rows are copied only when many are done: a copy costs as much as a step.
        if going.mean() < _KEPT:
            weights, moving = weights[going], moving[going]
        at = values[moving]
    values[moving] = np.nan
    return values


_PAIRS = {1: [(0, 0)], 2: [(0, 0), (0, 1), (1, 1)]}  # of regressors, whose products are summed


def _solve(curvature: np.ndarray, gradient: np.ndarray) -> np.ndarray:
    """float64 [b, k]: Newton's steps from the sums of the products `_PAIRS`."""
    if gradient.shape[1] == 1:
        return gradient / np.maximum(curvature, 1e-300)
    h00, h01, h11 = curvature.T
    g0, g1 = gradient.T
    determinant = np.maximum(h00 * h11 - h01 * h01, 1e-300)
    return np.stack([h11 * g0 - h01 * g1, h00 * g1 - h01 * g0], axis=1) / determinant[:, np.newaxis]


def _wrong(margin: np.ndarray) -> np.ndarray:
    """The probability of the wrong side: unlike 1 - p, exact where p rounds to 1.

    Args:
      margin: float64 log-odds of the right side, which are overwritten.
    """
    with np.errstate(over="ignore"):
        np.exp(margin, out=margin)
    margin += 1
    return np.divide(1, margin, out=margin)
