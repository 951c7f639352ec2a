"""Epoch plans of a training run, from its settings and its data set's class counts alone.

TensorFlow is not imported: a preview is as quick as its plans.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cxr_tfrecords.splits import apportion
from trainer.balancing import sampler_options, samplers
from trainer.balancing.class_shares import Sampling
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
    # The sampler's epochs may be shorter than the run's, and then there are more of them.
    sampling = _sampling(config, class_names, counts, max(config.epochs, epoch + 1))
    return samplers.draw_epoch(
        sampling,
        counts,
        batch_size=config.batch_size,
        seed=config.seed,
        epoch=epoch,
        flip=config.flip,
    )


def planned_counts(
    config: TrainConfig, class_names: Sequence[str], counts: Sequence[int], epoch: int
) -> np.ndarray:
    """int64 [classes], what `plan_epoch` aims at before the last, partial batch is left out.

    Raises:
      UserError: as `plan_epoch`.
    """
    sampling = _sampling(config, class_names, counts, config.epochs)
    counted = samplers.expected_counts(sampling, counts, epoch)
    if config.steps_per_epoch:
        images = config.steps_per_epoch * config.batch_size
        return apportion(counted / counted.sum() * images, images)
    return counted


def _sampling(
    config: TrainConfig, class_names: Sequence[str], counts: Sequence[int], epochs: int
) -> Sampling:
    return Sampling(
        config.sampler,
        target=sampler_options.resolve_distribution(
            config.target_distribution, config.balance_power, class_names, counts
        ),
        sampling_strategy=sampler_options.resolve_sampling_strategy(
            config.sampling_strategy, class_names
        ),
        epochs=epochs,
        resample_each_epoch=config.resample_each_epoch,
        class_names=class_names,
    )
