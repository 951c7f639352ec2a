"""Processes that work together are reached directly, not through a proxy."""

from __future__ import annotations

import os
from collections.abc import Iterable

_VARIABLE = "no_grpc_proxy"  # gRPC reads it before no_proxy
_THIS_MACHINE = ("localhost", "127.0.0.1", "::1")


def reach_directly(hosts: Iterable[str] = ()) -> None:
    """Keeps gRPC from asking the proxy of `http_proxy`, which many offices set, for the way to the
    other processes of a job: it does not know them, and all would wait for ever.

    Sets an environment variable, which also the processes get that are started afterwards. Call it
    before the first connection.

    Args:
      hosts: names or addresses of other machines, without ports.
    """
    given = os.environ.get(_VARIABLE) or os.environ.get("no_proxy", "")
    names = [*given.split(","), *_THIS_MACHINE, *hosts]
    os.environ[_VARIABLE] = ",".join(dict.fromkeys(filter(None, names)))


def hosts_of(addresses: Iterable[str]) -> list[str]:
    """The hosts of `host:port` addresses; [::1]:80 is of ::1."""
    return [one.rpartition(":")[0].strip("[]") for one in addresses]
