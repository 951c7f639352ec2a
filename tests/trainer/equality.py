"""Every sampler trained under one strategy, in processes of their own.

`python -m tests.trainer.equality JOB` prints, as JSON, what each sampler's training gave: JOB is
JSON with the strategy, the data set, the settings and a scratch directory. One process trains all
samplers, because starting TensorFlow and tracing takes longer than the training.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tests.trainer import processes
from trainer.balancing.sampler_table import SAMPLERS

# No count is a multiple of another strategy's replicas, nor of the batch: 66 training images.
COUNTS = {"train": (13, 17, 29, 7), "validation": (5, 7, 11, 3), "test": (7, 5, 11, 2)}
# Twelve divides over 1, 2, 3 and 4 replicas. Without dropout, whose masks are each replica's own.
SETTINGS: dict[str, Any] = {
    "batch_size": 12,
    "epochs": 2,
    "flip": True,
    "dropout": 0.0,
    "optimizer": "sgd",
    "learning_rate": 0.02,
    "steps_per_loop": 1,
    "bn_examples": 24,
}
# Nothing may hang; a busy machine may take its time.
_TIMEOUT = 900


def free_ports(count: int) -> list[int]:
    """Ports of localhost that nobody listens on."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("localhost", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def cluster_environments(num_workers: int) -> list[dict[str, str]]:
    """The environment of each worker of a new cluster on this machine, which has a proxy for other
    addresses, as in many offices."""
    workers = [f"localhost:{port}" for port in free_ports(num_workers)]
    return [
        os.environ
        | {
            "http_proxy": "http://127.0.0.1:9",  # where nobody answers
            "TF_CONFIG": json.dumps(
                {"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}}
            ),
        }
        for index in range(num_workers)
    ]


def run_processes(
    commands: Sequence[Sequence[str]],
    environments: Sequence[Mapping[str, str]],
    *,
    timeout: float = _TIMEOUT,
) -> list[subprocess.CompletedProcess[str]]:
    """Runs them side by side, a module and its flags each; those that still run after `timeout`
    seconds are killed, and that is an error."""
    running = [
        processes.Process(*command, env=environment)
        for command, environment in zip(commands, environments, strict=True)
    ]
    try:
        ended = []
        for process in running:
            out, err = process.communicate(timeout=timeout)
            ended.append(subprocess.CompletedProcess(process.args, process.returncode, out, err))
        return ended
    finally:
        for process in running:
            if process.poll() is None:
                process.kill()
                process.communicate()


def train_samplers(
    data_dir: str,
    scratch: str,
    strategy: str,
    replicas: int = 1,
    *,
    samplers: Sequence[str] = tuple(SAMPLERS),
    smooth: bool = False,
    **settings: Any,
) -> dict[str, dict[str, Any]]:
    """Trains all samplers under a strategy of so many replicas, or workers of one replica each.

    Args:
      smooth: softplus for ReLU. Where rounding puts an input of a ReLU on the other side of 0, its
        gradient jumps, and trajectories that were equal to 1e-6 part.

    Returns:
      By sampler: `step_losses`, `train_confusions` and `validation_losses` of the epochs,
      `test_confusion` and `test_logits`. Of several workers all must say the same.
    """
    job = {
        "data_dir": data_dir,
        "scratch": os.path.join(scratch, f"{strategy}{replicas}"),
        "strategy": strategy,
        "virtual_devices": replicas if strategy == "mirrored" else 0,
        "samplers": list(samplers),
        "smooth": smooth,
        "settings": SETTINGS | settings,
    }
    command = ["tests.trainer.equality", json.dumps(job)]
    workers = replicas if strategy == "multi_worker" else 1
    environments = cluster_environments(workers) if workers > 1 else [dict(os.environ)]
    results = run_processes([command] * workers, environments)
    for result in results:
        assert result.returncode == 0, result.stderr[-3000:]
    outcomes = [json.loads(result.stdout.splitlines()[-1]) for result in results]
    for outcome in outcomes[1:]:
        assert outcome == outcomes[0], "workers of one cluster disagree"
    return outcomes[0]


def _work(job: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    from cxr_tfrecords import dataset_dir
    from trainer.distribution import strategies
    from trainer.models import backbones
    from trainer.settings.config import TrainConfig
    from trainer.training.learner import create_trainer

    if job["smooth"]:
        backbones.keras.layers.ReLU = functools.partial(
            backbones.keras.layers.Activation, "softplus"
        )
    strategy = strategies.create_strategy(job["strategy"], virtual_devices=job["virtual_devices"])
    config = TrainConfig(job["data_dir"], job["scratch"], **job["settings"])
    trainer = create_trainer(config, dataset_dir.load(config.data_dir), strategy)
    variables = [
        v.value for v in (*trainer.learner.model.variables, *trainer.learner.optimizer.variables)
    ]
    start = [variable.numpy() for variable in variables]
    outcomes = {}
    for sampler in job["samplers"]:
        for variable, value in zip(variables, start, strict=True):
            variable.assign(value)
        run_dir = os.path.join(job["scratch"], sampler)
        outcomes[sampler] = _train(
            trainer, dataclasses.replace(config, sampler=sampler, run_dir=run_dir)
        )
    return outcomes


def _train(trainer: Any, config: Any) -> dict[str, Any]:
    """Trains the given model, already traced, with another sampler."""
    from trainer.runs import checkpoints
    from trainer.training import loop
    from trainer.training.passes import predict_split

    step_losses: list[float] = []
    before = 0.0

    def recorded(batches: Any, steps: Any) -> None:
        nonlocal before
        trainer.train_steps(batches, steps)
        totals = trainer.learner.meters.read()
        # The meter sums over an epoch, and is reset before the next.
        if totals.examples <= config.batch_size:
            before = 0.0
        summed = totals.loss * totals.examples
        step_losses.append((summed - before) / config.batch_size)
        before = summed

    counted = trainer.train_steps.experimental_get_tracing_count
    recorded.experimental_get_tracing_count = counted  # type: ignore[attr-defined]
    os.makedirs(config.run_dir, exist_ok=True)
    directory = os.path.join(config.run_dir, "checkpoints")
    one = dataclasses.replace(
        trainer,
        config=config,
        train_steps=recorded,
        checkpoints=checkpoints.Checkpoints(
            directory, trainer.learner.model, trainer.learner.optimizer
        ),
    )
    progress = loop.train(one)
    predictions = predict_split(one, "test")
    confusion = np.zeros((trainer.data.num_classes,) * 2, int)
    np.add.at(confusion, (predictions.labels, predictions.logits.argmax(1)), 1)
    return {
        "step_losses": step_losses,
        "losses": [row["loss"] for row in progress.history],
        "validation_losses": [row["validation_loss"] for row in progress.history],
        "test_confusion": confusion.tolist(),
        "test_logits": predictions.logits.tolist(),
    }


if __name__ == "__main__":
    from cxr_tfrecords.console.quiet import quiet_tensorflow

    quiet_tensorflow()
    print(json.dumps(_work(json.loads(sys.argv[1]))))
