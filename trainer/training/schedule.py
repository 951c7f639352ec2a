"""The learning rate on the device: set by the host between host loops, warmed up in each step."""

from __future__ import annotations

import keras
import tensorflow as tf


class WarmUp(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warm-up: the rate that the host sets, times min(1, (steps done + 1) / `steps`).

    The device computes it in every step, so it also rises within a host loop of many steps. It
    depends on the optimizer's count of steps, so a resumed run continues the same warm-up.
    """

    def __init__(self, rate: float, steps: int) -> None:
        """Call it in the strategy's scope."""
        self.rate = tf.Variable(rate, trainable=False, dtype=tf.float32)
        self._steps = steps

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        return self.rate * tf.minimum(1.0, (tf.cast(step, tf.float32) + 1.0) / self._steps)


def set_learning_rate(optimizer: keras.Optimizer, rate: float) -> None:
    """Sets the learning rate of the next steps; during warm-up, the rate that they rise to."""
    schedule = getattr(optimizer, "_learning_rate", None)
    if isinstance(schedule, WarmUp):
        schedule.rate.assign(rate)
    else:
        optimizer.learning_rate = rate
