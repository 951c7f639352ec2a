"""All private parts of TensorFlow and Keras that this package uses; any release may change them.

Written for and tested with TensorFlow 2.21 and Keras 3.15. Each function first checks that the part
it replaces has the expected form. If not, nothing is replaced, one warning says what that costs,
and results stay correct.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import inspect
import tempfile
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf
from absl import logging
from tensorflow.python.autograph.pyct import loader
from tensorflow.python.data.ops import multi_device_iterator_ops

from cxr_tfrecords.concurrency import temporary

Moments = Callable[[Sequence[int], tf.Tensor], tuple[tf.Tensor, tf.Tensor]]


@contextlib.contextmanager
def changed_device_datasets(
    change: Callable[[tf.data.Dataset], tf.data.Dataset],
) -> Iterator[None]:
    """Within the context, `change` is applied to TensorFlow's own data set on each device.

    With more than one device, TensorFlow creates an internal data set on each to hand batches over.
    It has no public way to set options of these data sets.
    """
    module, name = multi_device_iterator_ops, "_create_device_dataset"
    create = getattr(module, name, None)
    if not callable(create):
        _warn(f"no {name}: on several devices an epoch may take longer to end")
        yield
        return

    def create_changed(*args: Any, **settings: Any) -> tf.data.Dataset:
        return change(create(*args, **settings))

    setattr(module, name, create_changed)
    try:
        yield
    finally:
        setattr(module, name, create)


def own_generated_code() -> None:
    """Lets TensorFlow write the Python code that it generates from ours (AutoGraph) into a
    temporary folder of ours; does nothing the second time.

    It writes some 40 files into $TMPDIR and removes them when the process ends, so that a killed
    process would leave them for ever. A folder of `temporary` is removed by the next command.
    """
    if getattr(loader, "tempfile", None) is not tempfile:  # done already, or another version
        return
    with contextlib.suppress(OSError):  # $TMPDIR cannot be written: TensorFlow says so itself
        stack = contextlib.ExitStack()
        folder = stack.enter_context(temporary.folder("autograph"))
        atexit.register(stack.close)
        named = functools.partial(tempfile.NamedTemporaryFile, dir=folder)
        loader.tempfile = types.SimpleNamespace(NamedTemporaryFile=named)


def replace_batch_moments(layer: keras.layers.BatchNormalization, moments: Moments) -> bool:
    """Makes a BatchNormalization layer compute the moments of a training batch by `moments`.

    Args:
      layer: the layer to change.
      moments: function of the axes to reduce and the inputs; returns mean and variance, float32
        [channels].

    Returns:
      Whether the method was replaced. If not, a layer with `synchronized=True` computes the same,
      with three sums over replicas instead of one.
    """
    method = getattr(layer, "_moments", None)
    axes = getattr(layer, "_reduction_axes", None)
    if axes is None or not callable(method) or _parameters(method) != ["inputs", "mask"]:
        _warn("no BatchNormalization._moments(inputs, mask): three sums a layer instead of one")
        return False

    def replaced(inputs: tf.Tensor, mask: tf.Tensor | None) -> tuple[tf.Tensor, tf.Tensor]:
        assert mask is None, "images have no masked part"
        return moments(axes, inputs)

    layer._moments = replaced
    return True


def called_graphs(function: tf.types.experimental.ConcreteFunction) -> list[tf.Graph]:
    """The graph of a traced function, and the graphs of all functions that it calls, as traced.

    Graphs rebuilt from the function definitions would lack the shapes of variables.

    Raises:
      RuntimeError: this TensorFlow version has no access to them. An audit without them would prove
        nothing, so there is no fallback.
    """
    graph = function.graph
    find = getattr(graph, "_get_function", None)
    if not callable(find):
        raise RuntimeError(
            f"TensorFlow {tf.__version__} has no Graph._get_function: use TensorFlow 2.20 or 2.21"
        )
    return [graph, *(find(f.signature.name).graph for f in graph.as_graph_def().library.function)]


def _parameters(method: Callable[..., Any]) -> list[str]:
    return list(inspect.signature(method).parameters)


def _warn(problem: str) -> None:
    logging.log_first_n(
        logging.WARNING,
        f"TensorFlow {tf.__version__} and Keras {keras.__version__} differ from the versions that "
        f"this package was tested with: {problem}. Results are the same.",
        1,
        problem,
    )
