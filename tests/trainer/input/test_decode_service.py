"""Batches that two real servers decode are the trainer's own, in its order."""

import time

import numpy as np
import pytest
import tensorflow as tf

from cxr_tfrecords.errors import UserError
from tests.helpers import COUNTS, write_dataset
from tests.trainer import equality, processes
from trainer.balancing import mixup, samplers
from trainer.balancing.class_shares import Sampling
from trainer.input import decode_service
from trainer.input.split_batches import SplitSource
from trainer.settings.config import TrainConfig


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    data = write_dataset(tmp_path_factory.mktemp("set"), num_shards=3)
    return SplitSource(data, "train", cache="none")


@pytest.fixture(scope="module")
def addresses():
    """Of two servers, each a process of its own."""
    ports = equality.free_ports(2)
    servers = [
        processes.Process("trainer.decode_server", f"--port={port}", "--host=localhost")
        for port in ports
    ]
    try:
        for server, port in zip(servers, ports, strict=True):
            while "\n" not in server.read_output():
                assert server.poll() is None, server.communicate()
                time.sleep(0.05)
            line = server.read_output().splitlines()[0]
            assert f"--data_service=localhost:{port}" in line
        yield tuple(f"localhost:{port}" for port in ports)
    finally:
        for server in servers:
            server.kill()
            server.communicate()


def _plan(sampler):
    return samplers.draw_epoch(Sampling(sampler), COUNTS["train"], batch_size=8, seed=3, epoch=0)


def _read(dataset):
    return [tuple(part.numpy() for part in element) for element in dataset]


def _assert_same(left, right):
    assert len(left) == len(right) > 0
    for one, other in zip(left, right, strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("sampler", "start_step"),
    [("oversample", 1), pytest.param("rejection", 0, marks=pytest.mark.slow)],
)
def test_two_servers_deliver_the_batches_of_one_process(sampler, start_step, source, addresses):
    assert decode_service.connect(",".join(addresses)).addresses == addresses
    settings = {"batch_size": 8, "start_step": start_step}
    here = source.training(_plan(sampler), **settings)
    there = source.training(_plan(sampler), **settings, servers=addresses)
    assert there.element_spec == here.element_spec
    _assert_same(_read(there), _read(here))


@pytest.mark.slow
def test_hosts_of_a_cluster_each_get_their_part_mixed(source, addresses):
    plan = _plan("weighted")
    mixing = mixup.draw_partners("plain", 0.2, plan, COUNTS["train"], seed=3, epoch=0, flip=True)
    for number in range(2):
        context = tf.distribute.InputContext(2, number, 4)
        settings = {"batch_size": 8, "context": context, "mixing": mixing}
        _assert_same(
            _read(source.training(plan, **settings, servers=addresses)),
            _read(source.training(plan, **settings)),
        )


@pytest.mark.slow
def test_local_rehearses_on_servers_of_this_process(source):
    services = decode_service.connect("local")
    assert len(services.addresses) == 2
    plan = _plan("none")
    _assert_same(
        _read(source.training(plan, batch_size=8, servers=services.addresses)),
        _read(source.training(plan, batch_size=8)),
    )


def test_address_where_nobody_answers_names_the_command():
    (port,) = equality.free_ports(1)
    with pytest.raises(UserError, match=f"trainer.decode_server --port={port}"):
        decode_service.connect(f"localhost:{port}")
    with pytest.raises(UserError, match="is not host:port"):
        decode_service.connect("localhost")


def test_cached_images_are_not_for_a_service():
    with pytest.raises(UserError, match="--cache=none"):
        TrainConfig("data", data_service="local")
