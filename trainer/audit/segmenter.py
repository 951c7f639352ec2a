"""A small network that finds the lungs, for data sets without lung masks.

A U-Net (Ronneberger et al. 2015) of 129,000 weights on gray images of 96 px, whose gray values are
scaled by their own mean and standard deviation. It is trained with changed contrast, place, size
and angle, because radiographs of other sources differ in them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import cv2
import keras
import numpy as np
import tensorflow as tf
from keras import layers

from cxr_tfrecords import images
from cxr_tfrecords.console.progress import progress
from cxr_tfrecords.dataset_dir import DatasetDir
from cxr_tfrecords.errors import UserError, first_line
from trainer.input.split_records import read_split
from trainer.models import keras_files, tf_internals

SIZE = 96
_WIDTHS = (12, 24, 36, 48)
_BATCH = 16
_LEARNING_RATE = 2e-3
_SMALL_PART = 0.1  # a part of the mask that is smaller than this, to the largest one, is dropped


class Segmenter:
    """A trained network."""

    def __init__(self, model: keras.Model) -> None:
        self._probabilities = tf.function(lambda x: tf.sigmoid(model(x, training=False)))

    @classmethod
    def load(cls, path: str) -> Segmenter:
        """Raises: UserError: it is not a model of `trainer.train_segmenter`."""
        try:
            model = keras_files.load(path)
        except Exception as error:  # of any type, as of a run's model
            raise UserError(
                f"--segmenter={path} cannot be read ({first_line(error, 160)}): name a model file "
                "of trainer.train_segmenter"
            ) from error
        if model.output_shape[1:] != (SIZE, SIZE, 1):
            raise UserError(f"--segmenter={path} is not a model of trainer.train_segmenter")
        return cls(model)

    def masks(self, pixels: np.ndarray, ids: Sequence[str] = ()) -> np.ndarray:
        """bool [b, S, S], the lungs of images uint8 [b, S, S, C]."""
        found = self._probabilities(tf.constant(np.stack([prepare(one) for one in pixels]))).numpy()
        size = pixels.shape[1]
        return np.stack(
            [_whole_parts(cv2.resize(one, (size, size)) > 0.5) for one in found[..., 0]]
        )


def prepare(pixels: np.ndarray) -> np.ndarray:
    """float32 [SIZE, SIZE, 1] of mean 0 and standard deviation 1, from uint8 [S, S, C]."""
    gray = images.resize(images.to_channels(pixels, 1), SIZE).astype(np.float32)
    return (gray - gray.mean()) / (gray.std() + 1e-3)


def _whole_parts(mask: np.ndarray) -> np.ndarray:
    """Without small parts and without holes."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    areas = stats[1:, cv2.CC_STAT_AREA]
    if count < 2:
        return mask
    kept = [1 + k for k in np.argsort(-areas)[:2] if areas[k] >= _SMALL_PART * areas.max()]
    outlines, _ = cv2.findContours(
        np.isin(labels, kept).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
    )
    return cv2.drawContours(np.zeros(mask.shape, np.uint8), outlines, -1, 1, cv2.FILLED) > 0


def dice(found: np.ndarray, true: np.ndarray) -> np.ndarray:
    """float64 [b], 2 |A and B| / (|A| + |B|) of masks bool [b, S, S]; 1 where both are empty."""
    both = (found & true).sum(axis=(1, 2))
    total = found.sum(axis=(1, 2)) + true.sum(axis=(1, 2))
    return np.where(total, 2 * both / np.maximum(total, 1), 1.0)


def read_pairs(data: DatasetDir, split: str) -> tuple[np.ndarray, np.ndarray]:
    """uint8 [n, SIZE, SIZE, 1] and bool [n, SIZE, SIZE] of a split with masks."""
    pixels, masks = [], []
    for record in read_split(data, split):
        image = images.decode_stored(record.encoded, data.encoding, data.image_size, data.channels)
        pixels.append(images.resize(images.to_channels(image, 1), SIZE))
        assert record.mask is not None
        masks.append(images.resize_mask(images.decode_mask(record.mask), SIZE) > 0)
    return np.stack(pixels), np.stack(masks)


def create_model() -> keras.Model:
    """Logits [b, SIZE, SIZE, 1] of prepared images."""
    inputs = x = keras.Input((SIZE, SIZE, 1))
    skipped = []
    for number, width in enumerate(_WIDTHS):
        x = _block(x, width)
        if number < len(_WIDTHS) - 1:
            skipped.append(x)
            x = layers.MaxPooling2D(2)(x)
    for width, skip in zip(_WIDTHS[-2::-1], reversed(skipped), strict=True):
        x = layers.Concatenate()([layers.UpSampling2D(2, interpolation="bilinear")(x), skip])
        x = _block(x, width)
    return keras.Model(inputs, layers.Conv2D(1, 1, dtype="float32")(x), name="lung_segmenter")


def _block(x: keras.KerasTensor, width: int) -> keras.KerasTensor:
    for _ in range(2):
        x = layers.Conv2D(width, 3, padding="same", use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
    return x


def train(pixels: np.ndarray, masks: np.ndarray, *, epochs: int, seed: int) -> keras.Model:
    """Trains on the pairs of `read_pairs`; the same arguments give the same batches."""
    tf_internals.own_generated_code()
    keras.utils.set_random_seed(seed)
    model = create_model()
    steps = max(1, len(pixels) // _BATCH)
    rate = keras.optimizers.schedules.CosineDecay(_LEARNING_RATE, epochs * steps)
    optimizer = keras.optimizers.Adam(rate)

    @tf.function
    def step(batch: tf.Tensor, truth: tf.Tensor) -> None:
        with tf.GradientTape() as tape:
            logits = model(batch, training=True)
            loss = _loss(truth, logits)
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))

    rng = np.random.Generator(np.random.Philox(seed))
    with progress(epochs * steps, "train", " steps") as bar:
        for _ in range(epochs):
            for batch, truth in _batches(pixels, masks, rng, steps):
                step(tf.constant(batch), tf.constant(truth))
                bar.update()
    return model


def _loss(truth: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Cross-entropy of the pixels plus 1 - Dice of the batch (Milletari et al. 2016)."""
    entropy = tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(truth, logits))
    chances = tf.sigmoid(logits)
    overlap = 2 * tf.reduce_sum(chances * truth) + 1
    return entropy + 1 - overlap / (tf.reduce_sum(chances) + tf.reduce_sum(truth) + 1)


def _batches(
    pixels: np.ndarray, masks: np.ndarray, rng: np.random.Generator, steps: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    order = rng.permutation(len(pixels))
    for number in range(steps):
        rows = order[number * _BATCH : (number + 1) * _BATCH]
        changed = [change(pixels[row], masks[row], rng) for row in rows]
        yield (
            np.stack([prepare(image) for image, _ in changed]),
            np.stack([mask[:, :, None] for _, mask in changed]).astype(np.float32),
        )


def change(
    image: np.ndarray, mask: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A pair with another place, size, angle, contrast, sharpness and noise, perhaps mirrored."""
    size = len(mask)
    if rng.random() < 0.5:
        image, mask = image[:, ::-1], mask[:, ::-1]
    matrix = cv2.getRotationMatrix2D((size / 2, size / 2), rng.normal(0, 6), rng.uniform(0.8, 1.25))
    move = np.zeros((2, 3))
    move[:, 2] = rng.normal(0, 0.06 * size, 2)
    wider = np.array([[rng.uniform(0.85, 1.15)], [1.0]])
    matrix = wider * np.asarray(matrix) + move
    image = cv2.warpAffine(np.ascontiguousarray(image), matrix, (size, size))
    mask = cv2.warpAffine(np.ascontiguousarray(mask).astype(np.uint8), matrix, (size, size)) > 0
    gray = (image.reshape(size, size) / 255.0) ** rng.uniform(0.5, 1.8)
    slope = rng.normal(0, 0.15, 2)
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    gray = gray * (1 + slope[0] * x + slope[1] * y)
    if rng.random() < 0.5:
        gray = cv2.GaussianBlur(gray, (0, 0), rng.uniform(0.3, 1.5))
    gray = gray + rng.normal(0, rng.uniform(0, 0.05), gray.shape)
    if rng.random() < 0.3:  # a marker, a frame's edge or a tube
        row, column = rng.integers(0, size, 2)
        gray[row : row + rng.integers(2, 10), column : column + rng.integers(2, 30)] = rng.random()
    return np.clip(gray * 255, 0, 255).astype(np.uint8)[:, :, None], mask
