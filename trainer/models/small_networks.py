"""Networks that keras.applications does not have, made of Keras' own layers.

Each function takes the input shape [height, width, 3] and returns a model from preprocessed pixels
to the last feature map.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import keras
from keras import layers

Shape = tuple[int, int, int]

# EfficientNet's stages: convolution width, blocks, strides, widening inside a block, output width.
_MBCONV_STAGES = (
    (3, 1, 1, 1, 16),
    (3, 2, 2, 6, 24),
    (5, 2, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (5, 3, 1, 6, 112),
    (5, 4, 2, 6, 192),
    (3, 1, 1, 6, 320),
)
_LAST_DROP_RATE = 0.2
_FAN_OUT = keras.initializers.VarianceScaling(2.0, "fan_out", "truncated_normal")
_CONV = {"use_bias": False, "kernel_initializer": _FAN_OUT}


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


def efficientnet_lite0(shape: Shape) -> keras.Model:
    """EfficientNet-Lite (Google, 2020); 3,371,008 weights.

    EfficientNet (Tan and Le 2019) without squeeze-and-excitation, with ReLU6 for swish, and with a
    stem and a head of fixed width: https://github.com/tensorflow/tpu,
    models/official/efficientnet/lite.
    """
    return _efficientnet_lite("efficientnet_lite0", shape, width=1.0, depth=1.0)


def efficientnet_lite1(shape: Shape) -> keras.Model:
    """A deeper EfficientNet-Lite; 4,135,680 weights."""
    return _efficientnet_lite("efficientnet_lite1", shape, width=1.0, depth=1.1)


def efficientnet_lite2(shape: Shape) -> keras.Model:
    """A deeper and wider EfficientNet-Lite; 4,811,072 weights."""
    return _efficientnet_lite("efficientnet_lite2", shape, width=1.1, depth=1.2)


def _efficientnet_lite(name: str, shape: Shape, *, width: float, depth: float) -> keras.Model:
    """Layers are named as in Keras' EfficientNets.

    Padding is `same` here, as in the network whose weights there are: TensorFlow's.
    """
    inputs = keras.Input(shape)
    x = layers.Conv2D(32, 3, 2, padding="same", name="stem_conv", **_CONV)(inputs)
    x = _normalise_relu6(x, "stem")
    last = len(_MBCONV_STAGES)
    repeats = [
        blocks if stage in (1, last) else math.ceil(blocks * depth)
        for stage, (_, blocks, *_) in enumerate(_MBCONV_STAGES, start=1)
    ]
    done = 0
    for stage, (kernel, _, strides, expansion, filters) in enumerate(_MBCONV_STAGES, start=1):
        for block in range(repeats[stage - 1]):
            x = _mbconv(
                x,
                f"block{stage}{chr(ord('a') + block)}",
                filters=_round_to_8(filters * width),
                expansion=expansion,
                kernel=kernel,
                strides=strides if block == 0 else 1,
                drop_rate=_LAST_DROP_RATE * done / sum(repeats),
            )
            done += 1
    x = layers.Conv2D(1280, 1, name="top_conv", **_CONV)(x)
    return keras.Model(inputs, _normalise_relu6(x, "top"), name=name)


def _mbconv(
    inputs: keras.KerasTensor,
    name: str,
    *,
    filters: int,
    expansion: int,
    kernel: int,
    strides: int,
    drop_rate: float,
) -> keras.KerasTensor:
    """An inverted residual block (Sandler et al., MobileNetV2, 2018), dropped at random in training
    (Huang et al., Deep Networks with Stochastic Depth, 2016) where it has a shortcut."""
    x = inputs
    if expansion > 1:
        x = layers.Conv2D(inputs.shape[-1] * expansion, 1, name=f"{name}_expand_conv", **_CONV)(x)
        x = _normalise_relu6(x, f"{name}_expand")
    x = layers.DepthwiseConv2D(
        kernel,
        strides,
        padding="same",
        use_bias=False,
        depthwise_initializer=_FAN_OUT,
        name=f"{name}_dwconv",
    )(x)
    x = _normalise_relu6(x, name)
    x = layers.Conv2D(filters, 1, name=f"{name}_project_conv", **_CONV)(x)
    x = layers.BatchNormalization(name=f"{name}_project_bn")(x)
    if strides > 1 or inputs.shape[-1] != filters:
        return x
    if drop_rate:
        x = layers.Dropout(drop_rate, noise_shape=(None, 1, 1, 1), name=f"{name}_drop")(x)
    return layers.Add(name=f"{name}_add")([x, inputs])


def _normalise_relu6(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    x = layers.BatchNormalization(name=f"{name}_bn")(x)
    return layers.ReLU(6.0, name=f"{name}_activation")(x)


def _round_to_8(width: float) -> int:
    """The multiple of 8 next to a width, or the one above where that would lose over a tenth."""
    rounded = max(8, int(width + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * width else rounded


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
