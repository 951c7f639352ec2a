"""From decoded pixels to those that a model sees: one rule for a build and for each later use."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from cxr_tfrecords import enhance, images


@dataclasses.dataclass(frozen=True)
class Reading:
    """How a data set's images were made from their files.

    Attributes:
      image_size: pixels of a side. channels: 1 (gray) or 3 (RGB).
      enhance: contrast enhancement after resizing, one of `enhance.METHODS`.
      encoding: `png`, `raw` or `jpeg`; the last one changes pixels.
    """

    image_size: int
    channels: int
    enhance: str = "none"
    encoding: str = "png"

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Reading:
        """The inverse of `dataclasses.asdict`.

        Raises:
          TypeError: a name is missing or unknown.
        """
        return cls(**content)

    def prepare(self, pixels: np.ndarray) -> np.ndarray:
        """Decoded pixels, in the size, channels and contrast of the data set, before encoding.

        Args:
          pixels: uint8 [height, width] or [height, width, 1 or 3], see `images.Decoded`.

        Returns:
          uint8 [image_size, image_size, channels].
        """
        resized = images.resize(images.to_channels(pixels, self.channels), self.image_size)
        return enhance.enhance(resized, self.enhance)

    def stored(self, pixels: np.ndarray) -> np.ndarray:
        """As `prepare`, and with what a lossy encoding does to the pixels in a training."""
        return self.encoded(self.prepare(pixels))

    def encoded(self, prepared: np.ndarray) -> np.ndarray:
        """What a lossy encoding makes of the pixels of `prepare`; the same pixels of a lossless."""
        if self.encoding != "jpeg":
            return prepared
        import tensorflow as tf

        # A training decodes with TensorFlow, whose default transform is a faster one than that of
        # other libraries: gray levels differ by up to 6.
        encoded = images.encode(prepared, self.encoding)
        return tf.io.decode_jpeg(encoded, channels=self.channels).numpy()
