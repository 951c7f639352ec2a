"""Epoch plans of a training run, from its settings and its data set's class counts alone.

TensorFlow is not imported: a preview is as quick as its plans.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trainer.balancing import class_shares, sampler_options, samplers
from trainer.settings.config import TrainConfig


def plan_epoch(
    config: TrainConfig, class_names: Sequence[str], counts: Sequence[int], epoch: int
) -> samplers.EpochPlan:
    """The records of an epoch (from 0), in order.

    With `steps_per_epoch` the sampler's own epochs follow each other without end, and an epoch of
    the run is the next so many steps of them.

    Args:
      class_names, counts: of the training split, in label order.

    Raises:
      UserError: it has no full batch, its sampler lacks a class, or a setting does not fit.
    """
    if not config.steps_per_epoch:
        return _sampler_epoch(config, class_names, counts, epoch)
    first = epoch * config.steps_per_epoch
    parts: list[samplers.EpochPlan] = []
    wanted = config.steps_per_epoch
    own = _sampler_epoch(config, class_names, counts, 0).steps  # the same in every epoch
    while wanted:
        number, start = divmod(first + config.steps_per_epoch - wanted, own)
        part = _sampler_epoch(config, class_names, counts, number)
        parts.append(part.part(start, wanted))
        wanted -= parts[-1].steps
    return samplers.join_plans(parts)


def _sampler_epoch(
    config: TrainConfig, class_names: Sequence[str], counts: Sequence[int], epoch: int
) -> samplers.EpochPlan:
    return samplers.plan_epoch(
        config.sampler,
        counts,
        batch_size=config.batch_size,
        seed=config.seed,
        epoch=epoch,
        flip=config.flip,
        target=_target(config, class_names, counts),
        strategy=sampler_options.wanted_counts(config.sampling_strategy, class_names),
        epochs=max(config.epochs, epoch + 1),  # epochs of the sampler may be shorter than the run's
        resample_each_epoch=config.resample_each_epoch,
        class_names=class_names,
    )


def planned_counts(
    config: TrainConfig, class_names: Sequence[str], counts: Sequence[int], epoch: int
) -> np.ndarray:
    """int64 [classes], what `plan_epoch` aims at before the last, partial batch is left out.

    Raises:
      UserError: as `plan_epoch`.
    """
    counted = class_shares.expected_counts(
        config.sampler,
        counts,
        _target(config, class_names, counts),
        class_names,
        strategy=sampler_options.wanted_counts(config.sampling_strategy, class_names),
        epoch=epoch,
        epochs=config.epochs,
    )
    if config.steps_per_epoch:
        images = config.steps_per_epoch * config.batch_size
        return class_shares.apportion(counted / counted.sum(), images)
    return counted


def _target(
    config: TrainConfig, class_names: Sequence[str], counts: Sequence[int]
) -> tuple[float, ...] | None:
    return sampler_options.target_shares(
        config.target_distribution, config.balance_power, class_names, counts
    )
