"""Runners of Beam that tests of the build and of predictions start."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import time

import pytest

from tests.beam_pipelines import commands

DASK_RUNNER = "DaskRunner"
# A cluster of two processes that writes its address into a file, and then waits to be killed.
DASK_CLUSTER = """
import pathlib, sys, time
from dask.distributed import LocalCluster
if __name__ == "__main__":
    cluster = LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    )
    pathlib.Path(sys.argv[1]).write_text(cluster.scheduler_address)
    time.sleep(600)
"""


def wait_for(condition, what, seconds=30.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what} did not come in {seconds} s"
        time.sleep(0.05)


def is_listening(port):
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


@pytest.fixture(scope="session", autouse=True)
def no_salt_at_home(tmp_path_factory):
    """The secret of patient ids is made in a folder that only these tests have."""
    os.environ["XDG_CONFIG_HOME"] = str(tmp_path_factory.mktemp("config"))


@contextlib.contextmanager
def logged(folder, environment):
    """How to run a service: in a folder, with its output in a file there (a pipe would fill up)."""
    with open(folder / "log", "w") as log:
        yield {"env": environment, "cwd": folder, "stdout": log, "stderr": log}


@pytest.fixture(scope="module")
def renames(tmp_path_factory):
    return commands.Renames(tmp_path_factory.mktemp("renames"))


@pytest.fixture(scope="module")
def external(renames, tmp_path_factory):
    """Flags of Beam's job service, with a pool of workers that are processes of their own."""
    folder = tmp_path_factory.mktemp("external")
    with socket.create_server(("127.0.0.1", 0)) as server:
        pool_port = server.getsockname()[1]
    # The pool starts `python`, whatever that is: another one than this would never answer.
    (folder / "bin").mkdir()
    (folder / "bin" / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (folder / "bin" / "python").chmod(0o755)
    path = os.pathsep.join([str(folder / "bin"), os.environ["PATH"]])
    beam = "apache_beam.runners"
    with (
        logged(folder, {**renames.environment, "PATH": path}) as where,
        commands.process(
            *(sys.executable, "-m", f"{beam}.worker.worker_pool_main"),
            f"--service_port={pool_port}",
            **where,
        ),
        commands.process(
            *(sys.executable, "-m", f"{beam}.portability.local_job_service_main"),
            f"--port_file={folder}/port",
            **where,
        ),
    ):
        wait_for((folder / "port").exists, "the job service")
        wait_for(lambda: is_listening(pool_port), "the worker pool")
        yield [
            "--runner=PortableRunner",
            f"--job_endpoint=localhost:{(folder / 'port').read_text()}",
            "--environment_type=EXTERNAL",
            f"--environment_config=localhost:{pool_port}",
        ]


@pytest.fixture(scope="module")
def dask(renames, tmp_path_factory):
    pytest.importorskip("distributed", reason="needs the extra `dask`")
    folder = tmp_path_factory.mktemp("dask")
    script, address = folder / "cluster.py", folder / "address"
    script.write_text(DASK_CLUSTER)
    with (
        logged(folder, renames.environment) as where,
        commands.process(sys.executable, str(script), str(address), **where),
    ):
        wait_for(lambda: address.exists() and address.read_text(), "Dask's scheduler")
        # Two partitions at least, so that both workers have work.
        yield [
            f"--runner={DASK_RUNNER}",
            f"--dask_client_address={address.read_text()}",
            "--dask_npartitions=4",
        ]


@pytest.fixture
def beam_flags_of(request):
    """Flags of a runner by its short name; what it needs is started when first asked for."""

    def flags(runner: str) -> list[str]:
        if runner in ("external", "dask"):
            return request.getfixturevalue(runner)
        return ["--runner=DirectRunner", f"--direct_running_mode={runner}"] + (
            [] if runner == "in_memory" else ["--direct_num_workers=2"]
        )

    return flags
