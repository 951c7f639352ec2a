"""Networks that keras.applications does not have, made of Keras' own layers.

Each function takes the input shape [height, width, 3] and returns a model from preprocessed pixels
to the last feature map.
"""

from __future__ import annotations

from collections.abc import Sequence

import keras
from keras import layers

Shape = tuple[int, int, int]


def tiny(shape: Shape) -> keras.Model:
    """Four strided convolutions: learns the synthetic radiographs in a minute on a CPU."""
    inputs = keras.Input(shape)
    x = inputs
    for number, width in enumerate((16, 32, 64, 64), start=1):
        x = layers.Conv2D(
            width, 3, strides=2, padding="same", use_bias=False, name=f"conv{number}"
        )(x)
        x = layers.BatchNormalization(momentum=0.9, name=f"bn{number}")(x)
        x = layers.ReLU(name=f"relu{number}")(x)
    return keras.Model(inputs, x, name="tiny")


def resnet18(shape: Shape) -> keras.Model:
    """He et al., Deep Residual Learning for Image Recognition, 2016; 11,176,512 weights."""
    return _resnet("resnet18", shape, (2, 2, 2, 2))


def resnet34(shape: Shape) -> keras.Model:
    """He et al. 2016; 21,284,672 weights."""
    return _resnet("resnet34", shape, (3, 4, 6, 3))


def alexnet(shape: Shape) -> keras.Model:
    """The convolutions of Krizhevsky, One weird trick for parallelizing convolutional neural
    networks, 2014, as in torchvision; 2,469,696 weights.

    That is the network of Krizhevsky et al. 2012 on one GPU, without its response normalisation.
    """
    inputs = keras.Input(shape)
    x = _conv(inputs, 64, 11, "conv1", strides=4, padding=2, use_bias=True)
    x = layers.ReLU(name="relu1")(x)
    x = layers.MaxPooling2D(3, strides=2, name="pool1")(x)
    x = _conv(x, 192, 5, "conv2", padding=2, use_bias=True)
    x = layers.ReLU(name="relu2")(x)
    x = layers.MaxPooling2D(3, strides=2, name="pool2")(x)
    for number, width in ((3, 384), (4, 256), (5, 256)):
        x = _conv(x, width, 3, f"conv{number}", padding=1, use_bias=True)
        x = layers.ReLU(name=f"relu{number}")(x)
    x = layers.MaxPooling2D(3, strides=2, name="pool5")(x)
    return keras.Model(inputs, x, name="alexnet")


def _resnet(name: str, shape: Shape, depths: Sequence[int]) -> keras.Model:
    """Basic blocks in four stages; layers are named as in Keras' ResNet50."""
    inputs = keras.Input(shape)
    x = _conv(inputs, 64, 7, "conv1", strides=2, padding=3)
    x = _normalise(x, "conv1")
    x = layers.ReLU(name="conv1_relu")(x)
    # torchvision pads with minus infinity. Zeros give the same maxima, as no value is negative.
    x = layers.ZeroPadding2D(1, name="pool1_pad")(x)
    x = layers.MaxPooling2D(3, strides=2, name="pool1_pool")(x)
    for stage, depth in enumerate(depths, start=2):
        for block in range(1, depth + 1):
            strides = 2 if block == 1 and stage > 2 else 1
            x = _basic_block(x, 32 * 2 ** (stage - 1), strides, f"conv{stage}_block{block}")
    return keras.Model(inputs, x, name=name)


def _basic_block(
    inputs: keras.KerasTensor, width: int, strides: int, name: str
) -> keras.KerasTensor:
    """Two 3×3 convolutions beside a shortcut, which is projected where the shape changes (the
    paper's option B)."""
    x = _conv(inputs, width, 3, f"{name}_1", strides=strides, padding=1)
    x = _normalise(x, f"{name}_1")
    x = layers.ReLU(name=f"{name}_1_relu")(x)
    x = _conv(x, width, 3, f"{name}_2", padding=1)
    x = _normalise(x, f"{name}_2")
    shortcut = inputs
    if strides > 1:
        shortcut = _normalise(_conv(inputs, width, 1, f"{name}_0", strides=strides), f"{name}_0")
    x = layers.Add(name=f"{name}_add")([shortcut, x])
    return layers.ReLU(name=f"{name}_out")(x)


def _conv(
    x: keras.KerasTensor,
    width: int,
    kernel: int,
    name: str,
    *,
    strides: int = 1,
    padding: int = 0,
    use_bias: bool = False,
) -> keras.KerasTensor:
    """Pads all sides with zeros, then convolves, as torchvision does.

    Keras' padding `same` pads strided convolutions on one side only: with weights from torchvision
    the image would be shifted by a pixel.
    """
    if padding:
        x = layers.ZeroPadding2D(padding, name=f"{name}_pad")(x)
    return layers.Conv2D(
        width,
        kernel,
        strides=strides,
        use_bias=use_bias,
        # He et al., Delving Deep into Rectifiers, 2015.
        kernel_initializer="he_normal",
        name=f"{name}_conv",
    )(x)


def _normalise(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_bn")(x)
