"""Rounds of `benchmarks.training`: in each, every system of a part once, in another order."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.training.process import Process, command, run_together
from benchmarks.training.report import (
    BARE,
    FIT,
    FIT_LOOP,
    LOOP,
    TORCH,
    TRACED,
    WAITING,
    Round,
    of_loops,
)
from cxr_tfrecords.dataset_dir import DatasetDir
from cxr_tfrecords.errors import UserError
from trainer.settings.config import TrainConfig

_TORCH_STEP = os.path.join(os.path.dirname(os.path.abspath(__file__)), "torch_step.py")
LOOPS = (1, 10, 100)
# The first traces the graph; TensorFlow and PyTorch choose kernels in the next ones.
_WARM_UP_STEPS = 3


@dataclasses.dataclass(frozen=True)
class System:
    """What is measured: the processes that do it together, and what they are asked."""

    processes: Sequence[Process]
    arguments: Mapping[str, Any]


def measure(part: str, systems: Mapping[str, System], rounds: int) -> list[Round]:
    """Images a second of each system, or the share that it answers, in each round."""
    for name, system in systems.items():
        for process in system.processes:
            process.wait()
        facts = ", ".join(f"{key} {value}" for key, value in system.processes[0].facts.items())
        print(f"{part}: {name}: {facts}", flush=True)
        run_together(system.processes, {**system.arguments, "steps": _WARM_UP_STEPS})
    names, measured = list(systems), []
    for number in range(rounds):
        shift = number % len(names)
        figures: Round = {}
        for name in names[shift:] + names[:shift]:
            answer = run_together(systems[name].processes, systems[name].arguments)
            share = answer.get("share")
            figures[name] = answer["images"] / answer["seconds"] if share is None else share
        measured.append({name: figures[name] for name in names})
        print(f"{part}: round {number + 1} of {rounds}", flush=True)
    return measured


def measure_loop(
    data: DatasetDir, config: TrainConfig, steps: int, rounds: int, torch_python: str
) -> list[Round]:
    """Our loop and its wait for data, against a plain step, Keras' `fit` and PyTorch."""
    with contextlib.ExitStack() as stack:

        def start(command: Sequence[str]) -> list[Process]:
            return [stack.enter_context(Process(command))]

        loop, bare = start(command("loop", config)), start(command("bare", config))
        fit = start(command("fit", config))
        asked = {"steps": steps}
        systems = {
            LOOP: System(loop, asked),
            WAITING: System(loop, {**asked, "waiting": True}),
            TRACED: System(loop, {**asked, "traced": True}),
            BARE: System(bare, asked),
            FIT: System(fit, asked),
            FIT_LOOP: System(start(command("fit", config, steps_per_execution=10)), asked),
        }
        if reason := _no_torch(torch_python, config.backbone):
            print(f"torch: skipped, {reason}", flush=True)
        else:
            bare[0].wait()
            settings = _torch_settings(data, config.batch_size, bare[0].facts["parameters"])
            torch = start([torch_python, _TORCH_STEP, json.dumps(settings)])
            systems |= {
                name: System(torch, {**asked, "memory_format": memory_format})
                for memory_format, name in TORCH.items()
            }
        return measure("loop", systems, rounds)


def measure_steps_per_loop(config: TrainConfig, steps: int, rounds: int) -> list[Round]:
    """Our loop with few and with many steps in each host loop (`--steps_per_loop`)."""
    measured: list[Round] = [{} for _ in range(rounds)]
    for backbone in dict.fromkeys((config.backbone, "tiny")):
        weights = config.weights if backbone == config.backbone else "none"
        variant = dataclasses.replace(config, backbone=backbone, weights=weights)
        with Process(command("loop", variant)) as process:
            systems = {
                of_loops(backbone, count): System(
                    [process], {"steps": max(steps, LOOPS[-1]), "steps_per_loop": count}
                )
                for count in LOOPS
            }
            figures = measure(f"steps_per_loop, {backbone}", systems, rounds)
        measured = [one | other for one, other in zip(measured, figures, strict=True)]
    return measured


def _no_torch(python: str, backbone: str) -> str:
    """Why PyTorch is not measured; empty if it is."""
    if backbone != "mobilenet_v2":
        return f"it is compared at --backbone=mobilenet_v2, not {backbone}"
    try:
        done = subprocess.run([python, "-c", "import torch"], check=False, capture_output=True)
    except OSError as error:
        raise UserError(f"--torch_python={python}: {error.strerror}") from error
    return "" if done.returncode == 0 else f"{python} cannot import it: name another --torch_python"


def _torch_settings(data: DatasetDir, batch_size: int, parameters: int) -> dict[str, int]:
    return {
        "batch_size": batch_size,
        "image_size": data.image_size,
        "channels": data.channels,
        "classes": data.num_classes,
        "parameters": parameters,
    }
