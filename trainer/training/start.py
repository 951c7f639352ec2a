"""Starts a run in this process: checks its paths, handles signals, creates the strategy."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from typing import Any

from cxr_tfrecords import dataset_dir, files
from cxr_tfrecords.console.quiet import quiet_tensorflow
from cxr_tfrecords.errors import UserError
from trainer.distribution import cluster, tpu_versions
from trainer.models import weights_files
from trainer.runs import initial_run, remote_run, same_run
from trainer.settings.config import TrainConfig


def train(config: TrainConfig, *, listen: bool = True) -> dict[str, dict[str, Any]]:
    """Trains and evaluates as the settings say; see `run`.

    Args:
      listen: handle SIGTERM and Ctrl-C by saving a checkpoint and ending. A notebook keeps its own
        handlers: an interrupt stops at once, and the run goes on after its last checkpoint.

    Returns:
      The content of metrics.json; empty in a worker that is not the chief.

    Raises:
      UserError: see its message. TemporaryError: the run was interrupted and can go on.
    """

    def is_written(run_dir: str) -> bool:
        local = dataclasses.replace(config, run_dir=run_dir)
        return _is_chief(config.strategy) and not same_run.has_nothing_to_train(local)

    with remote_run.opened(config.run_dir, is_written) as run_dir:
        return _train(dataclasses.replace(config, run_dir=run_dir), listen)


def _train(config: TrainConfig, listen: bool) -> dict[str, dict[str, Any]]:
    check_paths(config)
    print(f"loading TensorFlow, to train on {config.data_dir}", flush=True)
    if config.strategy in ("tpu", "auto"):
        tpu_versions.check_libtpu(tpu_versions.installed_versions())
    quiet_tensorflow()
    # Imported late: they load TensorFlow, which a wrong libtpu would end without a message.
    from trainer.distribution import lost_workers, preemption, strategies
    from trainer.models import tf_internals
    from trainer.training.run import run

    tf_internals.own_generated_code()
    _check_file_systems(config)
    if listen:
        preemption.listen()
    if config.strategy == "auto":
        name, reason = strategies.choose_strategy(
            os.environ, virtual_devices=config.virtual_devices, tpu=config.tpu
        )
        print(f"strategy {name}: {reason}", flush=True)
        config = dataclasses.replace(config, strategy=name)
    has_workers = config.strategy == "multi_worker"
    if has_workers:
        lost_workers.start(config.worker_timeout)
    with lost_workers.explained_losses() if has_workers else contextlib.nullcontext():
        strategy = strategies.create_strategy(
            config.strategy, virtual_devices=config.virtual_devices, tpu=config.tpu
        )
        if listen:  # again: TensorFlow's coordination service has replaced the SIGTERM handler
            preemption.listen()
        remote_run.refresh(config.run_dir)  # all workers have started, so the chief has the lock
        return run(config, dataset_dir.load(config.data_dir, config.fold), strategy)


def check_paths(config: TrainConfig) -> None:
    """Refuses what the disk alone tells, before seconds go into importing TensorFlow."""
    if files.is_local(config.data_dir):
        data = config.shown(dataset_dir.load(config.data_dir, config.fold))
        same_run.check_same_run(config, data)
    if same_run.has_nothing_to_train(config):
        return
    dataset_dir.refuse_data_set(config.run_dir, "run_dir")
    weights_files.check(config.backbone, config.weights)
    if config.init_from:
        initial_run.read_source(config)
    reason = files.why_unwritable(config.run_dir)
    if reason and config.strategy != "multi_worker":  # of which only the chief writes
        raise UserError(f"--run_dir={config.run_dir}: {reason}: name another --run_dir")


def _is_chief(strategy: str) -> bool:
    """Whether this process writes the run, asked before TensorFlow is imported."""
    described = cluster.find_cluster(os.environ) if strategy in ("multi_worker", "auto") else None
    return described is None or cluster.is_chief(described[0])


def _check_file_systems(config: TrainConfig) -> None:
    """Refuses paths that the data set's build (fsspec) can use, but TensorFlow cannot."""
    import tensorflow as tf

    scheme, separator, _ = config.data_dir.partition("://")
    if separator and scheme not in tf.io.gfile.get_registered_schemes():
        raise UserError(
            f"--data_dir={config.data_dir}: TensorFlow cannot read {scheme}://: copy the data set "
            "to a local disk or to gs://"
        )
