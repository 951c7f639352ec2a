"""The class shares that a finished run's probabilities assume."""

from __future__ import annotations

import numpy as np

from trainer.balancing.loss_table import LOSSES
from trainer.runs.finished_run import FinishedRun


def training_priors(run: FinishedRun) -> np.ndarray:
    """float64 [classes], sum 1: the class shares that a run's probabilities assume.

    These are the shares of the training stream, times the weights that the loss gives the classes.
    A loss that adds tau times the log prior to the logits (balanced softmax, logit adjustment)
    divides the shares that the model's own logits assume by prior^tau, and so does post hoc
    adjustment. Focal loss, LDAM and tau-normalised weights correspond to no shares exactly; for
    them, those of the stream are used as an approximation.
    """
    natural, shares = (np.array(run.samples[k], np.float64) for k in ("natural", "planned"))
    terms = LOSSES[run.config.loss].terms(run.samples["natural"], run.config)
    if terms.weights is not None:
        shares = shares * terms.weights
    if terms.prior_power is not None:
        shares = shares / (natural / natural.sum()) ** terms.prior_power
    if run.decoupled and run.decoupled["method"] == "posthoc_logit_adjusted":
        shares = shares / np.array(run.decoupled["priors"]) ** run.decoupled["tau"]
    return shares / shares.sum()
