"""Areas under curves of ranked scores, for many weight vectors at once."""

from __future__ import annotations

import numpy as np

TIE_DECIMALS = 9


def descending(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Order of falling scores, and where in it each run of equal scores starts."""
    # Equal logits can give scores that differ in the last bit, which would rank them by chance.
    scores = scores.round(TIE_DECIMALS)
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    return order, np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])


def pooled(values: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Sums of [b, n] over runs of equal scores: ties must not be ranked by chance."""
    return values if len(starts) == values.shape[1] else np.add.reduceat(values, starts, axis=1)


def areas(
    weights: np.ndarray, positive: np.ndarray, starts: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """AUROC (Mann-Whitney, ties count half) and average precision, of falling scores."""
    # Only images between two positives are told apart: the negatives there count as one.
    run = np.zeros(len(positive), int)
    run[starts] = 1
    run = run.cumsum() - 1
    has = np.zeros(len(starts) + 1, bool)
    has[run[positive]] = True
    kept = starts[has[:-1] | np.r_[True, has[:-2]]]
    members = np.flatnonzero(positive)
    in_part = np.searchsorted(kept, members, side="right") - 1
    first = np.flatnonzero(np.r_[True, in_part[1:] != in_part[:-1]])[: len(members)]
    hits = np.zeros((len(weights), len(kept)))
    if len(members):
        hits[:, in_part[first]] = np.add.reduceat(weights[:, members], first, axis=1)
    misses = np.add.reduceat(weights, kept, axis=1) - hits
    true, false = hits.cumsum(axis=1), misses.cumsum(axis=1)
    positives, negatives = true[:, -1], false[:, -1]
    above = (misses * (true - hits / 2)).sum(axis=1)
    precision = np.nan_to_num(ratio(true, true + false))  # no hits before the first image counts
    area = (hits * precision).sum(axis=1)
    return ratio(above, positives * negatives), ratio(area, positives)


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """NaN where the denominator is 0."""
    empty = np.full(np.broadcast(numerator, denominator).shape, np.nan)
    return np.divide(numerator, denominator, out=empty, where=denominator != 0)
