"""Trains only an output layer, on features in memory, with a sampler's epochs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from cxr_tfrecords.dataset_dir import DatasetDir
from cxr_tfrecords.errors import UserError
from trainer.evaluation.predictions import Predictions, compute_metrics
from trainer.input.distributed_iterator import untuned
from trainer.runs.progress import history_row
from trainer.settings.config import TrainConfig
from trainer.training import steps
from trainer.training.learner import create_planner

MONITOR = "validation_balanced_accuracy"


def train(
    features: np.ndarray,
    validation: tuple[np.ndarray, np.ndarray],
    config: TrainConfig,
    data: DatasetDir,
) -> tuple[np.ndarray, np.ndarray, list[dict[str, Any]]]:
    """Trains a dense layer from random weights; equal arguments give equal results.

    Args:
      features: float32 [n, features] of the training split, in canonical order.
      validation: float32 [m, features] and int32 [m] labels.
      config: its sampler, optimizer, learning rate, batch size, epochs and seed are used.
      data: class names and counts of the training split are used.

    Returns:
      kernel float32 [features, classes] and bias float32 [classes] after the epoch with the best
      validation balanced accuracy, and the history of all epochs.

    Raises:
      UserError: the loss became NaN or infinite.
    """
    keras.utils.set_random_seed(config.seed)
    head = keras.Sequential([keras.Input(features.shape[1:]), keras.layers.Dense(data.num_classes)])
    optimizer = steps.create_optimizer(config.optimizer, config.learning_rate, head)
    meters = steps.Meters(data.num_classes)
    train_steps = steps.make_train_steps(
        tf.distribute.get_strategy(), head, optimizer, meters, config.batch_size
    )
    table = tf.constant(features)
    history: list[dict[str, Any]] = []
    best, weights = -1.0, head.get_weights()
    for epoch in range(config.epochs):
        started = time.monotonic()
        meters.reset()
        _train_epoch(train_steps, table, config, data, epoch)
        totals = meters.read()
        if totals.first_bad_step is not None:
            raise UserError(
                f"the loss became NaN or infinite at step {totals.first_bad_step}: try a lower "
                f"--learning_rate than {config.learning_rate:g}"
            )
        metrics = _score(head, *validation, data.class_names)
        seconds = time.monotonic() - started
        row = history_row(
            epoch=epoch + 1,
            step=int(optimizer.iterations),
            learning_rate=config.learning_rate,
            loss=totals.loss,
            accuracy=totals.accuracy,
            validation=metrics,
            seconds=seconds,
            images_per_second=totals.examples / seconds,
        )
        history.append(row)
        print(_describe_row(row, config.epochs), flush=True)
        if row[MONITOR] > best:
            best, weights = row[MONITOR], head.get_weights()
    return *weights, history


def _describe_row(row: dict[str, Any], epochs: int) -> str:
    return (
        f"epoch {row['epoch']:2d}/{epochs}: loss {row['loss']:.4f} | validation balanced accuracy "
        f"{row[MONITOR]:.3f}"
    )


def _train_epoch(
    train_steps: Any, table: tf.Tensor, config: TrainConfig, data: DatasetDir, epoch: int
) -> None:
    """Trains on the samples of an epoch (counted from 0)."""
    plan = create_planner(config, data).plan(epoch)
    counts = np.asarray(data.counts["train"])
    rows = (np.cumsum(counts) - counts)[plan.labels] + plan.ordinals
    shape = (plan.steps, plan.batch_size)
    slots = tf.data.Dataset.from_tensor_slices((rows.reshape(shape), plan.labels.reshape(shape)))
    batches = slots.map(lambda row, labels: (tf.gather(table, row), labels))
    train_steps(iter(untuned(batches)), tf.constant(plan.steps))


def _score(
    head: keras.Model, features: np.ndarray, labels: np.ndarray, class_names: Sequence[str]
) -> dict[str, Any]:
    logits = np.asarray(head(features))
    predictions = Predictions([""] * len(labels), labels, logits)
    return compute_metrics(predictions, class_names)
