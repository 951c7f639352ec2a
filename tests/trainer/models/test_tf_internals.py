"""Private parts of TensorFlow and Keras: used where they are as expected, else left alone."""

import os
import tempfile

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.autograph.pyct import loader
from tensorflow.python.data.ops import multi_device_iterator_ops

from cxr_tfrecords.concurrency import temporary
from trainer.models import tf_internals


@pytest.fixture
def warnings(monkeypatch):
    given = []
    monkeypatch.setattr(
        tf_internals.logging, "log_first_n", lambda level, text, n, *words: given.append(text)
    )
    return given


def _layer():
    layer = keras.layers.BatchNormalization()
    layer.build((None, 4))
    return layer


def test_moments_of_a_batch_are_replaced(warnings):
    layer = _layer()

    def moments(axes, inputs):
        assert list(axes) == [0]
        return tf.zeros(4), tf.ones(4)

    assert tf_internals.replace_batch_moments(layer, moments)
    images = np.arange(8, dtype=np.float32).reshape(2, 4)
    np.testing.assert_allclose(layer(images, training=True), images, rtol=1e-3)
    assert not warnings


def test_a_keras_of_another_form_keeps_its_own_moments_with_a_warning(warnings):
    layer = _layer()
    expected = layer(np.eye(4, dtype=np.float32), training=True)
    layer._moments = lambda inputs: None
    assert not tf_internals.replace_batch_moments(layer, lambda *_: None)
    (text,) = warnings
    assert "three sums a layer" in text
    assert keras.__version__ in text
    np.testing.assert_allclose(_layer()(np.eye(4, dtype=np.float32), training=True), expected)


def test_device_datasets_are_changed_within_the_context_only(warnings):
    create = multi_device_iterator_ops._create_device_dataset
    with tf_internals.changed_device_datasets(lambda dataset: dataset):
        assert multi_device_iterator_ops._create_device_dataset is not create
    assert multi_device_iterator_ops._create_device_dataset is create
    with pytest.raises(KeyError), tf_internals.changed_device_datasets(lambda dataset: dataset):
        raise KeyError
    assert multi_device_iterator_ops._create_device_dataset is create
    assert not warnings


def test_a_tensorflow_without_device_datasets_is_left_as_it_is(warnings, monkeypatch):
    monkeypatch.delattr(multi_device_iterator_ops, "_create_device_dataset")
    with tf_internals.changed_device_datasets(lambda dataset: dataset):
        assert not hasattr(multi_device_iterator_ops, "_create_device_dataset")
    (text,) = warnings
    assert "may take longer to end" in text


def test_graphs_of_loops_and_branches_are_found():
    @tf.function(autograph=True)
    def count(limit):
        total = 0
        for _ in tf.range(limit):
            total = total + 1
        return total

    graphs = tf_internals.called_graphs(count.get_concrete_function(tf.constant(3)))
    assert len(graphs) > 1
    assert "AddV2" in {op.type for graph in graphs[1:] for op in graph.get_operations()}


def test_code_that_tensorflow_generates_is_in_a_folder_that_a_later_command_removes(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(loader, "tempfile", tempfile)
    tf_internals.own_generated_code()
    tf_internals.own_generated_code()  # a second time it makes no folder

    @tf.function
    def halved(number):
        while number > 1.0:
            number /= 2.0
        return number

    assert halved(tf.constant(6.0)) == 0.75
    (folder,) = tmp_path.iterdir()
    assert any(name.endswith(".py") for name in os.listdir(folder / "files"))
    temporary.remove_abandoned()
    assert folder.exists(), "its process still runs"
