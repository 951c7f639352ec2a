"""Grad-CAM points at what a decision depends on."""

import keras
import numpy as np
import pytest

from trainer.models import classifier
from trainer.models.grad_cam import GradCam

SIZE, CELLS = 32, 8


def _corner_model():
    """Class 1 depends on the upper left quarter alone, class 0 on the whole image."""
    images = keras.Input((SIZE, SIZE, 1), dtype="uint8")
    x = keras.layers.Rescaling(1 / 255)(images)
    x = keras.layers.AveragePooling2D(SIZE // CELLS)(x)
    corner = np.zeros((1, CELLS, CELLS, 1), np.float32)
    corner[:, : CELLS // 2, : CELLS // 2] = 1
    x = keras.layers.Concatenate()([x, x * corner])
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    logits = keras.layers.Dense(2, name="logits")
    network = keras.Model(images, logits(x))
    logits.set_weights([np.array([[1.0, 0.0], [0.0, 1.0]]), np.zeros(2)])
    return network


@pytest.fixture
def images():
    pixels = np.random.default_rng(0).integers(0, 60, (2, SIZE, SIZE, 1))
    pixels[:, :8, :8] += 100
    pixels[:, 24:, 24:] += 190  # brighter, but class 1 does not look there
    return pixels.astype(np.uint8)


def _maximum(heat):
    return np.unravel_index(heat.argmax(), heat.shape)


def test_the_maximum_lies_in_the_corner_that_decides(images):
    heat = GradCam(_corner_model()).maps(images, [1, 1])
    assert heat.shape == (2, SIZE, SIZE)
    for one in heat:
        row, column = _maximum(one)
        assert row < 10
        assert column < 10
        assert one[20:, 20:].max() == 0


def test_each_image_is_explained_for_its_own_class(images):
    heat = GradCam(_corner_model()).maps(images, [1, 0])
    assert max(_maximum(heat[0])) < 10
    assert min(_maximum(heat[1])) > 22


@pytest.mark.parametrize("trainable", ["all", "head"])
def test_behind_a_linear_head_it_is_the_class_activation_map(tmp_path, trainable):
    """Zhou et al. 2016: there Grad-CAM is the features weighted by the class's kernel."""
    network = classifier.create_model(
        "tiny", image_size=SIZE, channels=1, num_classes=3, trainable=trainable, seed=1
    )
    network.save(tmp_path / "model.keras")
    pixels = np.random.default_rng(1).integers(0, 256, (2, SIZE, SIZE, 1)).astype(np.uint8)
    features = keras.Model(network.inputs[0], network.get_layer("pool").input)(pixels).numpy()
    kernel = network.get_layer("logits").kernel.numpy()
    expected = np.maximum(np.stack([features[i] @ kernel[:, c] for i, c in ((0, 2), (1, 0))]), 0)
    expected /= np.maximum(expected.max(axis=(1, 2), keepdims=True), 1e-30)
    heat = GradCam.load(str(tmp_path / "model.keras")).maps(pixels, [2, 0])
    resized = keras.ops.image.resize(expected[..., np.newaxis], (SIZE, SIZE))
    np.testing.assert_allclose(heat, np.asarray(resized)[..., 0], atol=1e-5)


def test_a_model_without_the_pooling_layer_is_refused():
    images = keras.Input((4, 4, 1))
    with pytest.raises(ValueError, match="pool"):
        GradCam(keras.Model(images, keras.layers.Flatten()(images)))
