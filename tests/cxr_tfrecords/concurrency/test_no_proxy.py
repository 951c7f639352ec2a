"""Which hosts gRPC is told to reach without a proxy; that it obeys, real processes show."""

import pytest

from cxr_tfrecords.concurrency import no_proxy

OWN = "localhost,127.0.0.1,::1"


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, f"{OWN},a,b"),
        ({"no_proxy": "intern.org,localhost"}, f"intern.org,{OWN},a,b"),
        ({"no_grpc_proxy": "x", "no_proxy": "y"}, f"x,{OWN},a,b"),
    ],
)
def test_what_the_user_excludes_stays_excluded(monkeypatch, environment, expected):
    for name in ("no_grpc_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("no_grpc_proxy", environment.get("no_grpc_proxy", ""))
    for _ in range(2):
        no_proxy.reach_directly(["a", "b"])
    assert no_proxy.os.environ["no_grpc_proxy"] == expected


def test_hosts_have_no_ports():
    assert no_proxy.hosts_of(["a.b:80", "10.0.0.1:5", "[::1]:7"]) == ["a.b", "10.0.0.1", "::1"]
