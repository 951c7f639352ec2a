"""From which probability on a class is called present."""

from __future__ import annotations

import numpy as np
from scipy.special import expit

from trainer.evaluation import calibration, conformal
from trainer.evaluation.metrics import log_odds
from trainer.evaluation.predictions import Predictions

SENSITIVITY = 0.95
COVERAGE = 0.9  # of prediction sets


def choose_thresholds(validation: Predictions, sensitivity: float) -> np.ndarray:
    """float64 [classes], on log-odds of raw probabilities; infinite for a class that validation
    has no image of."""
    scores = log_odds(validation.log_probabilities)
    chosen = [
        calibration.choose_threshold(validation.labels == c, scores[:, c], sensitivity)
        for c in range(scores.shape[1])
    ]
    return np.array([np.inf if value is None else value for value in chosen])


def choose_both(
    validation: Predictions, sensitivity: float, coverage: float
) -> tuple[np.ndarray, np.ndarray]:
    """`choose_thresholds`, and the thresholds of `conformal.choose_thresholds`, which decide on
    prediction sets."""
    sets = conformal.choose_thresholds(
        validation.labels, validation.probabilities, coverage, validation.groups
    )
    return choose_thresholds(validation, sensitivity), sets


def as_probabilities(thresholds: np.ndarray) -> list[float | None]:
    """Thresholds of `choose_thresholds` as raw probabilities; None for a class that has none."""
    return [float(expit(value)) if np.isfinite(value) else None for value in thresholds]
