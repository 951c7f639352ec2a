"""Everything that a run makes once, put together: data, model, steps, checkpoints."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from cxr_tfrecords.dataset_dir import DatasetDir
from trainer.balancing import mixup, samplers
from trainer.balancing.loss_table import LOSSES
from trainer.balancing.sampler_table import SAMPLERS
from trainer.distribution import lost_workers, strategies
from trainer.epochs import plan as planning
from trainer.epochs.audit import SamplerAudit
from trainer.evaluation import predictions as evaluation
from trainer.input import decode_service, distributed_iterator, split_batches
from trainer.models import batch_norm
from trainer.models.classifier import create_model, head_model
from trainer.runs import checkpoints, run_files
from trainer.settings.config import TrainConfig
from trainer.training import feature_cache, losses, steps


@dataclasses.dataclass(frozen=True)
class Trainer:
    """Everything that is made once in a run: the model, its steps, its checkpoints."""

    config: TrainConfig
    data: DatasetDir
    strategy: tf.distribute.Strategy
    model: keras.Model
    optimizer: keras.Optimizer
    meters: steps.Meters
    loss: losses.TrainingLoss
    train_steps: Any
    predict_step: Any
    moments: batch_norm.MomentEstimator | None
    moments_plan: samplers.EpochPlan
    sources: dict[str, split_batches.SplitSource]
    services: decode_service.Services
    checkpoints: checkpoints.Checkpoints
    chief: bool


@dataclasses.dataclass(frozen=True)
class Learner:
    """What the steps read and write on the devices."""

    model: keras.Model
    optimizer: keras.Optimizer
    meters: steps.Meters
    loss: losses.TrainingLoss
    moments: batch_norm.MomentEstimator | None


def create_learner(
    config: TrainConfig, data: DatasetDir, strategy: tf.distribute.Strategy, num_replicas: int
) -> Learner:
    """Builds them in the strategy's scope, for steps that run on `num_replicas` replicas.

    Raises:
      UserError: weights or layer names do not fit.
    """
    with strategy.scope():
        model = _create_model(config, data)
        batch_norm.apply_policy(
            model, config.batch_norm, num_replicas, synchronized=config.sync_batch_norm
        )
        optimizer = steps.create_optimizer(
            config.optimizer, config.scaled_learning_rate, model, config.warmup_steps
        )
        meters = steps.Meters(data.num_classes)
        loss = losses.TrainingLoss(config, data.counts["train"], data.class_names)
    adapt = config.batch_norm.startswith("adapt")
    moments = batch_norm.MomentEstimator(strategy, model) if adapt else None
    return Learner(model, optimizer, meters, loss, moments)


def create_trainer(
    config: TrainConfig, data: DatasetDir, strategy: tf.distribute.Strategy
) -> Trainer:
    """Builds model, optimizer and steps.

    Raises:
      UserError: batch size, weights or layer names do not fit.
    """
    strategies.check_batch_size(config.batch_size, strategy)
    services = decode_service.connect(config.data_service)
    learner = create_learner(config, data, strategy, strategy.num_replicas_in_sync)
    cached = feature_cache.wanted(config, data, learner.model)
    sources = feature_cache.open_sources(config, data, strategy, learner.model if cached else None)
    # Of a frozen backbone, whose outputs are there, steps and checkpoints never see anything.
    model = head_model(learner.model) if cached else learner.model
    optimizer = learner.optimizer
    return Trainer(
        config=config,
        data=data,
        strategy=strategy,
        model=learner.model,
        optimizer=optimizer,
        meters=learner.meters,
        loss=learner.loss,
        train_steps=steps.make_train_steps(
            strategy, model, optimizer, learner.meters, config.batch_size, learner.loss
        ),
        predict_step=steps.make_predict_step(strategy, model),
        moments=learner.moments,
        moments_plan=plan_moments(config, data),
        sources=sources,
        services=services,
        checkpoints=checkpoints.Checkpoints(
            os.path.join(config.run_dir, run_files.CHECKPOINTS),
            model,
            optimizer,
            config.keep_checkpoints,
        ),
        chief=strategies.is_chief(strategy),
    )


def _create_model(config: TrainConfig, data: DatasetDir) -> keras.Model:
    return create_model(
        config.backbone,
        image_size=data.image_size,
        channels=data.channels,
        num_classes=data.num_classes,
        weights=config.weights,
        trainable=config.trainable,
        head_units=config.head_units,
        dropout=config.dropout,
        mixed_precision=config.mixed_precision,
        seed=config.seed,
        cosine_scale=config.ldam_scale if LOSSES[config.loss].has_cosines else None,
    )


def predict(
    trainer: Trainer,
    split: str,
    *,
    with_ids: bool = True,
    after_batch: Callable[[], None] = lambda: None,
) -> evaluation.Predictions:
    """Predictions of the current weights on every example of a split, each exactly once."""

    def predict_batch(batch: tuple) -> tuple:
        outputs = trainer.predict_step(batch)
        lost_workers.beat(f"a batch of {split}")
        after_batch()
        return outputs

    source = trainer.sources[split]
    ids, groups = (source.ids(), source.groups()) if with_ids else (None, None)
    batches = evaluation_batches(trainer, split)
    counts = trainer.data.counts[split]
    return evaluation.predict(predict_batch, batches, counts, ids, groups)


def plan_epoch(config: TrainConfig, data: DatasetDir, epoch: int) -> samplers.EpochPlan:
    """The records of an epoch (from 0), in order: a function of config and metadata alone.

    Raises:
      UserError: it has no full batch, or its sampler lacks a class.
    """
    return planning.plan_epoch(config, data.class_names, data.counts["train"], epoch)


def plan_mixing(
    config: TrainConfig, data: DatasetDir, plan: samplers.EpochPlan, epoch: int
) -> mixup.Mixing | None:
    """What is mixed into the plan of an epoch (from 0): as `plan_epoch`, a pure function. None
    without mixup."""
    if config.mixup_alpha == 0:
        return None
    return mixup.draw_partners(
        config.mixup,
        config.mixup_alpha,
        plan,
        data.counts["train"],
        seed=config.seed,
        epoch=epoch,
        flip=config.flip,
    )


def plan_moments(config: TrainConfig, data: DatasetDir, epoch: int = 0) -> samplers.EpochPlan:
    """Whole batches of about `bn_examples` images: the first of the training stream's, or of an
    epoch at natural prevalence. The same in all epochs, unless the class mix moves with them: then
    of the epoch (from 0) just trained."""
    if config.batch_norm == "adapt_natural":
        config = dataclasses.replace(
            config,
            sampler="none",
            target_distribution=(),
            balance_power=None,
            sampling_strategy="auto",
            resample_each_epoch=False,
        )
    plan = plan_epoch(config, data, epoch if SAMPLERS[config.sampler].varies_by_epoch else 0)
    examples = slice(-(-config.bn_examples // plan.batch_size) * plan.batch_size)
    return plan.take(examples)


def count_samples(config: TrainConfig, data: DatasetDir) -> dict[str, list[int]]:
    """Training examples of each class: natural, planned, and in the first epoch as drawn."""
    natural = data.counts["train"]
    plan = plan_epoch(config, data, epoch=0)
    classes = range(data.num_classes)
    planned = planning.planned_counts(config, data.class_names, natural, epoch=0)
    return {
        "natural": list(natural),
        "planned": [int(n) for n in planned],
        "realised": [int((plan.labels == c).sum()) for c in classes],
        "unique": [len(np.unique(plan.ordinals[plan.labels == c])) for c in classes],
    }


def create_audit(trainer: Trainer) -> SamplerAudit:
    """An audit of the run's epochs, which knows whether they are read from shards."""
    streamed = trainer.sources["train"].streamed
    # Each host's stream is read by each of the servers.
    readers = strategies.num_hosts(trainer.strategy) * max(1, len(trainer.services.addresses))
    return SamplerAudit(
        trainer.config,
        trainer.data.class_names,
        trainer.data.counts["train"],
        streaming_hosts=readers if streamed else 0,
    )


def training_batches(
    trainer: Trainer,
    plan: samplers.EpochPlan,
    mixing: mixup.Mixing | None = None,
    start_step: int = 0,
) -> Iterator:
    """Distributed (images, labels) of the plan's steps from `start_step` on, in its order; more
    with `mixing`."""

    def of_host(context: tf.distribute.InputContext) -> tf.data.Dataset:
        return trainer.sources["train"].training(
            plan,
            batch_size=plan.batch_size,
            start_step=start_step,
            context=context,
            mixing=mixing,
            servers=trainer.services.addresses,
        )

    return distributed_iterator.distribute(trainer.strategy, of_host)


def evaluation_batches(trainer: Trainer, split: str) -> Iterator:
    """Distributed (images, labels, weights, index) of a split, the last batch padded."""
    source, batch_size = trainer.sources[split], trainer.config.batch_size
    return feature_cache.distributed_evaluation(trainer.strategy, source, batch_size)


def estimate_moments(trainer: Trainer, epoch: int) -> None:
    """Makes the moving statistics ready for an evaluation or a checkpoint: the same on all
    replicas and, with `--batch_norm=adapt*`, those of training images.

    `adapt` takes them mixed if training does: the weights were fitted to features of such.

    Args:
      epoch: the one just trained, from 0.
    """
    if not trainer.config.sync_batch_norm:
        batch_norm.average_statistics(trainer.strategy, trainer.model)
    if trainer.moments is not None and trainer.moments.layers:
        config, plan = trainer.config, trainer.moments_plan
        if SAMPLERS[config.sampler].varies_by_epoch:
            plan = plan_moments(config, trainer.data, epoch)
        natural = config.batch_norm == "adapt_natural"
        mixing = None if natural else plan_mixing(config, trainer.data, plan, epoch=0)
        trainer.moments.estimate(training_batches(trainer, plan, mixing), plan.steps)
