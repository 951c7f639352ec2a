"""The objects that a run trains with: learner, steps, data, checkpoints; each is made once."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from cxr_tfrecords.dataset_dir import DatasetDir
from cxr_tfrecords.errors import UserError, first_line
from trainer.balancing.loss_table import LOSSES
from trainer.distribution import strategies
from trainer.epochs.plan import EpochPlanner
from trainer.input.decode_service import Services, connect
from trainer.input.split_batches import SplitSource
from trainer.models import batch_norm
from trainer.models.classifier import create_model, features_model, head_model
from trainer.runs import initial_run, run_directory, run_files
from trainer.runs.checkpoints import Checkpoints
from trainer.settings.config import TrainConfig
from trainer.training import feature_cache, losses, steps


@dataclasses.dataclass(frozen=True)
class Learner:
    """What the steps read and write on the devices."""

    model: keras.Model
    optimizer: keras.Optimizer
    meters: steps.Meters
    loss: losses.TrainingLoss
    moments: batch_norm.MomentEstimator | None


@dataclasses.dataclass(frozen=True)
class Trainer:
    """A learner together with its data, its compiled steps and its checkpoints.

    Attributes:
      sources: split -> its images, or the features that replace them.
      services: servers that decode the training images; without any, this process decodes them.
      train_steps, predict_step: see `steps.make_train_steps` and `steps.make_predict_step`.
    """

    config: TrainConfig
    data: DatasetDir
    strategy: tf.distribute.Strategy
    learner: Learner
    sources: dict[str, SplitSource]
    services: Services
    train_steps: Any
    predict_step: Any
    checkpoints: Checkpoints

    @property
    def is_chief(self) -> bool:
        """Whether this process writes the run's files."""
        return strategies.is_chief(self.strategy)

    @property
    def planner(self) -> EpochPlanner:
        return create_planner(self.config, self.data)


def create_planner(config: TrainConfig, data: DatasetDir) -> EpochPlanner:
    """The planner of a run on the training split."""
    return EpochPlanner(config, data.class_names, data.counts["train"])


def create_trainer(
    config: TrainConfig, data: DatasetDir, strategy: tf.distribute.Strategy
) -> Trainer:
    """Connects the services, builds the learner, opens the splits, builds the steps.

    Raises:
      UserError: batch size, weights file or layer names do not fit; a shard is damaged.
    """
    strategies.check_batch_size(config.batch_size, strategy)
    services = connect(config.data_service)
    learner = create_learner(config, data, strategy, strategy.num_replicas_in_sync)
    uses_features = feature_cache.wanted(config, data, learner.model)
    sources = feature_cache.open_sources(
        config, data, strategy, learner.model if uses_features else None
    )
    # Features are the outputs of the frozen backbone: with them, steps and checkpoints only need
    # the layers after it.
    model = head_model(learner.model) if uses_features else learner.model
    return Trainer(
        config=config,
        data=data,
        strategy=strategy,
        learner=learner,
        sources=sources,
        services=services,
        train_steps=steps.make_train_steps(
            strategy, model, learner.optimizer, learner.meters, config.batch_size, learner.loss
        ),
        predict_step=steps.make_predict_step(strategy, model),
        checkpoints=Checkpoints(
            os.path.join(config.run_dir, run_files.CHECKPOINTS),
            model,
            learner.optimizer,
            config.keep_checkpoints,
        ),
    )


def create_learner(
    config: TrainConfig, data: DatasetDir, strategy: tf.distribute.Strategy, num_replicas: int
) -> Learner:
    """Builds a learner in the strategy's scope, for steps that run on `num_replicas` replicas.

    Raises:
      UserError: weights file or layer names do not fit.
    """
    with strategy.scope():
        model = create_network(config, data)
        batch_norm.apply_policy(
            model, config.batch_norm, num_replicas, synchronized=config.sync_batch_norm
        )
        optimizer = steps.create_optimizer(
            config.optimizer,
            config.scaled_learning_rate,
            model,
            create_planner(config, data).learning_rates,
            config.first_layer_lr_factor,
        )
        meters = steps.Meters(data.num_classes)
        loss = losses.TrainingLoss(config, data.counts["train"], data.class_names)
    adapt = config.batch_norm.startswith("adapt")
    moments = batch_norm.MomentEstimator(strategy, model) if adapt else None
    return Learner(model, optimizer, meters, loss, moments)


def create_network(config: TrainConfig, data: DatasetDir) -> keras.Model:
    """A run's model with its initial weights.

    Raises:
      UserError: weights file, layer names or `init_from` do not fit, or the images are too small.
    """
    model = create_model(
        config.backbone,
        image_size=data.image_size,
        network_size=config.image_size,
        channels=data.channels,
        num_classes=data.num_classes,
        weights=config.weights,
        trainable=config.trainable,
        head_units=config.head_units,
        rnn_units=config.used_rnn_units,
        dropout=config.dropout,
        mixed_precision=config.mixed_precision,
        seed=config.seed,
        cosine_scale=config.ldam_scale if LOSSES[config.loss].has_cosines else None,
    )
    if config.init_from:
        _take_over(model, config, data.class_names)
    return model


def _take_over(model: keras.Model, config: TrainConfig, class_names: Sequence[str]) -> None:
    """Sets the weights of the backbone, and of the head if it fits, to those of `init_from`."""
    run = initial_run.read_source(config)
    source = run_directory.load_model(config.init_from, len(run.class_names))
    parts = [features_model]
    if initial_run.keeps_head(config, class_names, run):
        parts.append(head_model)
    try:
        for part in parts:
            part(model).set_weights(part(source).get_weights())
    except ValueError as error:  # a network of another version, with the same name
        raise UserError(
            f"--init_from={config.init_from} does not fit ({first_line(error, 160)}): name a run "
            "of this version"
        ) from error
