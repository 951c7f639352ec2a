"""Convolutional networks without their tops, each with the preprocessing it was trained with."""

from __future__ import annotations

import os
import socket
import warnings

import keras

from cxr_tfrecords.errors import UserError

_DOWNLOAD_SECONDS = 20


def create_backbone(name: str, image_size: int, weights: str) -> keras.Model:
    """Returns the network from preprocessed pixels to the last feature map.

    Args:
      name: `resnet50`, `mobilenet_v2` or `tiny`.
      image_size: side of the input in pixels.
      weights: `none`, `imagenet` (downloaded once, kept by Keras) or a weights file.

    Returns:
      A model of float [batch, image_size, image_size, 3] to float [batch, h, w, features].

    Raises:
      UserError: the weights cannot be had, or are another network's.
    """
    if weights == "imagenet" and name == "tiny":
        raise UserError("--backbone=tiny has no ImageNet weights: use --weights=none or a file")
    shape = (image_size, image_size, 3)
    if name == "tiny":
        backbone = _tiny(shape)
    else:
        backbone = _application(name, shape, "imagenet" if weights == "imagenet" else None)
    if weights not in ("none", "imagenet"):
        _load_weights(backbone, weights, name)
    return backbone


def preprocess(name: str, images: keras.KerasTensor) -> keras.KerasTensor:
    """The scaling that the backbone's ImageNet weights expect, as layers of the model.

    Args:
      name: the backbone.
      images: uint8 [batch, height, width, channels]; one channel is repeated to three.

    Returns:
      float32 [batch, height, width, 3]. `mobilenet_v2` and `tiny`: within [-1, 1].
      `resnet50`: BGR with the ImageNet means taken off, as its weights come from Caffe.
    """
    # float32 also under bfloat16, which would round the pixels.
    if images.shape[-1] == 1:
        images = keras.layers.Concatenate(name="gray_to_rgb")([images] * 3)
        flip_channels = False
    else:
        flip_channels = name == "resnet50"
    if flip_channels:
        images = keras.ops.flip(images, axis=-1)
    offset: float | list[float]
    if name == "resnet50":
        scale, offset = 1.0, [-103.939, -116.779, -123.68]
    else:
        scale, offset = 1 / 127.5, -1.0
    return keras.layers.Rescaling(scale, offset, dtype="float32", name="preprocess")(images)


def freeze(backbone: keras.Model, trainable: str) -> None:
    """Freezes all of the backbone (`head`), none (`all`) or what lies before `from:<layer>`.

    Raises:
      UserError: no layer has that name.
    """
    backbone.trainable = trainable != "head"
    if not trainable.startswith("from:"):
        return
    names = [layer.name for layer in backbone.layers]
    first = trainable.removeprefix("from:")
    if first not in names:
        some = [layer.name for layer in backbone.layers if layer.weights]
        shown = some[:: max(1, len(some) // 8)]
        raise UserError(
            f"--trainable={trainable}: no layer {first!r} in the backbone; "
            f"some of its layers: {', '.join(shown)}"
        )
    for layer in backbone.layers[: names.index(first)]:
        layer.trainable = False


def _tiny(shape: tuple[int, int, int]) -> keras.Model:
    """Four strided convolutions: learns the synthetic radiographs in a minute on a CPU."""
    inputs = keras.Input(shape)
    x = inputs
    for number, width in enumerate((16, 32, 64, 64), start=1):
        x = keras.layers.Conv2D(
            width, 3, strides=2, padding="same", use_bias=False, name=f"conv{number}"
        )(x)
        x = keras.layers.BatchNormalization(momentum=0.9, name=f"bn{number}")(x)
        x = keras.layers.ReLU(name=f"relu{number}")(x)
    return keras.Model(inputs, x, name="tiny")


def _application(name: str, shape: tuple[int, int, int], weights: str | None) -> keras.Model:
    applications = {
        "mobilenet_v2": keras.applications.MobileNetV2,
        "resnet50": keras.applications.ResNet50,
    }
    before = socket.getdefaulttimeout()
    # Without a limit Keras waits for ever behind a proxy that never answers.
    socket.setdefaulttimeout(_DOWNLOAD_SECONDS)
    try:
        with warnings.catch_warnings():
            # MobileNetV2 warns of sizes that it was not trained at; it has no fixed size here.
            warnings.simplefilter("ignore")
            return applications[name](include_top=False, weights=weights, input_shape=shape)
    except Exception as error:
        if weights is None:
            raise UserError(
                f"--backbone={name} cannot take images of {shape[0]} px: {_first_line(error)}"
            ) from error
        raise UserError(
            f"the ImageNet weights of {name} cannot be had ({_first_line(error)}): give a file "
            "with --weights=FILE.h5, or start from random weights with --weights=none"
        ) from error
    finally:
        socket.setdefaulttimeout(before)


def _load_weights(backbone: keras.Model, path: str, name: str) -> None:
    if not os.path.isfile(path):
        raise UserError(f"--weights={path}: no such file (or say imagenet, none)")
    try:
        with warnings.catch_warnings():
            # Keras only warns of layers that it finds no weights for, and leaves them random.
            warnings.simplefilter("error", UserWarning)
            backbone.load_weights(path)
    except Exception as error:  # h5py and Keras raise many types for a file that does not fit
        raise UserError(
            f"--weights={path} does not fit --backbone={name} without its top layers: "
            f"{_first_line(error)}"
        ) from error


def _first_line(error: BaseException) -> str:
    # Keras: "URL fetch failure on <long address>: None -- <reason>".
    text = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return text.rpartition(" -- ")[2][:160]
