"""Where a training runs: this CPU, its GPUs, several machines, or a TPU slice."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable, Mapping

import tensorflow as tf

from cxr_tfrecords.concurrency import no_proxy
from cxr_tfrecords.errors import UserError
from trainer.distribution import cluster, tpu_versions


def choose_strategy(
    environment: Mapping[str, str], *, virtual_devices: int = 0, tpu: str = "local"
) -> tuple[str, str]:
    """The strategy that `--strategy=auto` means on this machine, and why.

    A cluster is preferred to this machine's GPUs, because each of its workers uses its GPUs.

    Args:
      environment: `os.environ`.
      virtual_devices, tpu: see `create_strategy`.

    Returns:
      A strategy for `create_strategy`, and the reason in words.

    Raises:
      UserError: see `cluster.find_cluster`.
    """
    if tpu != "local":
        return "tpu", f"--tpu={tpu}"
    if tpu_versions.has_local_tpu(environment):
        return "tpu", "this machine has a TPU"
    described = cluster.find_cluster(environment)
    if described and cluster.num_processes(described[0]) > 1:
        config, source = described
        return "multi_worker", f"{source} names {cluster.num_processes(config)} processes"
    if virtual_devices:
        return "mirrored", f"--virtual_devices={virtual_devices}"
    gpus = len(tf.config.list_physical_devices("GPU"))
    if gpus:
        return "mirrored", f"this machine has {gpus} GPU{'s' if gpus > 1 else ''}"
    return "cpu", "found no TPU, no other workers and no GPU"


def create_strategy(name: str, *, virtual_devices: int = 0, tpu: str = "local"):
    """Returns the `tf.distribute.Strategy`; call it before anything else touches a device.

    Args:
      name: `cpu`, `mirrored` (all GPUs of this machine), `multi_worker` (the cluster that the
        environment describes, see `cluster.find_cluster`) or `tpu`.
      virtual_devices: with `mirrored`: number of devices to split the CPU into; 0: use the GPUs.
      tpu: with `tpu`: `local` on a TPU VM, else a TPU's name or grpc:// address.

    Raises:
      UserError: the machine does not have the devices that the strategy needs.
    """
    if name == "cpu":
        tf.config.set_visible_devices([], "GPU")
        tf.config.experimental.enable_op_determinism()
        return tf.distribute.get_strategy()
    if name == "mirrored":
        return _mirrored(virtual_devices)
    if name == "multi_worker":
        return _multi_worker()
    return _tpu(tpu)


def check_batch_size(batch_size: int, strategy) -> None:
    """Raises UserError unless the global batch divides evenly over the replicas."""
    check_divides(batch_size, strategy.num_replicas_in_sync, "replicas")


def check_divides(batch_size: int, parts: int, noun: str) -> None:
    """Raises UserError unless `batch_size` is divisible by `parts`; `noun` names the parts."""
    if batch_size % parts:
        nearest = max(1, round(batch_size / parts)) * parts
        raise UserError(
            f"--batch_size={batch_size} counts the images on all {parts} {noun} and must be "
            f"divisible by {parts}: use --batch_size={nearest}"
        )


def is_chief(strategy) -> bool:
    """Whether this process writes the run directory: the chief, or the only process."""
    resolver = strategy.cluster_resolver
    if resolver is None or not resolver.task_type:
        return True
    return resolver.task_type == "chief" or (
        resolver.task_type == "worker"
        and resolver.task_id == 0
        and "chief" not in resolver.cluster_spec().jobs
    )


def num_hosts(strategy) -> int:
    """Number of hosts that feed the devices; each reads the shards itself."""
    # TPUStrategy has a public attribute; with several workers there is only a private one.
    extended = strategy.extended
    return getattr(extended, "num_hosts", 0) or getattr(extended, "_num_workers", 1)


def wait_for_all(strategy) -> None:
    """Returns when every worker process has called it; at once if there is only one."""
    if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        make_sum(strategy)(1.0)


def make_sum(strategy) -> Callable[[float], float]:
    """Returns a function that sums a number over all replicas; every process must call it."""

    def replica(number: tf.Tensor) -> tf.Tensor:
        context = tf.distribute.get_replica_context()
        # An argument belongs to no device; `identity` puts a copy on the replica's device.
        return context.all_reduce(tf.distribute.ReduceOp.SUM, tf.identity(number))

    @tf.function
    def add_up(number: tf.Tensor) -> tf.Tensor:
        return strategy.run(replica, args=(number,))

    def total(number: float) -> float:
        return float(strategy.experimental_local_results(add_up(tf.constant(number)))[0])

    return total


def describe(strategy) -> str:
    """`CPU`, `GPU`, `4 devices`, `8 TPU cores`, …"""
    replicas = strategy.num_replicas_in_sync
    if replicas == 1 and not isinstance(strategy, tf.distribute.TPUStrategy):
        return "GPU" if tf.config.get_visible_devices("GPU") else "CPU"
    kinds = {
        tf.distribute.TPUStrategy: "TPU cores",
        tf.distribute.MultiWorkerMirroredStrategy: "devices of several workers",
    }
    kind = next((name for cls, name in kinds.items() if isinstance(strategy, cls)), "devices")
    return f"{replicas} {kind}"


def _mirrored(virtual_devices: int):
    if virtual_devices:
        tf.config.set_visible_devices([], "GPU")
        cpu = tf.config.list_physical_devices("CPU")[0]
        devices = [tf.config.LogicalDeviceConfiguration()] * virtual_devices
        try:
            tf.config.set_logical_device_configuration(cpu, devices)
        except RuntimeError as error:
            raise UserError(
                f"--virtual_devices={virtual_devices}: TensorFlow already runs in this process"
            ) from error
        tf.config.experimental.enable_op_determinism()
        return tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(virtual_devices)])
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        raise UserError(
            "--strategy=mirrored finds no GPU: use --strategy=cpu, or --virtual_devices=N to "
            "try it on N parts of the CPU"
        )
    return tf.distribute.MirroredStrategy([f"GPU:{i}" for i in range(len(gpus))])


def _multi_worker():
    described = cluster.find_cluster(os.environ)
    if described is None:
        raise UserError(
            "--strategy=multi_worker needs a cluster: the environment variable TF_CONFIG, as "
            '{"cluster": {"worker": ["host:port", …]}, "task": {"type": "worker", "index": 0}}, '
            "several SLURM tasks (srun --ntasks=N), or an indexed Kubernetes Job with CXR_WORKERS "
            "and CXR_WORKER_SERVICE"
        )
    config, source = described
    os.environ["TF_CONFIG"] = json.dumps(config)
    addresses = itertools.chain.from_iterable(config["cluster"].values())
    no_proxy.reach_directly(no_proxy.hosts_of(addresses))
    task = config["task"]
    print(
        f"{task['type']} {task['index']} of {cluster.num_processes(config)} ({source}), at "
        f"{config['cluster'][task['type']][int(task['index'])]}: waits for the others",
        flush=True,
    )
    gpus = tf.config.list_physical_devices("GPU")
    communication = tf.distribute.experimental.CommunicationImplementation
    return tf.distribute.MultiWorkerMirroredStrategy(
        communication_options=tf.distribute.experimental.CommunicationOptions(
            implementation=communication.AUTO if gpus else communication.RING
        )
    )


def _tpu(tpu: str):
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=tpu)
        tf.config.experimental_connect_to_cluster(resolver)
        topology = tf.tpu.experimental.initialize_tpu_system(resolver)
    except (tf.errors.OpError, ValueError, OSError, RuntimeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].split(". ")[0]
        raise UserError(
            f"--strategy=tpu finds no TPU at --tpu={tpu} ({reason}): run on a TPU VM with "
            "tensorflow-tpu installed, or use --strategy=cpu or mirrored"
        ) from error
    strategy = tf.distribute.TPUStrategy(resolver)
    shape = "x".join(str(n) for n in getattr(topology, "mesh_shape", ()))
    print(f"TPU {tpu}: topology {shape}, {strategy.num_replicas_in_sync} cores", flush=True)
    return strategy
