"""One training step and one prediction step, the same under every strategy.

All shapes are static, and all operations exist on a TPU. One call of a `tf.function` runs many
steps, so that the host is needed once a host loop and not once a step.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from trainer.models.classifier import seed_states
from trainer.settings.learning_rate import CONSTANT, Schedule
from trainer.training import depth_rates, schedule
from trainer.training.losses import cross_entropy


def create_optimizer(
    name: str,
    learning_rate: float,
    model: keras.Model,
    rates: Schedule = CONSTANT,
    first_layer_factor: float = 1.0,
) -> keras.Optimizer:
    """Returns the optimizer with its slot variables; call it in the strategy's scope.

    The learning rate is one of its variables, so it can change between steps and is part of a
    checkpoint. Where `rates` change in each step, it is a `schedule.Scheduled`, a function of the
    optimizer's count of steps. `schedule.set_learning_rate` sets it in both cases. With
    `first_layer_factor` below 1 layers learn at rates that rise with depth, see
    `depth_rates.factors`.
    """
    kinds = {
        "adamax": keras.optimizers.Adamax,
        "adam": keras.optimizers.Adam,
        "sgd": keras.optimizers.SGD,
    }
    kind = kinds[name]
    if first_layer_factor != 1.0:
        kind = depth_rates.with_factors(kind, depth_rates.factors(model, first_layer_factor))
    rate = learning_rate if rates.is_constant else schedule.Scheduled(learning_rate, rates)
    optimizer = kind(rate, **({"momentum": 0.9} if name == "sgd" else {}))
    optimizer.build(model.trainable_variables)
    return optimizer


@dataclasses.dataclass(frozen=True)
class Totals:
    """The values of the meters when they were read.

    Attributes:
      loss: mean training loss of an example; confusion: int64 [true, predicted].
      first_bad_step: first step, counted from 1 over the whole run, whose loss was NaN or infinite.
    """

    loss: float
    confusion: np.ndarray
    first_bad_step: int | None

    @property
    def examples(self) -> int:
        return int(self.confusion.sum())

    @property
    def accuracy(self) -> float:
        return float(np.trace(self.confusion) / max(self.examples, 1))


class Meters:
    """Sums over the training steps, kept on the devices; create it in the strategy's scope."""

    def __init__(self, num_classes: int) -> None:
        sums = {
            "trainable": False,
            "synchronization": tf.VariableSynchronization.ON_READ,
            "aggregation": tf.VariableAggregation.SUM,
        }
        self._num_classes = num_classes
        # float32 counts exactly up to 2^24 and, unlike integers, has a matmul on every device.
        self._confusion = tf.Variable(tf.zeros([num_classes, num_classes]), **sums)
        self._loss = tf.Variable(0.0, **sums)
        self._bad_step = tf.Variable(
            tf.constant(0, tf.int64),
            trainable=False,
            synchronization=tf.VariableSynchronization.ON_READ,
            aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
        )

    def update(self, labels: tf.Tensor, logits: tf.Tensor, losses: tf.Tensor) -> None:
        predicted = tf.one_hot(tf.argmax(logits, axis=-1), self._num_classes)
        true = tf.one_hot(labels, self._num_classes)
        self._confusion.assign_add(tf.matmul(true, predicted, transpose_a=True))
        self._loss.assign_add(tf.reduce_sum(losses))

    def note_loss(self, loss: tf.Tensor, step: tf.Tensor) -> None:
        """Remembers the first step whose loss, a scalar equal on all replicas, is not finite."""
        bad = tf.logical_and(tf.equal(self._bad_step, 0), ~tf.math.is_finite(loss))
        self._bad_step.assign(tf.where(bad, tf.cast(step, tf.int64), self._bad_step))

    def reset(self) -> None:
        self._confusion.assign(tf.zeros_like(self._confusion))
        self._loss.assign(0.0)
        self._bad_step.assign(tf.constant(0, tf.int64))

    def state(self) -> dict[str, Any]:
        """The exact sums as JSON values, for `restore`. All workers must call it."""
        return {"loss": float(self._loss.numpy()), "confusion": self._confusion.numpy().tolist()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Sets the sums; TensorFlow divides each among the replicas, so that their sum is right."""
        self.reset()
        self._loss.assign(tf.constant(state["loss"], tf.float32))
        self._confusion.assign(tf.constant(state["confusion"], tf.float32))

    def read(self) -> Totals:
        confusion = np.rint(self._confusion.numpy()).astype(np.int64)
        return Totals(
            loss=float(self._loss.numpy()) / max(int(confusion.sum()), 1),
            confusion=confusion,
            first_bad_step=int(self._bad_step.numpy()) or None,
        )


def make_replica_step(
    model: keras.Model,
    optimizer: keras.Optimizer,
    meters: Meters,
    global_batch: int,
    loss: Callable[[tf.Tensor, tf.Tensor], tf.Tensor] = cross_entropy,
) -> Callable[..., None]:
    """Returns `replica_step(images, labels, *mixing)`: what each replica does in a training step.

    Sums over replicas (gradients, BatchNormalization's moments, the loss) go through the replica
    context's `all_reduce`, so that every strategy, and `export_step` without one, runs this.

    Args:
      global_batch: images of a step over all replicas. Each replica divides the sum of
        its losses by this, so the sum of gradients over replicas is that of the mean loss.
      loss: function of int32 [b] labels and float32 [b, classes] logits that returns the losses,
        float32 [b]; see `losses`.
    """

    def replica_step(images: tf.Tensor, labels: tf.Tensor, *mixing: tf.Tensor) -> None:
        with tf.GradientTape() as tape:
            logits = model(images, training=True)
            losses = loss(labels, logits)
            if mixing:
                partner_labels, lam = mixing
                losses = lam * losses + (1.0 - lam) * loss(partner_labels, logits)
                # The confusion matrix counts the image that weighs more.
                labels = tf.where(lam >= 0.5, labels, partner_labels)
            mean_loss = tf.reduce_sum(losses) / global_batch
        variables = model.trainable_variables
        gradients = tape.gradient(mean_loss, variables)
        optimizer.apply(gradients, variables)
        meters.update(labels, logits, losses)
        context = tf.distribute.get_replica_context()
        total = context.all_reduce(tf.distribute.ReduceOp.SUM, mean_loss)
        meters.note_loss(total, tf.convert_to_tensor(optimizer.iterations))

    return replica_step


def make_train_steps(
    strategy: tf.distribute.Strategy,
    model: keras.Model,
    optimizer: keras.Optimizer,
    meters: Meters,
    global_batch: int,
    loss: Callable[[tf.Tensor, tf.Tensor], tf.Tensor] = cross_entropy,
) -> Callable[[Iterator, tf.Tensor], None]:
    """Returns `train_steps(batches, steps)`, which trains on the next `steps` global batches.

    Args:
      global_batch, loss: see `make_replica_step`.

    Returns:
      A `tf.function`; `batches` yields distributed (uint8 [b, S, S, C], int32 [b]), and for mixed
      images also the partners' labels, int32 [b], and the weights of the first images, float32 [b].
    """
    replica_step = make_replica_step(model, optimizer, meters, global_batch, loss)

    @tf.function
    def train_steps(batches: Iterator, steps: tf.Tensor) -> None:
        for _ in tf.range(steps):
            strategy.run(replica_step, args=next(batches))

    return train_steps


def make_replica_predict(model: Callable[..., tf.Tensor]) -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns `replica_predict(images)`: each replica's logits, float32 [b, classes]."""

    def replica_predict(images: tf.Tensor) -> tf.Tensor:
        return model(images, training=False)

    return replica_predict


def make_predict_step(
    strategy: tf.distribute.Strategy, model: Callable[..., tf.Tensor]
) -> Callable[[tuple], tuple[tf.Tensor, tf.Tensor, tf.Tensor]]:
    """Returns `predict_step(batch)` for batches of (images, labels, index).

    It gives logits float32 [B, classes], labels int32 [B] and index int32 [B] of the global
    batch, in the order of the replicas; padding has index -1.
    """
    replica_predict = make_replica_predict(model)

    @tf.function
    def predict_step(batch: tuple) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        images, labels, index = batch
        logits = strategy.run(replica_predict, args=(images,))
        return (
            strategy.gather(logits, axis=0),
            strategy.gather(labels, axis=0),
            strategy.gather(index, axis=0),
        )

    return predict_step


def spread_seeds(strategy: tf.distribute.Strategy, model: keras.Model) -> None:
    """Gives each replica its own dropout seed; call it once, after creation or restoring.

    Otherwise all replicas would use the same dropout masks on their parts of the batch. A
    checkpoint holds the first replica's state, whose seed this leaves as it is.
    """
    states = seed_states(model)
    if strategy.num_replicas_in_sync == 1 or not states:
        return

    @tf.function
    def spread() -> None:
        def replica() -> None:
            number = tf.distribute.get_replica_context().replica_id_in_sync_group
            for state in states:
                offset = tf.cast(tf.stack([number, 0]), state.dtype)
                state.assign_add(offset)

        strategy.run(replica)

    spread()
