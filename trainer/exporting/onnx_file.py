"""Writes a model as an ONNX file, with what tf2onnx needs for all backbones."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf


def write(model: keras.Model, path: str) -> None:
    """Writes a model of uint8 images; its statistics of Normalization layers become constants."""
    _freeze_normalization(model)
    _teach_erfc()
    with _without_inner_functions():
        # With Keras' corrections of tf2onnx for NumPy 2.
        model.export(path, format="onnx", verbose=False)


def _freeze_normalization(model: keras.Model) -> None:
    """As tensors, tf2onnx would turn them into further inputs of the file without a word."""
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.Normalization):
            layer.mean, layer.variance = np.asarray(layer.mean), np.asarray(layer.variance)


def _teach_erfc() -> None:
    """GELU is computed with Erfc, which neither tf2onnx nor ONNX has: 1 - Erf is the same but for
    the last bit of 1."""
    from tf2onnx.handler import tf_op

    @tf_op("Erfc")
    class _Erfc:
        @classmethod
        def version_9(cls, context: Any, node: Any, **_: Any) -> None:
            shapes, dtypes = node.output_shapes, node.output_dtypes
            erf = context.make_node("Erf", node.input, shapes=shapes, dtypes=dtypes)
            one = context.make_const(f"{node.name}_one", np.array(1, np.float32))
            context.remove_node(node.name)
            context.make_node(
                "Sub",
                [one.output[0], erf.output[0]],
                name=node.name,
                outputs=node.output,
                shapes=shapes,
                dtypes=dtypes,
            )


@contextlib.contextmanager
def _without_inner_functions() -> Iterator[None]:
    """Keras puts a grouped convolution (of ConvNeXt) into a function of its own for XLA, and
    tf2onnx leaves the call of it in the file, where nothing can run it. Traced like this, its
    operations stand in the graph as all others do."""
    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(before)
