"""The learning rate on the device: set by the host between epochs, multiplied in each step."""

from __future__ import annotations

import keras
import tensorflow as tf

from trainer.settings.learning_rate import Schedule


class Scheduled(keras.optimizers.schedules.LearningRateSchedule):
    """The rate that the host sets, times the schedule's factor of the step.

    The device computes it in every step, so it also changes within a host loop of many steps. It
    depends on the optimizer's count of steps, so a resumed run continues the same schedule.
    """

    def __init__(self, rate: float, schedule: Schedule) -> None:
        """Call it in the strategy's scope."""
        self.rate = tf.Variable(rate, trainable=False, dtype=tf.float32)
        self._schedule = schedule

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        return self.rate * self._schedule.factor(tf.cast(step, tf.float32), tf)


def set_learning_rate(optimizer: keras.Optimizer, rate: float) -> None:
    """Sets the learning rate of the next steps, before the schedule's factor."""
    scheduled = getattr(optimizer, "_learning_rate", None)
    if isinstance(scheduled, Scheduled):
        scheduled.rate.assign(rate)
    else:
        optimizer.learning_rate = rate
