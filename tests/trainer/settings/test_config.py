import dataclasses
import json

import pytest

from cxr_tfrecords.errors import UserError
from trainer.settings.config import TrainConfig
from trainer.settings.table import parse_head_units


def test_config_survives_json():
    settings = TrainConfig(
        data_dir="d", head_units=(64, 8), target_distribution=(("A", 0.25), ("B", 0.75))
    )
    assert TrainConfig.from_json(json.loads(json.dumps(settings.to_json()))) == settings
    words = TrainConfig(
        data_dir="d",
        sampler="oversample_exact",
        target_distribution="sqrt",
        sampling_strategy=(("A", 9), ("B", 8)),
    )
    assert TrainConfig.from_json(json.loads(json.dumps(words.to_json()))) == words


def test_sentinels_become_values():
    assert TrainConfig(data_dir="d").weights == "none"
    settings = TrainConfig(data_dir="d", backbone="resnet50", sampler="weighted", seed=7)
    assert settings.weights == "imagenet"
    assert settings.run_dir == "runs/resnet50-weighted-seed7"


def test_differences_name_flag_and_both_values_but_not_where_it_runs():
    elsewhere = {"strategy": "mirrored", "keep_checkpoints": 9, "profile": 20}
    there = TrainConfig(data_dir="d", batch_size=8, **elsewhere)
    here = TrainConfig(data_dir="moved", batch_size=32)
    assert here.differences(there.to_json()) == ["--batch_size: 8 there, 32 here"]


def test_settings_that_an_older_run_did_not_know_had_their_defaults_there():
    older = TrainConfig(data_dir="d", sampler="undersample").to_json()
    del older["sampling_strategy"]
    same = TrainConfig(data_dir="d", sampler="undersample", run_dir=older["run_dir"])
    assert same.differences(older) == []
    other = dataclasses.replace(same, sampling_strategy="majority")
    assert other.differences(older) == ["--sampling_strategy: auto there, majority here"]


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
        ("keep_checkpoints", 0),
        ("checkpoint_every", -1),
        ("worker_timeout", -1),
        ("profile", -1),
        ("virtual_devices", -1),
        ("drw_epoch", -1),
        ("logit_adjustment_tau", float("nan")),
        ("focal_gamma", float("inf")),
        ("cache", "disk"),
    ],
)
def test_impossible_settings_name_their_flag(field, value):
    with pytest.raises(UserError, match=f"--{field}="):
        dataclasses.replace(TrainConfig(data_dir="d"), **{field: value})


def test_malformed_head_units_are_refused():
    assert parse_head_units(["256", " 64"]) == (256, 64)
    assert parse_head_units([]) == ()
    with pytest.raises(UserError, match="--head_units"):
        parse_head_units(["wide"])
