"""Training images decoded by other machines, with tf.data service, in the order of the plan.

  python -m trainer.decode_server --port=5050          # on every machine that decodes
  python -m trainer.main --cache=none --data_service=HOST1:5050,HOST2:5050 …

A dispatcher with several workers either delivers batches in the order in which they finish, or has
each worker deliver everything; its static shards can be read only on the workers' own machines
(TensorFlow 2.21, `ShardingPolicy`). So each address here is a dispatcher with a single worker. Each
of n servers decodes every n-th batch, and the trainer takes their batches in turn. A step then
trains on the same batch as without the service, bit for bit. Each server reads all records of the
shards, which is cheap, and decodes only its part, which is expensive. It must see the shards under
the same path as the trainer.
"""

from __future__ import annotations

import dataclasses
import socket
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from cxr_tfrecords.concurrency import no_proxy
from cxr_tfrecords.errors import UserError, first_line

# Number of servers that `--data_service=local` starts; two, to test that their order is kept.
_LOCAL_SERVERS = 2
_CONNECT_SECONDS = 5.0


@dataclasses.dataclass(frozen=True)
class Services:
    """Servers that decode: `addresses`, each host:port; without any, the trainer itself decodes.

    `running` keeps the servers alive that belong to this process.
    """

    addresses: tuple[str, ...] = ()
    running: tuple[Any, ...] = ()


def connect(value: str) -> Services:
    """The servers that `--data_service` names.

    Args:
      value: empty, `local` for servers inside this process, or addresses separated by commas.

    Raises:
      UserError: an address is malformed, or no server answers there.
    """
    if not value:
        return Services()
    if value == "local":
        servers = [start_server() for _ in range(_LOCAL_SERVERS)]
        return Services(tuple(server.address for server in servers), tuple(servers))
    addresses = tuple(part.strip() for part in value.split(","))
    for address in addresses:
        host, _, port = address.rpartition(":")
        if not host or not port.isdigit():
            raise UserError(
                f"--data_service={value}: {address!r} is not host:port: give one, or local"
            )
        try:
            socket.create_connection((host, int(port)), _CONNECT_SECONDS).close()
        except OSError as error:
            raise UserError(
                f"--data_service={value}: no server answers at {address} ({error}): start "
                f"`python -m trainer.decode_server --port={port}` there"
            ) from error
    no_proxy.reach_directly(no_proxy.hosts_of(addresses))
    return Services(addresses)


def take_in_turn(
    shares: Sequence[tf.data.Dataset], addresses: Sequence[str], num_batches: int
) -> tf.data.Dataset:
    """Batches of `shares`, each made by its server, in the order 0, 1, …, 0, 1, ….

    Args:
      shares: one data set for each server; batch k is the next one of share k % len(shares).
      addresses: host:port of each server.
      num_batches: number of batches of all shares together.
    """
    service = tf.data.experimental.service
    delivered = [
        share.apply(
            service.distribute(
                processing_mode=service.ShardingPolicy.OFF,
                service=f"grpc://{address}",
                target_workers="ANY",
            )
        )
        for share, address in zip(shares, addresses, strict=True)
    ]
    turns = tf.data.Dataset.from_tensor_slices(np.arange(num_batches, dtype=np.int64) % len(shares))
    return tf.data.Dataset.choose_from_datasets(delivered, turns, stop_on_empty_dataset=False)


@dataclasses.dataclass(frozen=True)
class Server:
    """A dispatcher and its only worker."""

    address: str
    dispatcher: Any
    worker: Any


def start_server(host: str = "localhost", port: int = 0) -> Server:
    """Starts a server in this process.

    Args:
      host: the name under which trainers reach this machine.
      port: port of the dispatcher; the worker listens on the next one. 0: two free ports.

    Raises:
      UserError: the port is taken.
    """
    service = tf.data.experimental.service
    no_proxy.reach_directly([host])
    try:
        dispatcher = service.DispatchServer(service.DispatcherConfig(port=port))
        chosen_port = dispatcher.target.rpartition(":")[2]
        worker_port = port and port + 1
        worker = service.WorkerServer(
            service.WorkerConfig(
                dispatcher_address=f"localhost:{chosen_port}",
                worker_address=f"{host}:{worker_port or '%port%'}",
                port=worker_port,
            )
        )
    except tf.errors.OpError as error:
        raise UserError(f"--port={port}: {first_line(error, 160)}: choose another port") from error
    return Server(f"{host}:{chosen_port}", dispatcher, worker)
