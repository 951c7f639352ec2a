"""A signature of the SavedModel that takes PNG files, where TensorFlow gives the same pixels."""

from __future__ import annotations

import struct
from collections.abc import Callable

import keras
import tensorflow as tf

from cxr_tfrecords.decoding import png
from cxr_tfrecords.reading import Reading

SIGNATURE = "png"
_GRAY, _RGB = 0, 2
_HEADER_BYTES = 26  # signature, and the first chunk up to the colour type
# Transparency, and what may hold an orientation or an animation: this project's reading follows
# them, TensorFlow does not.
_REFUSED_PARTS = ("tRNS", "eXIf", "acTL", "Raw profile type exif", "XML:com.adobe.xmp")


def why_not(reading: Reading, mask: str) -> str:
    """Why no signature takes files; '' if one can.

    Of files of another size or kind, TensorFlow makes other pixels: it resizes in another way,
    cuts 16 bits to 8, and has another JPEG decoder. So only PNG files that need no more than
    decoding are taken, and none if the data set's images were changed after decoding.
    """
    if mask != "none":
        return f"the run saw only what --mask={mask} leaves, and a file has no lung mask"
    if reading.enhance != "none":
        return f"images are enhanced after decoding ({reading.enhance}), which TensorFlow cannot do"
    if reading.encoding == "jpeg":
        return (
            "images were stored as JPEG, which changed their pixels, and TensorFlow's encoder "
            "would change them in another way"
        )
    return ""


def describe(reading: Reading) -> str:
    """Which files the signature takes, in words."""
    kind = "gray" if reading.channels == 1 else "gray or RGB"
    return (
        f"string [batch], PNG files of exactly {reading.image_size} x {reading.image_size} pixels, "
        f"8 bits, {kind}, without transparency and orientation; any other file is an error"
    )


def make_endpoint(model: keras.Model, reading: Reading) -> Callable[[tf.Tensor], dict]:
    """A function of PNG files, string [batch], to the model's outputs.

    A file of another kind raises `tf.errors.InvalidArgumentError` when the function runs.
    """
    size, channels = reading.image_size, reading.channels
    kinds = (_GRAY,) if channels == 1 else (_GRAY, _RGB)
    start = png.SIGNATURE + struct.pack(">I4sII", 13, b"IHDR", size, size)
    headers = tf.constant([start + bytes([8, kind]) for kind in kinds])
    shape = [size, size, channels]

    def decode(data: tf.Tensor) -> tf.Tensor:
        fits = tf.reduce_any(tf.strings.substr(data, 0, _HEADER_BYTES) == headers)
        for part in _REFUSED_PARTS:
            fits &= tf.size(tf.strings.split(data, part)) == 1
        with tf.control_dependencies([tf.debugging.Assert(fits, [f"takes {describe(reading)}"])]):
            pixels = tf.io.decode_png(data, channels=channels)
        return tf.ensure_shape(pixels, shape)

    def endpoint(files: tf.Tensor) -> dict:
        images = tf.map_fn(decode, files, fn_output_signature=tf.TensorSpec(shape, tf.uint8))
        return model(images, training=False)

    return endpoint
