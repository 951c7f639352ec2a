"""Every backbone: its preprocessing, smallest size, documentation, and one step with it."""

import re
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from cxr_tfrecords.errors import UserError
from tests.trainer import toy
from trainer.distribution import strategies
from trainer.models import backbones, batch_norm
from trainer.models.backbone_table import TABLE
from trainer.models.classifier import create_model, seed_states
from trainer.models.grad_cam import GradCam
from trainer.runs.checkpoints import Checkpoints
from trainer.runs.progress import Progress
from trainer.settings.config import TrainConfig
from trainer.settings.table import BACKBONES
from trainer.training import steps

DOCS = Path(__file__).parents[3] / "docs" / "backbones.md"
KERAS = [name for name, row in TABLE.items() if row.application]
# keras.applications' modules, whose preprocess_input is the reference.
MODULES = {
    "densenet": "densenet121 densenet169 densenet201",
    "inception_resnet_v2": "inception_resnet_v2",
    "inception_v3": "inception_v3",
    "mobilenet_v2": "mobilenet_v2",
    "resnet": "resnet50 resnet101 resnet152",
    "resnet_v2": "resnet50_v2 resnet101_v2",
    "vgg16": "vgg16",
    "vgg19": "vgg19",
    "xception": "xception",
}
OUTSIDE = {name: module for module, names in MODULES.items() for name in names.split()}
WITH_SWITCH = [name for name, row in TABLE.items() if row.has_switch]
QUICK_SWITCHES = ("mobilenet_v3_small",)
# Without and with BatchNormalization; the others are slow.
QUICK_STEPS = ("alexnet", "tiny")
# The smallest of each family is trained: the larger ones have more of the same layers.
LARGER = (
    *("densenet169", "densenet201", "efficientnet_b1", "efficientnet_b2", "efficientnet_b3"),
    *("efficientnet_lite1", "efficientnet_lite2", "efficientnet_v2_b1", "efficientnet_v2_b2"),
    *("efficientnet_v2_b3", "efficientnet_v2_s", "mobilenet_v3_large", "resnet34"),
    *("resnet101", "resnet101_v2", "resnet152", "vgg19"),
)
FAMILIES = [name for name in BACKBONES if name not in LARGER]


def _quick_and_slow(names, quick):
    return [n if n in quick else pytest.param(n, marks=pytest.mark.slow) for n in names]


def _documented():
    """Name to [parameters, px, weights, stage layer] of the table in the documentation."""
    rows = re.findall(r"^\| `(\w+)` \|( [\d,]+ \|.*)\|$", DOCS.read_text(), re.MULTILINE)
    return {name: [cell.strip().strip("`") for cell in rest.split("|")] for name, rest in rows}


def _pixels(channels, size=8):
    return np.random.default_rng(0).integers(0, 256, (2, size, size, channels)).astype(np.uint8)


def _preprocessed(name, pixels):
    images = keras.Input(pixels.shape[1:], dtype="uint8")
    return keras.Model(images, backbones.preprocess(name, images))(pixels)


def test_every_keras_backbone_has_a_reference_for_its_preprocessing():
    assert sorted(KERAS) == sorted(
        [*OUTSIDE, *WITH_SWITCH, *(name for name, row in TABLE.items() if row.starts_at)]
    )


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", OUTSIDE)
def test_preprocessing_is_the_backbones_own(name, channels):
    pixels = _pixels(channels)
    reference = getattr(keras.applications, OUTSIDE[name]).preprocess_input
    rgb = np.repeat(pixels, 3 // channels, axis=-1).astype(np.float32)
    np.testing.assert_allclose(_preprocessed(name, pixels), reference(rgb), atol=1e-5)


@pytest.mark.parametrize("name", _quick_and_slow(WITH_SWITCH, QUICK_SWITCHES))
def test_preprocessing_that_keras_has_inside_is_done_once(name):
    """Ours against the layers before the first weights; and none are left in our network."""
    constructor = getattr(keras.applications, TABLE[name].application)
    theirs = constructor(include_top=False, weights=None, input_shape=(32, 32, 3))
    first = next(layer for layer in theirs.layers if layer.weights)
    own = keras.Model(theirs.input, first.input)
    for channels in (1, 3):
        pixels = _pixels(channels, 32)
        rgb = np.repeat(pixels, 3 // channels, axis=-1).astype(np.float32)
        np.testing.assert_allclose(_preprocessed(name, pixels), own(rgb), atol=1e-5)
    network = backbones.create_backbone(name, 32, "none")
    assert not isinstance(network.layers[1], (keras.layers.Rescaling, keras.layers.Normalization))
    assert network.count_params() == theirs.count_params()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["efficientnet_b0", "efficientnet_b3"])
def test_efficientnet_with_a_file_is_keras_own_with_imagenet_weights(name, tmp_path, monkeypatch):
    """Keras scales once more where it loads ImageNet weights itself, but not with a file of them.

    Their Normalization holds ImageNet's means, and deviations where variances should be.
    """
    constructor = getattr(keras.applications, TABLE[name].application)
    network = constructor(include_top=False, weights=None, input_shape=(64, 64, 3))
    norm = next(la for la in network.layers if isinstance(la, keras.layers.Normalization))
    norm.set_weights(
        [np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225]), np.array(0)]
    )
    path = str(tmp_path / "imagenet.weights.h5")
    network.save_weights(path)
    # Instead of the download.
    monkeypatch.setattr("keras.src.utils.file_utils.get_file", lambda *_, **__: path)
    theirs = constructor(include_top=False, weights="imagenet", input_shape=(64, 64, 3))
    pixels = _pixels(3, 64)
    expected = theirs(pixels.astype(np.float32)).numpy()
    for weights in (path, "imagenet"):
        ours = backbones.create_backbone(name, 64, weights)(_preprocessed(name, pixels)).numpy()
        np.testing.assert_allclose(ours, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("name", KERAS)
def test_the_smallest_size_is_the_librarys_own(name):
    row = TABLE[name]
    small = (row.min_px - 1, row.min_px - 1, 3)
    with pytest.raises(ValueError, match=f"at least {row.min_px}x{row.min_px}"):
        getattr(keras.applications, row.application)(
            include_top=False, weights=None, input_shape=small
        )


@pytest.mark.parametrize(("name", "px"), [("inception_v3", 75), ("xception", 71), ("alexnet", 63)])
def test_images_that_are_too_small_are_refused_in_one_line(name, px):
    # Whatever the weights: that they could not be had would be no help.
    for weights in ("none", "imagenet") if TABLE[name].application else ("none",):
        with pytest.raises(UserError) as caught:
            backbones.create_backbone(name, px - 1, weights)
        assert re.fullmatch(
            rf"--backbone={name} needs images of at least {px} px, these have {px - 1}: .*",
            str(caught.value),
        )


@pytest.mark.parametrize(
    ("name", "weights", "features"),
    [
        # torchvision's with 1,000 classes, less the 513,000 of its last layer.
        ("resnet18", 11_689_512 - 513_000, (7, 7, 512)),
        pytest.param("resnet34", 21_797_672 - 513_000, (7, 7, 512), marks=pytest.mark.slow),
        # torchvision's, less its three dense layers.
        ("alexnet", 61_100_840 - (9216 + 1) * 4096 - 4097 * 4096 - 4097 * 1000, (6, 6, 256)),
        # efficientnet-lite-pytorch's, less their last layer.
        ("efficientnet_lite0", 4_652_008 - 1281 * 1000, (7, 7, 1280)),
        pytest.param(
            *("efficientnet_lite2", 6_092_072 - 1281 * 1000, (7, 7, 1280)), marks=pytest.mark.slow
        ),
    ],
)
def test_own_networks_have_the_published_size(name, weights, features):
    network = backbones.create_backbone(name, 224, "none")
    assert sum(np.prod(v.shape) for v in network.trainable_variables) == weights
    assert network.output_shape[1:] == features


def test_alexnets_smallest_size_leaves_one_place():
    assert backbones.create_backbone("alexnet", 63, "none").output_shape == (None, 1, 1, 256)


def test_strided_convolutions_see_the_image_as_torch_does():
    """A point in the middle of an odd-sized image stays in the middle: padding is even."""
    network = backbones.create_backbone("resnet18", 65, "none")
    first = keras.Model(network.input, network.get_layer("conv1_conv").output)
    network.get_layer("conv1_conv").set_weights([np.ones((7, 7, 3, 64), np.float32)])
    image = np.zeros((1, 65, 65, 3), np.float32)
    image[0, 32, 32] = 1
    rows = first(image).numpy()[0, :, :, 0].any(axis=1).nonzero()[0]
    np.testing.assert_array_equal(rows, [15, 16, 17])


def test_auto_weights_are_imagenets_where_keras_has_them():
    autos = {name: TrainConfig(data_dir="", backbone=name).weights for name in BACKBONES}
    assert [name for name, weights in autos.items() if weights == "none"] == [
        "alexnet", "resnet18", "resnet34", "tiny"
    ]  # fmt: skip


def test_the_documented_table_lists_every_backbone():
    documented = _documented()
    assert sorted(documented) == sorted(BACKBONES)
    for name, (_, preprocessing, px, weights, *_) in documented.items():
        row = TABLE[name]
        assert preprocessing == row.preprocessing
        assert int(px) == row.min_px
        assert weights == ("yes" if row.application else "package" if row.weights_package else "no")


def _create(name, size):
    """A network whose documented last stage is trained; it has the documented parameters."""
    parameters, *_, stage = _documented()[name]
    network = create_model(
        name, image_size=size, channels=1, num_classes=toy.NUM_CLASSES, trainable=f"from:{stage}"
    )
    backbone = network.layers[-4]
    assert f"{backbone.count_params():,}" == parameters
    assert len(backbone.trainable_variables) > 0
    if stage != backbone.layers[1].name:
        assert len(backbone.trainable_variables) < len(backbone.weights)
    return network


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGER)
def test_a_larger_backbone_has_the_documented_parameters_and_stage(name):
    _create(name, max(32, TABLE[name].min_px))


@pytest.mark.parametrize("name", _quick_and_slow(FAMILIES, QUICK_STEPS))
def test_a_backbone_trains_predicts_explains_and_is_loaded_again(name, tmp_path, monkeypatch):
    size = max(32, TABLE[name].min_px)
    strategy = strategies.create_strategy("cpu")
    network = _create(name, size)
    backbones.freeze(network.layers[-4], "all")
    images, labels = toy.images_and_labels(4, size)
    batch = toy.distributed(strategy, images, labels, batch=4)

    optimizer = steps.create_optimizer("sgd", 0.001, network)
    meters = steps.Meters(toy.NUM_CLASSES)
    train_steps = steps.make_train_steps(strategy, network, optimizer, meters, 4)
    losses = []
    for _ in range(2):
        meters.reset()
        train_steps(iter(batch), tf.constant(1))
        losses.append(meters.read().loss)
    assert np.isfinite(losses).all()
    assert losses[0] != losses[1]

    batch_norm.apply_policy(network, "adapt")
    # The training step is a graph, as users have it; another one for each of the rest would take
    # most of the time.
    monkeypatch.setattr(tf, "function", lambda f=None, **_: f or (lambda g: g))
    batch_norm.MomentEstimator(strategy, network).estimate(iter(batch), 1)
    logits = network(images).numpy()
    assert np.isfinite(logits).all()

    network.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again(images), logits)
    heat = GradCam(again).maps(images, labels)
    assert heat.shape == (4, size, size)
    assert np.isfinite(heat).all()


@pytest.mark.slow
def test_dropped_blocks_are_drawn_alike_after_a_restart_and_not_for_moments(tmp_path):
    """EfficientNet drops blocks in training: its random states must be part of a checkpoint."""
    strategy = strategies.create_strategy("cpu")
    images, labels = toy.images_and_labels(4)
    batch = toy.distributed(strategy, images, labels, batch=4)

    def losses_of(network, count):
        return [
            float(steps.cross_entropy(labels, network(images, training=True)).numpy().sum())
            for _ in range(count)
        ]

    def create(seed):
        return create_model(
            "efficientnet_b0",
            image_size=32,
            channels=1,
            num_classes=toy.NUM_CLASSES,
            dropout=0.2,
            seed=seed,
        )

    network = create(seed=3)
    assert len(seed_states(network)) == 10  # nine blocks and the head's dropout
    losses_of(network, 1)
    optimizer = steps.create_optimizer("sgd", 0.001, network)
    Checkpoints(str(tmp_path), network, optimizer).save(Progress(learning_rate=0.001))
    before = [state.numpy() for state in seed_states(network)]
    expected = losses_of(network, 2)
    assert expected[0] != expected[1]

    other = create(seed=4)
    assert losses_of(other, 1)[0] not in expected
    Checkpoints(str(tmp_path), other, steps.create_optimizer("sgd", 0.001, other)).restore_latest()
    np.testing.assert_array_equal(before, [state.numpy() for state in seed_states(other)])
    estimator = batch_norm.MomentEstimator(strategy, other)
    moments = []
    for _ in range(2):
        estimator.estimate(iter(batch), 1)
        moments.append(estimator.layers[-1].moving_variance.numpy())
    np.testing.assert_array_equal(*moments)
    np.testing.assert_array_equal(before, [state.numpy() for state in seed_states(other)])
    np.testing.assert_allclose(losses_of(other, 2), expected, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["convnext_tiny", "inception_resnet_v2"])
def test_layers_that_keras_applications_made_up_load_in_another_process(name, tmp_path):
    size = TABLE[name].min_px
    network = create_model(name, image_size=size, channels=1, num_classes=3)
    images, _ = toy.images_and_labels(2, size)
    network.save(tmp_path / "model.keras")
    np.save(tmp_path / "images.npy", images)
    code = (
        "import keras, numpy as np; m = keras.models.load_model('model.keras');"
        "np.save('logits.npy', m(np.load('images.npy')))"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True)
    logits = network(images)
    np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), logits, rtol=1e-4, atol=1e-5)
