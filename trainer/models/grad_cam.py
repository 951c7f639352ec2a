"""Grad-CAM: where in an image a class's logit comes from (Selvaraju et al. 2017).

A heat map shows which positions of the last feature map raise the logit. It is coarse, and a high
value does not prove that the network recognised a finding there.
"""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from cxr_tfrecords import images as image_files
from trainer.models import keras_files
from trainer.models.classifier import feature_map

_HEAT = 0.5


class GradCam:
    """Makes heat maps of a classifier of `trainer.models.classifier`.

    Raises:
      ValueError: the model has no layer `pool` after its last feature map.
    """

    def __init__(self, model: keras.Model) -> None:
        features = feature_map(model)
        self._backbone = keras.Model(model.inputs[0], features)
        self._head = keras.Model(features, model.output)
        # Layer by layer, from Python, an image takes several times as long.
        self._graph = tf.function(
            self._maps,
            input_signature=[
                tf.TensorSpec([None, *model.inputs[0].shape[1:]], tf.uint8),
                tf.TensorSpec([None], tf.int32),
            ],
        )

    @classmethod
    def load(cls, path: str) -> GradCam:
        """Reads a run's model.keras."""
        return cls(keras_files.load(path))

    def maps(self, images: np.ndarray, classes: Sequence[int]) -> np.ndarray:
        """Heat maps at the images' size, from 0 to 1; all 0 where nothing raises the logit.

        Args:
          images: uint8 [n, size, size, channels].
          classes: for each image, the class whose logit is explained.

        Returns:
          float32 [n, size, size].
        """
        return self._graph(tf.constant(images), tf.constant(list(classes), tf.int32)).numpy()

    def _maps(self, images: tf.Tensor, classes: tf.Tensor) -> tf.Tensor:
        features = self._backbone(images, training=False)
        with tf.GradientTape() as tape:
            # Otherwise the tape would not record them if the backbone is frozen.
            tape.watch(features)
            logits = self._head(features, training=False)
            # Each image's logit depends on its own features only, so the gradient of the sum holds
            # the gradients of all images.
            chosen = tf.gather(tf.cast(logits, tf.float32), classes, axis=1, batch_dims=1)
            total = tf.reduce_sum(chosen)
        gradients = tf.cast(tape.gradient(total, features), tf.float32)
        weights = tf.reduce_mean(gradients, axis=(1, 2), keepdims=True)
        maps = tf.nn.relu(tf.reduce_sum(weights * tf.cast(features, tf.float32), axis=-1))
        largest = tf.reduce_max(maps, axis=(1, 2), keepdims=True)
        maps = tf.math.divide_no_nan(maps, largest)
        return tf.image.resize(maps[..., tf.newaxis], images.shape[1:3])[..., 0]


def overlay(pixels: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """uint8 [size, size, 3]: the image in gray, under the heat map's colours.

    Args:
      pixels: uint8 [size, size, channels].
      heat: float [size, size] in 0..1; where it is higher, the image is covered more.
    """
    import matplotlib

    gray = image_files.to_channels(pixels if pixels.shape[2] == 3 else pixels[..., 0], 3)
    colors = matplotlib.colormaps["inferno"](heat)[..., :3] * 255
    share = _HEAT * heat[..., np.newaxis]
    return np.round((1 - share) * gray + share * colors).astype(np.uint8)
