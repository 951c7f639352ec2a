"""Epoch plans of a training run, from its settings and its data set's class counts alone.

TensorFlow is not imported: a preview is as quick as its plans.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trainer import sampler_settings, samplers, sampling_shares
from trainer.config import TrainConfig


def plan_epoch(
    config: TrainConfig, class_names: Sequence[str], counts: Sequence[int], epoch: int
) -> samplers.EpochPlan:
    """The records of an epoch (from 0), in order.

    Args:
      class_names, counts: of the training split, in label order.

    Raises:
      UserError: it has no full batch, its sampler lacks a class, or a setting does not fit.
    """
    return samplers.plan_epoch(
        config.sampler,
        counts,
        batch_size=config.batch_size,
        seed=config.seed,
        epoch=epoch,
        flip=config.flip,
        target=_target(config, class_names, counts),
        strategy=sampler_settings.wanted_counts(config.sampling_strategy, class_names),
        epochs=config.epochs,
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
    return sampling_shares.expected_counts(
        config.sampler,
        counts,
        _target(config, class_names, counts),
        class_names,
        strategy=sampler_settings.wanted_counts(config.sampling_strategy, class_names),
        epoch=epoch,
        epochs=config.epochs,
    )


def _target(
    config: TrainConfig, class_names: Sequence[str], counts: Sequence[int]
) -> tuple[float, ...] | None:
    return sampler_settings.target_shares(
        config.target_distribution, config.balance_power, class_names, counts
    )
