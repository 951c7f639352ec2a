"""Each layer of the backbone gets its share of the learning rate."""

import numpy as np
import pytest
import tensorflow as tf

from cxr_tfrecords.errors import UserError
from tests.trainer import toy
from trainer.models.classifier import create_model
from trainer.settings.config import TrainConfig
from trainer.settings.table import OPTIMIZERS
from trainer.training import depth_rates, steps


@pytest.fixture(scope="module")
def model():
    return create_model("tiny", image_size=32, channels=1, num_classes=toy.NUM_CLASSES)


def test_the_rate_rises_by_one_factor_from_layer_to_layer(model):
    factors = depth_rates.factors(model, 0.1)
    names = [variable.path.split("/")[-2] for variable in model.trainable_variables]
    layers = list(dict.fromkeys(names))
    assert layers == [f"{kind}{n}" for n in range(1, 5) for kind in ("conv", "bn")] + ["logits"]
    expected = {name: 0.1 ** ((8 - number) / 8) for number, name in enumerate(layers)}
    np.testing.assert_allclose(factors, [expected[name] for name in names])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_updates_and_not_gradients_are_multiplied(model, name):
    before = model.get_weights()
    rng = np.random.default_rng(0)
    gradients = [
        [tf.constant(rng.normal(size=v.shape), tf.float32) for v in model.trainable_variables]
        for _ in range(2)
    ]

    def updates(factor):
        model.set_weights(before)
        start = [np.array(v) for v in model.trainable_variables]
        optimizer = steps.create_optimizer(name, 0.5, model, first_layer_factor=factor)
        for of_step in gradients:
            optimizer.apply(of_step, model.trainable_variables)
        return [np.array(v) - s for v, s in zip(model.trainable_variables, start, strict=True)]

    plain, graded = updates(1.0), updates(0.1)
    model.set_weights(before)
    for one, other, factor in zip(plain, graded, depth_rates.factors(model, 0.1), strict=True):
        np.testing.assert_allclose(other, one * factor, rtol=1e-4, atol=1e-6)


def test_a_frozen_backbone_has_no_first_layer_that_learns():
    with pytest.raises(UserError, match="--trainable=head trains none"):
        TrainConfig("", trainable="head", first_layer_lr_factor=0.1)
