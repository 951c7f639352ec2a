"""Net benefit of acting on a probability (decision curve analysis; Vickers and Elkin 2006).

    net_benefit(labels == c, probabilities[:, c], THRESHOLDS)                # the model's curve
    net_benefit(labels == c, np.ones(len(labels)), THRESHOLDS)               # of calling all images

The threshold says how sure one must be before one acts: whoever acts from 10% on takes 9 false
alarms for one true case. Calling no image has the net benefit 0.
"""

from __future__ import annotations

import numpy as np

THRESHOLDS = np.arange(1, 100) / 100
# Thresholds of the tables, where net benefit has an interval.
SHOWN = (0.05, 0.1, 0.2, 0.5)


def net_benefit(
    positive: np.ndarray,
    probabilities: np.ndarray,
    thresholds: np.ndarray,
    weights: np.ndarray | None = None,
) -> np.ndarray:
    """Share of true positives minus share of false positives times the threshold's odds.

    An image is called positive if its probability is at least the threshold.

    Args:
      positive: bool [n].
      probabilities: float [n], of being positive, in 0..1.
      thresholds: float [t], each at least 0 and less than 1.
      weights: [b, n], how often each image counts, such as `bootstrap.group_weights`; None: once.

    Returns:
      float64 [t], or [b, t] if `weights` are given; at most the share of positives.
    """
    thresholds = np.asarray(thresholds, np.float64)
    called = np.asarray(probabilities)[:, np.newaxis] >= thresholds
    worth = np.where(np.asarray(positive, bool)[:, np.newaxis], 1, -thresholds / (1 - thresholds))
    counts = np.ones((1, len(called))) if weights is None else np.asarray(weights, np.float64)
    benefit = counts @ (called * worth) / counts.sum(axis=1, keepdims=True)
    return benefit[0] if weights is None else benefit
