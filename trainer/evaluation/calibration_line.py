"""Calibration intercept and slope by logistic regression, for many weight vectors at once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.special import expit

_STEPS = 100  # of Newton's method, at most
_CLOSE = 1e-9  # a smaller step ends it
_CERTAIN = 40.0  # log-odds
# Largest slope and intercept in size: scores that separate the classes perfectly have an infinite
# slope, and nearly perfect ones a slope that depends on a few images. 10 is what a temperature of
# 0.1, the lowest that `calibration` fits, would make.
BOUND = 10.0


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
    fitted = _fit_intercept(positive, log_odds, weights[both])
    intercept[both] = fitted
    overlap = _overlap(positive, log_odds, weights[both])
    mixed, apart = np.flatnonzero(both)[overlap], np.flatnonzero(both)[~overlap]
    if len(mixed):
        slope[mixed] = _fit_slope(positive, log_odds, weights[mixed])
    side = _mean_difference(positive, log_odds, weights[apart])
    slope[apart] = np.where(side == 0, np.nan, np.sign(side) * BOUND)
    return np.clip(intercept, -BOUND, BOUND), np.clip(slope, -BOUND, BOUND)


def _overlap(positive: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """bool [b]: whether the likelihood has a finite maximum (Albert and Anderson 1984)."""
    ranges = []
    for part in (positive, ~positive):
        here = weights[:, part] > 0
        ranges.append(
            (
                np.where(here, scores[part], np.inf).min(axis=1, initial=np.inf),
                np.where(here, scores[part], -np.inf).max(axis=1, initial=-np.inf),
            )
        )
    (low, high), (other_low, other_high) = ranges
    return (low < other_high) & (other_low < high)


def _mean_difference(positive: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """float64 [b], mean score of the positives minus that of the negatives."""
    means = [weights[:, p] @ scores[p] / weights[:, p].sum(axis=1) for p in (positive, ~positive)]
    return means[0] - means[1]


def _fit_intercept(positive: np.ndarray, log_odds: np.ndarray, weights: np.ndarray) -> np.ndarray:
    sign = np.where(positive, 1.0, -1.0)

    def newton(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
        # The probability of the wrong side: unlike 1 - p, exact where p rounds to 1.
        wrong = expit(-sign * (values + log_odds))
        errors = weights * wrong
        spread = (errors * (1 - wrong)).sum(axis=1)
        return (errors @ sign / np.maximum(spread, 1e-300))[:, np.newaxis]

    return _maximize(newton, weights, np.zeros((len(weights), 1)), reach=1.0)[:, 0]


def _fit_slope(positive: np.ndarray, log_odds: np.ndarray, weights: np.ndarray) -> np.ndarray:
    center, scale = log_odds.mean(), log_odds.std()
    x = (log_odds - center) / scale
    squared, sign = x * x, np.where(positive, 1.0, -1.0)
    signed = sign * x

    def newton(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
        wrong = expit(-sign * (values[:, :1] + values[:, 1:] * x))
        errors = weights * wrong
        spread = errors * (1 - wrong)
        g0, g1 = errors @ sign, errors @ signed
        h00, h01, h11 = spread.sum(axis=1), spread @ x, spread @ squared
        determinant = np.maximum(h00 * h11 - h01 * h01, 1e-300)
        return (
            np.stack([h11 * g0 - h01 * g1, h00 * g1 - h01 * g0], axis=1)
            / determinant[:, np.newaxis]
        )

    start = np.zeros((1, 2))
    if len(weights) > 1:
        # The solution of equal weights is near that of every resample: two or three steps away.
        start = _maximize(newton, np.ones((1, len(x))), start, reach=float(np.abs(x).max()))
    values = np.repeat(start, len(weights), axis=0)
    return _maximize(newton, weights, values, reach=float(np.abs(x).max()))[:, 1] / scale


def _maximize(
    newton: Callable[[np.ndarray, np.ndarray], np.ndarray],
    weights: np.ndarray,
    values: np.ndarray,
    reach: float,
) -> np.ndarray:
    """Damped Newton steps for each row until they are smaller than `_CLOSE`.

    The step length log(1 + d) / d converges from any start on logistic losses (Sun and Tran-Dinh
    2019, Generalized self-concordant functions, section 4), with no line search.

    Args:
      newton: (weights [r, n], values [r, k]) -> full Newton steps [r, k].
      weights: float64 [b, n]; values: float64 [b, k], where to start.
      reach: largest norm of a regressor.

    Returns:
      float64 [b, k]; NaN for rows that have not converged after `_STEPS` steps.
    """
    values = values.copy()
    moving = np.arange(len(values))
    for _ in range(_STEPS):
        step = newton(weights[moving], values[moving])
        d = np.maximum(np.hypot(reach, 1) * np.linalg.norm(step, axis=1, keepdims=True), 1e-12)
        values[moving] += step * (np.log1p(d) / d)
        going = np.abs(step).max(axis=1) > _CLOSE
        if not going.any():
            return values
        moving = moving[going]
    values[moving] = np.nan
    return values
