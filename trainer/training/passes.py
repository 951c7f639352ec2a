"""Passes over a split: training batches, predictions, moments of BatchNormalization."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from tqdm import tqdm

from trainer.balancing.mixup import Mixing
from trainer.balancing.samplers import EpochPlan
from trainer.distribution import lost_workers
from trainer.evaluation.predictions import Predictions, collect, labels_in_order
from trainer.input.split_batches import distributed_evaluation, distributed_training
from trainer.models import batch_norm
from trainer.training.learner import Trainer


def training_batches(
    trainer: Trainer, plan: EpochPlan, mixing: Mixing | None = None, start_step: int = 0
) -> Iterator:
    """Distributed batches (images, labels) of an epoch plan, in its order, from `start_step` on;
    with `mixing` also (partners' labels, weights), see `SplitSource.training`."""
    return distributed_training(
        trainer.sources["train"],
        trainer.strategy,
        plan,
        start_step=start_step,
        mixing=mixing,
        servers=trainer.services.addresses,
    )


def predict_split(
    trainer: Trainer,
    split: str,
    *,
    with_ids: bool = True,
    after_batch: Callable[[], None] = lambda: None,
) -> Predictions:
    """Predictions of the current weights on every example of a split, each exactly once.

    Args:
      with_ids: False leaves out ids and groups, which validation between epochs does not need.
      after_batch: called when the predictions of a batch have been computed.
    """

    def predict_batches() -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        batches = distributed_evaluation(
            source, trainer.strategy, batch_size=trainer.config.batch_size
        )
        # disable=None: no bar where the output is not a terminal (a file, a pipe).
        title = f"predict {split}"
        with tqdm(total=sum(counts), desc=title, unit="image", leave=False, disable=None) as bar:
            for batch in batches:
                logits, labels, index = trainer.predict_step(batch)
                lost_workers.beat(f"a batch of {split}")
                after_batch()
                bar.update(len(labels))
                yield logits.numpy(), labels.numpy(), index.numpy()

    source, counts = trainer.sources[split], trainer.data.counts[split]
    logits = collect(predict_batches(), counts)
    ids = source.ids() if with_ids else [""] * len(logits)
    return Predictions(ids, labels_in_order(counts), logits, source.groups() if with_ids else [])


def estimate_moments(trainer: Trainer, epoch: int) -> None:
    """Makes BatchNormalization's moving statistics ready for an evaluation or a checkpoint: equal
    on all replicas and, with `--batch_norm=adapt*`, estimated on training images.

    `adapt` uses mixed images if training does, because the weights were trained on such images.

    Args:
      epoch: the epoch just trained, counted from 0.
    """
    learner = trainer.learner
    if not trainer.config.sync_batch_norm:
        batch_norm.average_statistics(trainer.strategy, learner.model)
    if learner.moments is not None and learner.moments.layers:
        plan, mixing = trainer.planner.moments(epoch)
        learner.moments.estimate(training_batches(trainer, plan, mixing), plan.steps)
