"""The learning rate on the device: warmed up step by step, set by the host between loops."""

from __future__ import annotations

import keras
import tensorflow as tf


class WarmUp(keras.optimizers.schedules.LearningRateSchedule):
    """The rate that the host sets, times min(1, (steps done + 1) / `steps`).

    Worked out on the device in every step, so a host loop of many steps warms up as single steps
    do; and from the optimizer's own count of steps, so a resumed run goes on with the same.
    """

    def __init__(self, rate: float, steps: int) -> None:
        """Call it in the strategy's scope."""
        self.rate = tf.Variable(rate, trainable=False, dtype=tf.float32)
        self._steps = steps

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        return self.rate * tf.minimum(1.0, (tf.cast(step, tf.float32) + 1.0) / self._steps)


def set_learning_rate(optimizer: keras.Optimizer, rate: float) -> None:
    """Sets the rate of the coming steps, or what they warm up to."""
    schedule = getattr(optimizer, "_learning_rate", None)
    if isinstance(schedule, WarmUp):
        schedule.rate.assign(rate)
    else:
        optimizer.learning_rate = rate
