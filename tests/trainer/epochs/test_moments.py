"""The images that BatchNormalization's statistics are taken from."""

import numpy as np
import pytest

from trainer.epochs.plan import EpochPlanner
from trainer.settings.config import TrainConfig

NAMES, COUNTS = ("A", "B", "C", "D"), (16, 16, 24, 8)


def _labels(epoch=0, **settings):
    config = TrainConfig(batch_size=8, **settings)
    plan, mixing = EpochPlanner(config, NAMES, COUNTS).moments(epoch)
    assert mixing is None
    return plan.labels


@pytest.mark.parametrize(
    ("batch_norm", "shares"),
    [("adapt", [0.25, 0.25, 0.25, 0.25]), ("adapt_natural", [0.25, 0.25, 0.375, 0.125])],
)
def test_moments_come_from_the_sampled_stream_or_from_natural_images(batch_norm, shares):
    labels = _labels(sampler="undersample", batch_norm=batch_norm, bn_examples=1000)
    np.testing.assert_allclose(np.bincount(labels) / len(labels), shares)


def test_moments_need_no_more_than_the_images_asked_for():
    assert len(_labels(bn_examples=12)) == 16  # whole batches


def test_moments_follow_the_epoch_where_the_class_mix_moves():
    def shares(epoch, **settings):
        labels = _labels(epoch, bn_examples=64, epochs=2, **settings)
        return np.bincount(labels) / len(labels)

    natural, equal = [0.25, 0.25, 0.375, 0.125], [0.25, 0.25, 0.25, 0.25]
    np.testing.assert_allclose(shares(0, sampler="progressive"), natural)
    np.testing.assert_allclose(shares(1, sampler="progressive"), equal)
    natural_always = {"sampler": "progressive", "batch_norm": "adapt_natural"}
    np.testing.assert_allclose(shares(1, **natural_always), natural)
    powers = {"sampler": "weighted", "balance_power": 0.3, "batch_norm": "adapt_natural"}
    np.testing.assert_allclose(shares(1, **powers), natural)
