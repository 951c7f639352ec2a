"""Iterators without tf.data's autotuning, which therefore close at once.

Autotuning runs in a thread of each iterator, which sleeps for 10, 20, 40, … ms between two
adjustments, up to a minute. Closing an iterator can mean waiting until that thread wakes up
(TensorFlow 2.21). The iterators here live for an epoch or an evaluation: with autotuning, these
took up to twice as long. Without it, a map runs as many calls at once as there are processors, at
most 16.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import tensorflow as tf

from trainer.models.tf_internals import changed_device_datasets


def untuned(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """The same data set, without autotuning."""
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)


def distribute(
    strategy: tf.distribute.Strategy,
    of_host: Callable[[tf.distribute.InputContext], tf.data.Dataset],
) -> Iterator:
    """`iter(strategy.distribute_datasets_from_function(of_host))`, without autotuning.

    Args:
      of_host: gives a host's data set, to which `untuned` was applied.
    """
    with changed_device_datasets(untuned):
        return iter(strategy.distribute_datasets_from_function(of_host))
