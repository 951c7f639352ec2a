"""A finished run's class shares: of its images, and those that its probabilities assume."""

from __future__ import annotations

import numpy as np

from trainer.balancing.loss_table import LOSSES
from trainer.balancing.sampler_table import SAMPLERS
from trainer.epochs.plan import EpochPlanner
from trainer.runs.finished_run import FinishedRun


def training_priors(run: FinishedRun) -> np.ndarray:
    """float64 [classes], sum 1: the class shares that a run's probabilities assume.

    These are the shares of the training labels after sampling and mixup, in the epoch whose weights
    were kept, times the weights that the loss gives the classes in that epoch. A loss that adds tau
    times the log prior to the logits (balanced softmax, logit adjustment) divides the shares that
    the model's own logits assume by prior^tau, and so does post hoc adjustment. Focal loss, margins
    (LDAM) and tau-normalised weights correspond to no shares exactly: the same product is then an
    approximation, which leaves them out.
    """
    config, counts, epoch = run.config, run.samples["natural"], int(run.best["epoch"])
    shares = EpochPlanner(config, run.class_names, counts).label_shares(epoch - 1)
    terms = LOSSES[config.loss].terms(counts, config)
    if terms.weights is not None:
        shares = shares * terms.weights
    if terms.late_weights is not None and epoch >= config.first_drw_epoch:
        shares = shares * terms.late_weights
    if terms.prior_power is not None:
        shares = shares / (np.array(counts, np.float64) / sum(counts)) ** terms.prior_power
    if run.decoupled and run.decoupled["method"] == "posthoc_logit_adjusted":
        shares = shares / np.array(run.decoupled["priors"]) ** run.decoupled["tau"]
    return shares / shares.sum()


def planned_in_last_epoch(run: FinishedRun) -> list[int]:
    """[classes], training images of each class that the sampler planned for the last epoch.

    Equal to `samples["planned"]`, which is of the first epoch, unless class shares change by epoch
    (progressive sampling).
    """
    if not SAMPLERS[run.config.sampler].varies_by_epoch:
        return run.samples["planned"]
    planner = EpochPlanner(run.config, run.class_names, run.samples["natural"])
    return planner.planned_counts(int(run.history[-1]["epoch"]) - 1).tolist()
