"""Which processes train together, read from the variables that a scheduler sets for each of them.

TensorFlow reads the cluster from a JSON text, TF_CONFIG, in each worker's environment. If it is
set, it is used unchanged. Otherwise it is made from the variables of SLURM or Kubernetes, so that
`srun python -m trainer.main --strategy=multi_worker` needs no wrapper. (TensorFlow's own
SlurmClusterResolver sorts nodes by name, so that n10 comes before n2 and ranks point to the wrong
nodes; it also fails on nodes without a GPU.)
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from cxr_tfrecords.errors import UserError

_PORT = 8888
# SLURM jobs may share a node, so the first port depends on the job's number. It lies between
# _FIRST_SLURM_PORT and _FIRST_SLURM_PORT + _NUM_SLURM_PORTS.
_FIRST_SLURM_PORT, _NUM_SLURM_PORTS = 20000, 10000
_SLURM = ("SLURM_PROCID", "SLURM_STEP_NODELIST", "SLURM_STEP_TASKS_PER_NODE")
_KUBERNETES = ("CXR_WORKERS", "CXR_WORKER_SERVICE", "HOSTNAME")


def find_cluster(environment: Mapping[str, str]) -> tuple[dict[str, Any], str] | None:
    """The content of TF_CONFIG for this process, and where it comes from.

    Args:
      environment: `os.environ`. The first of these that is set is used:
        TF_CONFIG;
        SLURM_PROCID and the SLURM_STEP_* of a job step with more than one task;
        JOB_COMPLETION_INDEX of an indexed Kubernetes Job. Its manifest must also set CXR_WORKERS,
        the number of pods, and CXR_WORKER_SERVICE, the headless service (of a JobSet: its name).

    Returns:
      The content and `TF_CONFIG`, `SLURM` or `Kubernetes`; None if the environment describes no
      cluster.

    Raises:
      UserError: a variable is missing or has a wrong value.
    """
    if environment.get("TF_CONFIG"):
        return _check_tf_config(environment["TF_CONFIG"]), "TF_CONFIG"
    if int(environment.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
        return _from_slurm(environment), "SLURM"
    if "JOB_COMPLETION_INDEX" in environment and "CXR_WORKERS" in environment:
        return _from_kubernetes(environment), "Kubernetes"
    return None


def num_processes(tf_config: Mapping[str, Any]) -> int:
    """Number of processes of a cluster that train."""
    cluster = tf_config["cluster"]
    return len(cluster.get("worker", ())) + len(cluster.get("chief", ()))


def is_chief(tf_config: Mapping[str, Any]) -> bool:
    """Whether the process of this TF_CONFIG is the one that writes the run directory."""
    task = tf_config["task"]
    if task["type"] == "worker" and "chief" not in tf_config["cluster"]:
        return int(task["index"]) == 0
    return task["type"] == "chief"


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
            f'"worker", "index": 0}}}}, with an index into that list; it is {text!r}'
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
        workers = [
            (node, local)
            for node, count in zip(nodes, tasks, strict=True)
            for local in range(count)
        ]
        expected, _ = workers[rank]
    except (ValueError, AssertionError, IndexError) as error:
        values = ", ".join(f"{name}={environment[name]}" for name in _SLURM)
        raise UserError(
            f"SLURM's list of workers cannot be read ({values}): set TF_CONFIG"
        ) from error
    if environment.get("SLURMD_NODENAME", expected) != expected:
        raise UserError(
            f"task {rank} runs on {environment['SLURMD_NODENAME']} and not on {expected}: "
            "give srun --distribution=block"
        )
    job = int(environment.get("SLURM_JOB_ID", "0"))
    first = _FIRST_SLURM_PORT + job * 16 % _NUM_SLURM_PORTS
    return _workers([f"{node}:{first + local}" for node, local in workers], rank)


def _from_kubernetes(environment: Mapping[str, str]) -> dict[str, Any]:
    index = environment["JOB_COMPLETION_INDEX"]
    missing = [name for name in _KUBERNETES if not environment.get(name)]
    if missing:
        raise UserError(
            f"an indexed Job (JOB_COMPLETION_INDEX={index}) also needs {', '.join(missing)} in the "
            "environment (the number of pods, the headless service, the pod's name): set it in the "
            "manifest"
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
