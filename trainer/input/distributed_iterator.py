"""Iterators that close at once, because nothing tunes them.

tf.data tunes each of its iterators in a thread, which rests for 10, 20, 40, … ms between two looks,
up to a minute; to close an iterator can mean to wait for the end of its rest (TensorFlow 2.21). An
iterator here lives for an epoch, or an evaluation: with tuning these took up to twice their time.
Untuned, a map has as many calls at once as there are processors, at most 16.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from unittest import mock

import tensorflow as tf
from tensorflow.python.data.ops import multi_device_iterator_ops


def untuned(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """The same data set, whose iterators are not tuned."""
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)


def distribute(
    strategy: tf.distribute.Strategy,
    of_host: Callable[[tf.distribute.InputContext], tf.data.Dataset],
) -> Iterator:
    """`iter(strategy.distribute_datasets_from_function(of_host))`, `of_host` giving untuned ones.

    On several devices TensorFlow hands batches over through a data set of its own on each of them.
    It has no way to give options to these, hence the patch.
    """
    create = multi_device_iterator_ops._create_device_dataset

    def create_untuned(*args, **settings) -> tf.data.Dataset:
        return untuned(create(*args, **settings))

    with mock.patch.object(multi_device_iterator_ops, "_create_device_dataset", create_untuned):
        return iter(strategy.distribute_datasets_from_function(of_host))
