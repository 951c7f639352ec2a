import dataclasses
import json

import pytest

from cxr_tfrecords.errors import UserError
from trainer import config
from trainer.config import TrainConfig


def test_config_survives_json():
    settings = TrainConfig(
        data_dir="d", head_units=(64, 8), target_distribution=(("A", 0.25), ("B", 0.75))
    )
    assert TrainConfig.from_json(json.loads(json.dumps(settings.to_json()))) == settings


def test_sentinels_become_values():
    assert TrainConfig(data_dir="d").weights == "none"
    settings = TrainConfig(data_dir="d", backbone="resnet50", sampler="weighted", seed=7)
    assert settings.weights == "imagenet"
    assert settings.run_dir == "runs/resnet50-weighted-seed7"


def test_differences_name_flag_and_both_values_but_not_where_it_runs():
    there = TrainConfig(data_dir="d", batch_size=8, strategy="mirrored", checkpoint_keep=9)
    here = TrainConfig(data_dir="moved", batch_size=32)
    assert here.differences(there.to_json()) == ["--batch_size: 8 there, 32 here"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sampler", "smote"),
        ("trainable", "from:"),
        ("trainable", "last"),
        ("epochs", 0),
        ("dropout", 1.0),
        ("learning_rate", 0.0),
        ("reduce_lr_factor", 1.0),
        ("head_units", (0,)),
    ],
)
def test_impossible_settings_name_their_flag(field, value):
    with pytest.raises(UserError, match=f"--{field}="):
        dataclasses.replace(TrainConfig(data_dir="d"), **{field: value})


def test_target_distribution_follows_the_classes_order_and_sums_to_one():
    pairs = config.parse_distribution(["B C=3", "A=1"])
    settings = TrainConfig(data_dir="d", target_distribution=pairs)
    assert settings.target_shares(["A", "B C"]) == (0.25, 0.75)
    assert TrainConfig(data_dir="d").target_shares(["A", "B C"]) is None
    with pytest.raises(UserError, match="'D' unknown or left out"):
        settings.target_shares(["A", "B C", "D"])


@pytest.mark.parametrize("items", [["A"], ["=1"], ["A=x"], ["A=1", "A=2"]])
def test_malformed_target_distribution_is_refused(items):
    with pytest.raises(UserError, match="--target_distribution"):
        config.parse_distribution(items)


def test_malformed_head_units_are_refused():
    assert config.parse_head_units(["256", " 64"]) == (256, 64)
    assert config.parse_head_units([]) == ()
    with pytest.raises(UserError, match="--head_units"):
        config.parse_head_units(["wide"])
