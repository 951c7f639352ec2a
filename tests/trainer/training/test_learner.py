"""What moments are taken from; the rest of a run's parts is tested where it is used."""

import numpy as np
import pytest

from tests import helpers
from trainer.settings.config import TrainConfig
from trainer.training.learner import plan_moments

COUNTS = {"train": (16, 16, 24, 8), "validation": (2, 2, 2, 2), "test": (2, 2, 2, 2)}


@pytest.mark.parametrize(
    ("batch_norm", "shares"),
    [("adapt", [0.25, 0.25, 0.25, 0.25]), ("adapt_natural", [0.25, 0.25, 0.375, 0.125])],
)
def test_moments_come_from_the_sampled_stream_or_from_natural_images(tmp_path, batch_norm, shares):
    data = helpers.write_dataset(tmp_path, COUNTS)
    config = TrainConfig(
        data.path, sampler="undersample", batch_norm=batch_norm, batch_size=8, bn_examples=1000
    )
    plan = plan_moments(config, data)
    np.testing.assert_allclose(np.bincount(plan.labels) / len(plan.labels), shares)


def test_moments_need_no_more_than_the_images_asked_for(tmp_path):
    data = helpers.write_dataset(tmp_path, COUNTS)
    config = TrainConfig(data.path, batch_size=8, bn_examples=12)
    assert len(plan_moments(config, data).labels) == 16  # whole batches


def test_moments_follow_the_epoch_where_the_class_mix_moves(tmp_path):
    data = helpers.write_dataset(tmp_path, COUNTS)

    def shares(epoch, **settings):
        config = TrainConfig(data.path, batch_size=8, bn_examples=64, epochs=2, **settings)
        labels = plan_moments(config, data, epoch).labels
        return np.bincount(labels) / len(labels)

    natural, halfway = [0.25, 0.25, 0.375, 0.125], [0.25, 0.25, 0.3125, 0.1875]
    np.testing.assert_allclose(shares(0, sampler="progressive"), natural)
    np.testing.assert_allclose(shares(1, sampler="progressive"), halfway)
    natural_always = {"sampler": "progressive", "batch_norm": "adapt_natural"}
    np.testing.assert_allclose(shares(1, **natural_always), natural)
    powers = {"sampler": "weighted", "balance_power": 0.3, "batch_norm": "adapt_natural"}
    np.testing.assert_allclose(shares(1, **powers), natural)
