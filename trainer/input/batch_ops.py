"""Operations on whole batches of images in tf.data: mirroring, augmenting, mixing, padding.

They run on the host's processor. So the step on the devices is the same with and without them, and
TPUs, which have no operation to turn an image, need none.
"""

from __future__ import annotations

import tensorflow as tf


def mirror(batch: tuple[tf.Tensor, tf.Tensor], flips: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Mirrors left to right the images [b, S, S, C] that `flips`, bool [b], marks."""
    images, labels = batch
    size, height, width, channels = images.shape
    chosen = tf.gather(images, tf.where(flips)[:, 0])
    # tf.reverse is fast in these two shapes only: 4 times as fast as on [b, S, S, C].
    lines = tf.reshape(chosen, [-1, width] if channels == 1 else [-1, width, channels])
    mirrored = tf.reshape(tf.reverse(lines, axis=[1]), [-1, height, width, channels])
    source = tf.where(flips, size - 1 + tf.cumsum(tf.cast(flips, tf.int32)), tf.range(size))
    return tf.gather(tf.concat([images, mirrored], axis=0), source), labels


def augment(batch: tuple[tf.Tensor, tf.Tensor], changes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Changes the images [b, S, S, C] as `changes` says, float32 [b, columns], see
    `balancing.augmentation.Augmentation.draw`.

    First brightness and contrast, then one resampling (bilinear, black outside), then the square.
    Pixels of level 0 stay at 0: what `--mask` hides, and what a collimator covered. So a mask moves
    with its image. No result depends on the batch: sums are of integers.
    """
    images, labels = batch
    side = images.shape[1]
    cosine, sine, shift_x, shift_y, brightness, contrast, cut, cut_x, cut_y = tf.unstack(
        changes, axis=1
    )
    total = tf.reduce_sum(tf.cast(images, tf.int64), axis=[1, 2, 3])
    mean = _each(tf.cast(total, tf.float32) / float(side * side * images.shape[3]))
    pixels = tf.cast(images, tf.float32)
    changed = mean + (pixels - mean) * _each(1.0 + contrast) + 255.0 * _each(brightness)
    pixels = tf.where(images > 0, tf.clip_by_value(changed, 0.0, 255.0), 0.0)

    # Where each pixel of the result comes from, as rows of a matrix around the image's middle.
    middle = (side - 1) / 2
    left = middle - middle * (cosine - sine) - shift_x * side
    top = middle - middle * (sine + cosine) - shift_y * side
    zero = tf.zeros_like(sine)
    rows = tf.stack([cosine, -sine, left, sine, cosine, top, zero, zero], axis=1)
    pixels = tf.raw_ops.ImageProjectiveTransformV3(
        images=pixels,
        transforms=rows,
        output_shape=[side, side],
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
        fill_value=0.0,
    )
    pixels = tf.ensure_shape(pixels, images.shape)

    places = (tf.range(side, dtype=tf.float32)[tf.newaxis] + 0.5) / side
    half = cut[:, tf.newaxis] / 2.0
    inside_x = tf.abs(places - cut_x[:, tf.newaxis]) < half
    inside_y = tf.abs(places - cut_y[:, tf.newaxis]) < half
    hidden = (inside_y[:, :, tf.newaxis] & inside_x[:, tf.newaxis, :])[..., tf.newaxis]
    return tf.cast(tf.round(tf.where(hidden, 0.0, pixels)), tf.uint8), labels


def _each(values: tf.Tensor) -> tf.Tensor:
    """[b] as [b, 1, 1, 1]."""
    return values[:, tf.newaxis, tf.newaxis, tf.newaxis]


def mix(
    first: tuple[tf.Tensor, tf.Tensor], partner: tuple[tf.Tensor, tf.Tensor], lam: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """(images, labels, partners' labels, lam): lam, float32 [b], is the weight of the first images;
    mixed images are rounded to uint8."""
    (images, labels), (partner_images, partner_labels) = first, partner
    weight = _each(lam)
    images, partner_images = (tf.cast(i, tf.float32) for i in (images, partner_images))
    mixed = tf.round(weight * images + (1.0 - weight) * partner_images)
    return tf.cast(mixed, tf.uint8), labels, partner_labels, lam


def mask(
    batch: tuple[tf.Tensor, tf.Tensor], padding: tuple[tf.Tensor, tf.Tensor]
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """(images, labels, index); images and labels are 0 where `real`, bool [b], is False."""
    (images, labels), (real, index) = batch, padding
    images *= tf.reshape(tf.cast(real, images.dtype), [-1] + [1] * (len(images.shape) - 1))
    return images, labels * tf.cast(real, tf.int32), index
