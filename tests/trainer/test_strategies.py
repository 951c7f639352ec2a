import json
import time

import pytest

from cxr_tfrecords.errors import UserError
from trainer import strategies


def test_tpu_without_one_is_one_quick_line():
    started = time.monotonic()
    with pytest.raises(UserError, match="--strategy=tpu finds no TPU at --tpu=local") as caught:
        strategies.create_strategy("tpu")
    assert "\n" not in str(caught.value)
    assert time.monotonic() - started < 20


def test_mirrored_without_gpu_names_the_ways_out():
    with pytest.raises(UserError, match="--virtual_devices=N"):
        strategies.create_strategy("mirrored")


@pytest.mark.parametrize("value", ["", "{", "[]", json.dumps({"cluster": {"worker": ["a:1"]}})])
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
