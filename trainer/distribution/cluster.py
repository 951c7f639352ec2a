"""Which processes train together, as their scheduler tells each of them.

TensorFlow wants one JSON text, TF_CONFIG, in each worker's environment. It is taken as it is where
it is set; else it is made from what SLURM or Kubernetes set, so that `srun python -m trainer.main
--strategy=multi_worker` needs no wrapper. (TensorFlow's own SlurmClusterResolver sorts nodes by
name, which gives n2 the rank of n10, and fails on nodes without a GPU.)
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from cxr_tfrecords.errors import UserError

_PORT = 8888
# SLURM jobs may share a node: each counts its ports from a number of its own.
_SLURM_PORTS = (20000, 10000)
_SLURM = ("SLURM_PROCID", "SLURM_STEP_NODELIST", "SLURM_STEP_TASKS_PER_NODE")
_KUBERNETES = ("CXR_WORKERS", "CXR_WORKER_SERVICE", "HOSTNAME")


def find_cluster(environment: Mapping[str, str]) -> tuple[dict[str, Any], str] | None:
    """The content of TF_CONFIG for this process, and who named it.

    Args:
      environment: `os.environ`, of which are read, the first that is set:
        TF_CONFIG; SLURM_PROCID and the SLURM_STEP_* of a step of several tasks; or
        JOB_COMPLETION_INDEX of an indexed Kubernetes Job, with CXR_WORKERS, the number of its pods,
        and CXR_WORKER_SERVICE, its headless service (of a JobSet: the JobSet's name), from the
        manifest.

    Returns:
      None where nothing speaks of several processes.

    Raises:
      UserError: what is set does not make sense.
    """
    if environment.get("TF_CONFIG"):
        return _check_tf_config(environment["TF_CONFIG"]), "TF_CONFIG"
    if int(environment.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
        return _from_slurm(environment), "SLURM"
    if "JOB_COMPLETION_INDEX" in environment and "CXR_WORKERS" in environment:
        return _from_kubernetes(environment), "Kubernetes"
    return None


def num_processes(tf_config: Mapping[str, Any]) -> int:
    """Processes of a cluster that train."""
    cluster = tf_config["cluster"]
    return len(cluster.get("worker", ())) + len(cluster.get("chief", ()))


def _check_tf_config(text: str) -> dict[str, Any]:
    try:
        content = json.loads(text)
        jobs, task = content["cluster"], content["task"]
        jobs[task["type"]][int(task["index"])]
        if num_processes(content) < 1:
            raise ValueError("no worker")
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise UserError(
            'TF_CONFIG must be {"cluster": {"worker": ["host:port", …]}, "task": {"type": '
            f'"worker", "index": 0}}}}, with an index of that list; it is {text!r}'
        ) from error
    return content


def _from_slurm(environment: Mapping[str, str]) -> dict[str, Any]:
    from tensorflow.python.distribute.cluster_resolver import slurm_cluster_resolver as slurm

    missing = [name for name in _SLURM if name not in environment]
    if missing:
        raise UserError(f"SLURM did not set {', '.join(missing)}: start the workers with srun")
    rank = int(environment["SLURM_PROCID"])
    try:
        nodes = slurm.expand_hostlist(environment["SLURM_STEP_NODELIST"])
        tasks = slurm.expand_tasks_per_node(environment["SLURM_STEP_TASKS_PER_NODE"])
        placed = [
            (node, local)
            for node, count in zip(nodes, tasks, strict=True)
            for local in range(count)
        ]
        own, _ = placed[rank]
    except (ValueError, AssertionError, IndexError) as error:
        told = ", ".join(f"{name}={environment[name]}" for name in _SLURM)
        raise UserError(f"SLURM's list of workers is not understood ({told}): set TF_CONFIG") from (
            error
        )
    if environment.get("SLURMD_NODENAME", own) != own:
        raise UserError(
            f"task {rank} runs on {environment['SLURMD_NODENAME']} and not on {own}: give srun "
            "--distribution=block"
        )
    start, room = _SLURM_PORTS
    first = start + int(environment.get("SLURM_JOB_ID", "0")) * 16 % room
    return _workers([f"{node}:{first + local}" for node, local in placed], rank)


def _from_kubernetes(environment: Mapping[str, str]) -> dict[str, Any]:
    index = environment["JOB_COMPLETION_INDEX"]
    missing = [name for name in _KUBERNETES if not environment.get(name)]
    if missing:
        raise UserError(
            f"an indexed Job (JOB_COMPLETION_INDEX={index}) also needs {', '.join(missing)} in the "
            "environment: its number of pods, its headless service and its pod's name"
        )
    count, service, host = (environment[name] for name in _KUBERNETES)
    if not count.isdigit() or not index.isdigit() or int(index) >= int(count):
        raise UserError(
            f"CXR_WORKERS={count} must be the number of the Job's pods, of which this is number "
            f"{index} (from 0)"
        )
    if not host.endswith(f"-{index}"):
        raise UserError(
            f"HOSTNAME={host} does not end in -{index}: the Job needs completionMode: Indexed"
        )
    job = host.removesuffix(f"-{index}")
    hosts = [f"{job}-{number}.{service}:{_PORT}" for number in range(int(count))]
    return _workers(hosts, int(index))


def _workers(addresses: list[str], index: int) -> dict[str, Any]:
    return {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
