"""One worker process and two, each on a core of its own, for `benchmarks.training`."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import socket
from collections.abc import Sequence

from benchmarks.training import rounds as rounds_of
from benchmarks.training.process import Process, command
from benchmarks.training.report import CPU_CORE, ONE_WORKER, STRONG, WEAK, WEAK_LOCAL, Round
from trainer.settings.config import TrainConfig


def measure(config: TrainConfig, steps: int, rounds: int) -> list[Round]:
    """Images a second over all workers; empty where it cannot be measured, which is said.

    Every worker is pinned to a core, which TensorFlow takes for the whole machine: each of its
    thread pools has one thread.
    """
    cores = _cores()
    if len(cores) < 2 or not shutil.which("taskset"):
        print(f"workers: skipped, there are {len(cores)} cores, or no taskset", flush=True)
        return []
    config = dataclasses.replace(config, strategy="multi_worker")
    doubled = dataclasses.replace(config, batch_size=2 * config.batch_size)
    trainings = {
        CPU_CORE: (dataclasses.replace(config, strategy="cpu"), 1),
        ONE_WORKER: (config, 1),
        WEAK: (doubled, 2),
        STRONG: (config, 2),
        WEAK_LOCAL: (dataclasses.replace(doubled, sync_batch_norm=False), 2),
    }
    if config.batch_size % 2:
        print(f"workers: {STRONG}: skipped, --batch_size={config.batch_size} is odd", flush=True)
        del trainings[STRONG]
    with contextlib.ExitStack() as stack:
        systems = {}
        for name, (own, count) in trainings.items():
            processes = _start(own, cores[:count])
            systems[name] = rounds_of.System(
                [stack.enter_context(process) for process in processes], {"steps": steps}
            )
        return rounds_of.measure("workers", systems, rounds)


def _start(config: TrainConfig, cores: Sequence[int]) -> list[Process]:
    """A process on each of the cores; they find each other by TF_CONFIG."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in cores]
    addresses = [f"127.0.0.1:{server.getsockname()[1]}" for server in held]
    for server in held:
        server.close()
    started = []
    for index, core in enumerate(cores):
        cluster = {
            "cluster": {"worker": addresses},
            "task": {"type": "worker", "index": index},
        }
        pinned = ["taskset", "--cpu-list", str(core), *command("loop", config)]
        started.append(Process(pinned, {**os.environ, "TF_CONFIG": json.dumps(cluster)}))
    return started


def _cores() -> list[int]:
    """Those that this process may use."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
