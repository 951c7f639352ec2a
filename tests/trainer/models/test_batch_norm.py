import keras
import numpy as np
import pytest

from tests.trainer import toy
from trainer.models import batch_norm
from trainer.models.classifier import create_model, seed_states


def _create_tiny(**settings):
    return create_model("tiny", image_size=32, channels=1, num_classes=toy.NUM_CLASSES, **settings)


@pytest.mark.slow
def test_adapted_evaluation_agrees_with_training_mode_where_shipped_momentum_does_not(strategy):
    adapted = toy.train_toy(strategy, momentum=0.999, policy="adapt")
    shipped = toy.train_toy(strategy, momentum=0.999, policy="train")
    assert adapted["training_mode_loss"] == shipped["training_mode_loss"] < 0.3
    assert abs(adapted["evaluation_loss"] - adapted["training_mode_loss"]) < 0.05
    assert shipped["evaluation_loss"] > 3 * shipped["training_mode_loss"]


def test_moments_are_those_of_all_images(strategy):
    model = _create_tiny()
    estimator = batch_norm.MomentEstimator(strategy, model)
    images, labels = toy.images_and_labels(48)
    images[:16] //= 4  # batches that differ: the variance between them counts
    estimator.estimate(iter(toy.distributed(strategy, images, labels)), 3)

    network = model.get_layer("tiny")
    first = keras.Model(network.input, network.get_layer("conv1").output)
    maps = first(np.repeat(images, 3, -1) / 127.5 - 1.0).numpy()
    layer = network.get_layer("bn1")
    np.testing.assert_allclose(layer.moving_mean, maps.mean((0, 1, 2)), atol=1e-5)
    np.testing.assert_allclose(layer.moving_variance, maps.var((0, 1, 2)), rtol=1e-3)


def test_estimating_moves_neither_momentum_nor_weights_nor_dropout(strategy):
    model = _create_tiny(dropout=0.5, head_units=(8,))
    before = [variable.numpy() for variable in model.trainable_variables]
    seeds = [state.numpy() for state in seed_states(model)]
    estimator = batch_norm.MomentEstimator(strategy, model)
    results = []
    for _ in range(2):
        estimator.estimate(iter(toy.distributed(strategy, *toy.images_and_labels(32))), 2)
        results.append(model.get_layer("tiny").get_layer("bn4").moving_mean.numpy())
    np.testing.assert_array_equal(*results)
    assert {layer.momentum for layer in estimator.layers} == {0.9}
    for variable, value in zip(model.trainable_variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)
    for state, value in zip(seed_states(model), seeds, strict=True):
        np.testing.assert_array_equal(state, value)


def test_frozen_layers_stay_as_they_are_and_normalise_as_in_evaluation():
    model = _create_tiny()
    batch_norm.apply_policy(model, "frozen")
    images, _ = toy.images_and_labels(8)
    np.testing.assert_allclose(model(images, training=True), model(images, training=False))
    assert not any("bn" in variable.path for variable in model.trainable_variables)


def test_frozen_backbone_has_nothing_to_estimate(strategy):
    model = _create_tiny(trainable="head")
    assert batch_norm.MomentEstimator(strategy, model).layers == []


@pytest.mark.slow
def test_two_replicas_agree_on_statistics_and_with_training_mode():
    outcome = toy.train_toy_replicated(2)
    assert outcome["spread_when_trained"] == outcome["spread_over_replicas"] == 0.0
    assert abs(outcome["evaluation_loss"] - outcome["training_mode_loss"]) < 0.05


@pytest.mark.slow
def test_unsynchronized_replicas_normalise_by_their_own_part_and_are_averaged(strategy):
    outcome = toy.train_toy_replicated(2, synchronized=False, policy="train")
    assert outcome["spread_when_trained"] > 1e-3
    assert outcome["spread_when_averaged"] == outcome["spread_over_replicas"] == 0.0
    assert outcome["off_the_mean_when_averaged"] < 1e-6
    alone = toy.train_toy(strategy, policy="train")
    assert abs(outcome["losses"][-1] - alone["losses"][-1]) > 1e-3
