"""At which class shares a finished run's probabilities are."""

from __future__ import annotations

import numpy as np

from trainer.balancing import class_weights
from trainer.runs.finished_run import FinishedRun


def training_priors(run: FinishedRun) -> np.ndarray:
    """float64 [classes], sum 1: the class shares that a run's probabilities are at.

    Those of the training stream, times what the loss weighs a class by; losses that add the log
    prior to the logits (balanced softmax, logit adjustment) leave raw logits at prior^(1 - tau),
    and so does post hoc adjustment. Focal loss, LDAM and tau-normalised weights have no such
    shares: those of the stream are the nearest there is.
    """
    counts = run.samples["natural"]
    natural, stream = (np.array(run.samples[k], np.float64) for k in ("natural", "planned"))
    config = run.config
    if config.loss == "class_weighted":
        stream = stream * class_weights.balanced_weights(counts)
    elif config.loss == "effective_number":
        beta = config.effective_number_beta
        stream = stream * class_weights.effective_number_weights(counts, beta)
    elif config.loss in ("balanced_softmax", "logit_adjusted"):
        tau = config.logit_adjustment_tau if config.loss == "logit_adjusted" else 1.0
        stream = stream / (natural / natural.sum()) ** tau
    if run.decoupled and run.decoupled["method"] == "posthoc_logit_adjusted":
        stream = stream / np.array(run.decoupled["priors"]) ** run.decoupled["tau"]
    return stream / stream.sum()
