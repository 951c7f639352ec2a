"""Writes a model in each format, and opens what was written to compute with it."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator

import keras
import numpy as np
import tensorflow as tf

from cxr_tfrecords.console.quiet import quiet_stderr
from cxr_tfrecords.reading import Reading
from trainer.exporting import encoded_images, onnx_file
from trainer.exporting.format_table import FORMATS, INT8
from trainer.models import keras_files

# uint8 [n, size, size, channels] -> name of an output -> float32 [n, classes].
Answer = Callable[[np.ndarray], dict[str, np.ndarray]]


def in_precision(model: keras.Model, dtype: str) -> keras.Model:
    """The same network with the same weights, computed in `float32` or `float64` throughout."""
    config = json.dumps(model.get_config())
    for other in ("mixed_bfloat16", "float32"):
        config = config.replace(f'"{other}"', f'"{dtype}"')
    twin = keras.Model.from_config(json.loads(config))
    twin.set_weights(model.get_weights())
    return twin


def write(
    name: str,
    model: keras.Model,
    folder: str,
    *,
    reading: Reading | None = None,
    calibration: np.ndarray | None = None,
) -> None:
    """Writes a format's file or folder of `FORMATS` below `folder`.

    Args:
      model: uint8 [batch, size, size, channels] to a dictionary of outputs.
      reading: gives a SavedModel a second signature that takes files, see `encoded_images`.
      calibration: uint8 [n, size, size, channels], images that tell the ranges of the activations
        for `litert_int8`.
    """
    path = os.path.join(folder, FORMATS[name].path)
    with _quiet():
        if name == "keras":
            keras_files.save(path, model)
        elif name == "saved_model":
            _write_saved_model(model, path, reading)
        elif name == "onnx":
            onnx_file.write(model, path)
        else:
            _write_litert(model, path, calibration if name == INT8 else None)


def _write_saved_model(model: keras.Model, path: str, reading: Reading | None) -> None:
    """With TensorFlow's functions: Keras' own export traces the network three times in place of
    once and writes each layer as an object, which takes twice to four times as long."""
    [image] = model.inputs
    module = tf.Module()
    # Written are the variables of an object; those that only a function uses would be an error.
    module.weights = [variable.value for variable in model.variables]
    pixels = tf.TensorSpec(image.shape, image.dtype, name=image.name)
    module.serve = tf.function(
        lambda images: model(images, training=False), [pixels], autograph=False
    )
    signatures = {"serving_default": module.serve}
    if reading is not None:
        files = tf.TensorSpec([None], tf.string, name="files")
        module.serve_files = tf.function(encoded_images.make_endpoint(model, reading), [files])
        signatures[encoded_images.SIGNATURE] = module.serve_files
    tf.saved_model.save(module, path, signatures)


def _write_litert(model: keras.Model, path: str, calibration: np.ndarray | None) -> None:
    # From a SavedModel: a converter that is given the Keras model or its function leaves the
    # weights out without a word (TensorFlow 2.21), and the file answers NaN.
    with tempfile.TemporaryDirectory(dir=os.path.dirname(path)) as folder:
        _write_saved_model(model, folder, None)
        converter = tf.lite.TFLiteConverter.from_saved_model(
            folder, signature_keys=["serving_default"]
        )
        if calibration is not None:
            name = model.inputs[0].name
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.representative_dataset = lambda: (
                {name: calibration[i : i + 1]} for i in range(len(calibration))
            )
        content = converter.convert()
    with open(path, "wb") as file:
        file.write(content)


def open_written(name: str, folder: str) -> Answer:
    """A function that computes with what `write` has written."""
    path = os.path.join(folder, FORMATS[name].path)
    with _quiet():
        if name == "keras":
            return of_model(keras_files.load(path))
        if name == "saved_model":
            return _open_saved_model(path)
        return _open_onnx(path) if name == "onnx" else _open_litert(path)


def of_model(model: keras.Model) -> Answer:
    """The answers of a Keras model, as a graph, which is how a run computes its predictions."""
    function = tf.function(lambda images: model(images, training=False))
    return lambda images: _arrays(function(tf.constant(images)))


def _open_saved_model(path: str) -> Answer:
    loaded = tf.saved_model.load(path)

    def answer(images: np.ndarray) -> dict[str, np.ndarray]:
        # Through `loaded`, which holds the variables: a signature alone does not.
        function = loaded.signatures["serving_default"]
        [argument] = function.structured_input_signature[1]
        return _arrays(function(**{argument: tf.constant(images)}))

    return answer


def _open_onnx(path: str) -> Answer:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    [image] = session.get_inputs()
    names = [output.name for output in session.get_outputs()]
    return lambda images: dict(zip(names, session.run(names, {image.name: images}), strict=True))


def _open_litert(path: str) -> Answer:
    interpreter = tf.lite.Interpreter(model_path=path)
    interpreter.allocate_tensors()
    runner = interpreter.get_signature_runner("serving_default")
    [image] = runner.get_input_details()
    return lambda images: runner(**{image: images})


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keras prints signatures; converters log each step and warn of their own old code."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with (
            contextlib.redirect_stdout(io.StringIO()),
            quiet_stderr(),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


def _arrays(outputs: dict[str, tf.Tensor]) -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in outputs.items()}
