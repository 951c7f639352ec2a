import json
import time

import pytest

from cxr_tfrecords.errors import UserError
from trainer.distribution import strategies, tpu_versions


def test_tpu_without_one_is_one_quick_line():
    started = time.monotonic()
    with pytest.raises(UserError, match="--strategy=tpu finds no TPU at --tpu=local") as caught:
        strategies.create_strategy("tpu")
    assert "\n" not in str(caught.value)
    assert time.monotonic() - started < 20


def test_mirrored_without_gpu_names_the_ways_out():
    with pytest.raises(UserError, match="--virtual_devices=N"):
        strategies.create_strategy("mirrored")


@pytest.mark.parametrize(
    "value",
    [
        "",
        "{",
        "[]",
        json.dumps({"cluster": {"worker": ["a:1"]}}),
        json.dumps({"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}),
    ],
)
def test_multi_worker_without_a_usable_tf_config_says_so(monkeypatch, value):
    monkeypatch.setenv("TF_CONFIG", value)
    with pytest.raises(UserError, match="TF_CONFIG"):
        strategies.create_strategy("multi_worker")


def test_batch_must_divide_by_the_replicas():
    class ThreeReplicas:
        num_replicas_in_sync = 3

    strategies.check_batch_size(30, ThreeReplicas())
    with pytest.raises(UserError, match="--batch_size=33"):
        strategies.check_batch_size(32, ThreeReplicas())


def test_single_process_is_chief_and_waits_for_nobody():
    strategy = strategies.create_strategy("cpu")
    assert strategies.is_chief(strategy)
    strategies.wait_for_all(strategy)
    assert strategies.describe(strategy) == "CPU"


WORKERS = {"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 0}}


@pytest.mark.parametrize(
    ("environment", "settings", "chosen"),
    [
        ({}, {}, ("cpu", "found no TPU, no other workers and no GPU")),
        ({}, {"virtual_devices": 2}, ("mirrored", "--virtual_devices=2")),
        ({"TF_CONFIG": json.dumps(WORKERS)}, {}, ("multi_worker", "TF_CONFIG names 2 processes")),
        ({}, {"tpu": "my-tpu"}, ("tpu", "--tpu=my-tpu")),
    ],
)
def test_auto_takes_what_is_there_and_says_why(environment, settings, chosen):
    assert strategies.choose_strategy(environment, **settings) == chosen


@pytest.mark.parametrize("libtpu", [None, "0.0.46", "0.0.52", "0.1"])
def test_libtpu_that_tensorflow_would_abort_on_is_one_line(libtpu):
    with pytest.raises(UserError, match=r"pip install 'libtpu<=0\.0\.43\.2'") as caught:
        tpu_versions.check_libtpu({"tensorflow-tpu": "2.20.0", "libtpu": libtpu})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("libtpu", ["0.0.20", "0.0.43.2"])
def test_libtpu_that_matches_passes(libtpu):
    tpu_versions.check_libtpu({"tensorflow-tpu": "2.20.0", "libtpu": libtpu})


def test_other_tensorflow_is_not_judged_by_libtpu():
    tpu_versions.check_libtpu({"tensorflow-tpu": None, "libtpu": "0.0.52"})
