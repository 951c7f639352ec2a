import socket

import cv2
import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

from cxr_tfrecords.errors import UserError
from tests.shared import shared_path
from tests.trainer import toy
from trainer.models import backbones
from trainer.models.classifier import (
    create_model,
    feature_map,
    features_and_logits_model,
    features_model,
    head_model,
    seed_states,
)
from trainer.models.grad_cam import GradCam

TINY = {"image_size": 32, "channels": 1, "num_classes": 4}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("mobilenet_v2", keras.applications.mobilenet_v2.preprocess_input),
        ("resnet50", keras.applications.resnet50.preprocess_input),
    ],
)
def test_preprocessing_is_the_backbones_own(name, reference, channels):
    pixels = np.random.default_rng(0).integers(0, 256, (2, 8, 8, channels)).astype(np.uint8)
    images = keras.Input((8, 8, channels), dtype="uint8")
    ours = keras.Model(images, backbones.preprocess(name, images))(pixels)
    rgb = np.repeat(pixels, 3 // channels, axis=-1).astype(np.float32)
    np.testing.assert_allclose(ours, reference(rgb), atol=1e-5)


@pytest.mark.parametrize("size", [16, 12, 30])
def test_shrinking_averages_areas_as_the_build_does(size):
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype(np.uint8)
    images = keras.Input((32, 32, 3), dtype="uint8")
    shrunk = keras.Model(images, backbones.shrink(images, size))(pixels)
    expected = [
        cv2.resize(p.astype(np.float32), (size, size), interpolation=cv2.INTER_AREA) for p in pixels
    ]
    np.testing.assert_allclose(shrunk, expected, atol=1e-3)


@pytest.mark.parametrize("channels", [1, 3])
def test_saved_model_loads_without_our_code(tmp_path, channels):
    model = create_model("tiny", **TINY | {"channels": channels}, head_units=(8,), dropout=0.5)
    images = keras.Input((32, 32, channels), dtype="uint8")
    resnet_input = keras.Model(images, backbones.preprocess("resnet50", images))
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, channels)).astype(np.uint8)
    for number, original in enumerate((model, resnet_input)):
        path = tmp_path / f"{number}.keras"
        original.save(path)
        np.testing.assert_array_equal(original(pixels), keras.models.load_model(path)(pixels))


def test_equal_seeds_give_equal_weights_and_others_do_not():
    first, again, other = (create_model("tiny", **TINY, dropout=0.1, seed=s) for s in (3, 3, 4))
    for a, b in zip(first.variables, again.variables, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(first.get_weights()[0], other.get_weights()[0])
    assert len(seed_states(first)) == 1


def test_head_follows_its_flags():
    model = create_model("tiny", **TINY, head_units=(16, 8), dropout=0.5, trainable="head")
    assert [v.shape for v in model.trainable_variables] == [
        (64, 16), (16,), (16, 8), (8,), (8, 4), (4,)
    ]  # fmt: skip
    assert features_model(model).output_shape == (None, 64)


def test_a_recurrent_head_reads_the_rows_from_top_to_bottom():
    model = create_model("tiny", **TINY, rnn_units=5)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 1)).astype(np.uint8)
    features = keras.Model(model.input, feature_map(model))(pixels).numpy()
    height = features.shape[1]
    looped = keras.layers.LSTM(5)
    looped.build((None, height, 64))
    looped.set_weights(model.get_layer("rnn").get_weights())
    state = looped(features.mean(axis=2)).numpy()
    kernel, bias = model.get_layer("logits").get_weights()
    np.testing.assert_allclose(model(pixels), state @ kernel + bias, atol=1e-5)
    assert height > 1
    assert features_model(model).output_shape == (None, height * 64)
    rows = features_model(model)(pixels)
    np.testing.assert_array_equal(head_model(model)(rows), model(pixels))
    means, logits = features_and_logits_model(model)(pixels)
    np.testing.assert_allclose(means, features.mean(axis=(1, 2)), atol=1e-6)
    np.testing.assert_array_equal(logits, model(pixels))
    heat = GradCam(model).maps(pixels, [0, 1, 2])
    assert heat.shape == (3, 32, 32)
    assert heat.max() == 1


def test_from_layer_trains_what_follows_it():
    model = create_model("tiny", **TINY, trainable="from:conv4")
    names = [v.path.split("/")[-2] for v in model.trainable_variables]
    assert names == ["conv4", "bn4", "bn4", "logits", "logits"]
    with pytest.raises(UserError, match=r"no layer 'conv9'.*conv1"):
        create_model("tiny", **TINY, trainable="from:conv9")


def test_bfloat16_keeps_weights_and_logits_in_float32():
    model = create_model("tiny", **TINY, mixed_precision="bfloat16")
    assert model.get_layer("tiny").get_layer("conv1").compute_dtype == "bfloat16"
    assert {v.dtype for v in model.trainable_variables} == {"float32"}
    assert model.output.dtype == "float32"
    assert keras.config.dtype_policy().name == "float32"


def test_weights_of_another_backbone_name_file_and_backbone(tmp_path):
    path = str(tmp_path / "tiny.weights.h5")
    tiny = backbones.create_backbone("tiny", 32, "none")
    tiny.save_weights(path)
    again = backbones.create_backbone("tiny", 64, path)
    np.testing.assert_array_equal(tiny.get_weights()[0], again.get_weights()[0])
    with pytest.raises(UserError, match=r"tiny\.weights\.h5 .*--backbone=mobilenet_v2") as caught:
        backbones.create_backbone("mobilenet_v2", 32, path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("fault", ["missing", "NaN", "no memory"])
def test_weights_that_fit_in_part_are_refused(tmp_path, fault):
    path = str(tmp_path / "tiny.weights.h5")
    backbones.create_backbone("tiny", 32, "none").save_weights(path)
    with h5py.File(path, "r+") as file:
        names: list[str] = []
        file.visititems(lambda name, node: names.append(name) if hasattr(node, "shape") else None)
        name = names[-1]
        values = file[name][()]
        del file[name]
        if fault == "NaN":
            file[name] = values * np.nan
        elif fault == "no memory":  # 4 TB that the file does not hold
            file.create_dataset(name, (1 << 20, 1 << 20), "f4", chunks=(64, 64))
    with pytest.raises(UserError, match="does not fit --backbone=tiny"):
        backbones.create_backbone("tiny", 32, path)


def test_weights_that_are_no_weights_are_refused(tmp_path):
    text = tmp_path / "notes.h5"
    text.write_text("not weights")
    for path in (text, tmp_path / "missing.h5"):
        with pytest.raises(UserError, match=f"--weights={path}"):
            backbones.create_backbone("tiny", 32, str(path))
    with pytest.raises(UserError, match="has no ImageNet weights"):
        backbones.create_backbone("tiny", 32, "imagenet")


def test_imagenet_weights_that_cannot_be_downloaded_ask_for_a_file(monkeypatch):
    seen = []

    def silent_proxy(**kwargs):
        seen.append(socket.getdefaulttimeout())
        raise OSError("timed out")

    monkeypatch.setattr(keras.applications, "MobileNetV2", silent_proxy)
    with pytest.raises(
        UserError, match=r"mobilenet_v2 cannot be downloaded \(timed out\).*--weights=FILE"
    ):
        backbones.create_backbone("mobilenet_v2", 96, "imagenet")
    assert seen[0] is not None
    assert seen[0] <= 30
    assert socket.getdefaulttimeout() is None


def test_mobilenet_with_the_given_weights_takes_a_step_at_96_px():
    weights = shared_path("weights/mobilenet_v2_imagenet_notop.h5")
    model = create_model(
        "mobilenet_v2", image_size=96, channels=1, num_classes=4, weights=str(weights)
    )
    images, labels = toy.images_and_labels(4, size=96)
    with tf.GradientTape() as tape:
        logits = model(images, training=True)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(labels, logits)
    gradients = tape.gradient(loss, model.trainable_variables)
    assert logits.shape == (4, 4)
    assert all(np.isfinite(g).all() and np.abs(g).max() > 0 for g in gradients[:3] + gradients[-2:])
    # Not random: ImageNet's first filters have means far from a fresh initialisation's.
    random = create_model("mobilenet_v2", image_size=96, channels=1, num_classes=4)
    assert np.abs(model.get_weights()[0]).max() > 2 * np.abs(random.get_weights()[0]).max()
