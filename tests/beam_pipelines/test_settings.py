"""The build's settings, as its command shows and refuses them."""

import dataclasses
import subprocess
import sys

import pytest

from beam_pipelines.settings.call import BuildCall
from beam_pipelines.settings.config import BuildConfig
from cxr_tfrecords.errors import UserError


def test_help_has_every_setting_once_under_its_group():
    command = [sys.executable, "-m", "beam_pipelines.build", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    for title in BuildConfig.groups:
        assert done.stdout.count(f"\n{title}\n") == 1
    for field in (*dataclasses.fields(BuildConfig), *dataclasses.fields(BuildCall)):
        flag = f"--[no]{field.name}\n" if field.type == "bool" else f"--{field.name}="
        assert done.stdout.count(f"\n  {flag}") == (field.name != "salt_id"), field.name


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("image_size", 0),
        ("encoding", "gif"),
        ("channels", 2),
        ("test_fraction", 1.0),
        ("near_distance", 65),
        ("num_shards", -1),
        ("balance_splits", ("train",)),
    ],
)
def test_impossible_settings_name_their_flag(field, value):
    with pytest.raises(UserError, match=f"--{field}="):
        BuildConfig(**{field: value})


def test_a_call_that_contradicts_itself_is_refused():
    with pytest.raises(UserError, match="--append and --overwrite"):
        BuildCall(input_dir="d", append=True, overwrite=True)
    with pytest.raises(UserError, match="--append needs --input_dir or --input_csv"):
        BuildCall(append=True)
