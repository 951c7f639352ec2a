"""Notes of a run's report on how it balanced the classes, and what that does to probabilities."""

from __future__ import annotations

from collections.abc import Iterable

from trainer.balancing.loss_table import LOSSES
from trainer.balancing.sampler_table import SAMPLERS
from trainer.epochs.audit import total_planned
from trainer.runs.finished_run import FinishedRun
from trainer.settings import balance_summary


def balancing_notes(run: FinishedRun) -> Iterable[str]:
    """Sentences on the class mix and confidence of a run's probabilities, for its limits."""
    planned = run.samples["planned"]
    if run.audit:  # the sum of all epochs, because class shares may change by epoch
        planned = total_planned(run.audit).tolist()
    config, mixes = run.config, (run.samples["natural"], planned)
    balanced_by = list(balance_summary.balancers(config, *mixes))
    if run.decoupled:
        balanced_by.append(f"--method={run.decoupled['method']}")
    if balanced_by:
        yield (
            f"The classes were balanced ({', '.join(balanced_by)}), so the probabilities are "
            "those of another class mix and not of the natural prevalence. Recalibrate them "
            "before reading them as risks (`python -m trainer.export` does), and report both "
            "(TRIPOD+AI, item 13)."
        )
    warning = balance_summary.double_balancing(config, *mixes)
    if warning:
        yield warning
    if LOSSES[config.loss].changes_confidence or config.mixup_alpha > 0:
        yield (
            "Focal loss and mixup change a model's confidence at any class mix: its "
            "probabilities need recalibration too."
        )
    if LOSSES[config.loss].has_late_weights and run.best["epoch"] < config.first_drw_epoch:
        yield (
            f"The weights kept are of epoch {int(run.best['epoch'])}, before deferred re-weighting "
            f"began (epoch {config.first_drw_epoch}): this is LDAM without it. Use another "
            "--monitor, --early_stopping_patience or --drw_epoch."
        )
    if SAMPLERS[config.sampler].varies_by_epoch and run.best["epoch"] < config.epochs:
        yield (
            f"The weights kept are of epoch {int(run.best['epoch'])} of {config.epochs}: "
            f"--sampler={config.sampler} had not reached its last class mix. Use another --monitor "
            "(validation_balanced_accuracy favours balanced classes) or fewer --epochs."
        )
