"""Exports the steps of a config and compiles each in a separate process, for each slice."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
from collections.abc import Callable

from cxr_tfrecords.concurrency import temporary
from cxr_tfrecords.dataset_dir import DatasetDir
from cxr_tfrecords.errors import UserError
from trainer.distribution import strategies
from trainer.settings.config import TrainConfig
from trainer.tpu import export_step
from trainer.tpu.chips import Topology
from trainer.tpu.compile_step import Compiled
from trainer.tpu.report import SliceCheck, StepCheck


class Checker:
    """Checks one config on any number of slices; slices of equal size share the exports."""

    def __init__(self, config: TrainConfig, data: DatasetDir, cache_dir: str) -> None:
        self._config = config
        self._data = data
        self._cache_dir = cache_dir
        self._exporters: dict[int, export_step.Exporter] = {}
        self._exports: dict[tuple[int, str, int], export_step.Exported] = {}

    def check(self, topology: Topology, *, max_batch: bool = False) -> SliceCheck:
        """Compiles every step that the config runs.

        Args:
          max_batch: also search for the largest batch whose training step fits.

        Raises:
          UserError: the batch is not divisible by the number of chips, or the backbone cannot take
            images of that size.
        """
        batch, chips = self._config.batch_size, topology.num_chips
        strategies.check_divides(batch, chips, f"chips of {topology.name}")
        steps = tuple(
            self._check_step(step, batch // chips, topology) for step in self._exporter(chips).steps
        )
        largest = None
        if max_batch and steps[0].audit.clean:
            fits, refused = self._largest_batch(topology, batch // chips)
            largest = fits * chips, refused * chips
        return SliceCheck(
            backbone=self._config.backbone,
            image_size=self._data.image_size,
            precision=self._config.mixed_precision,
            batch_size=batch,
            topology=topology,
            steps=steps,
            max_batch=largest,
        )

    def _exporter(self, num_chips: int) -> export_step.Exporter:
        if num_chips not in self._exporters:
            self._exporters[num_chips] = export_step.Exporter(self._config, self._data, num_chips)
        return self._exporters[num_chips]

    def _check_step(self, step: str, per_chip: int, topology: Topology) -> StepCheck:
        key = (topology.num_chips, step, per_chip)
        if key not in self._exports:
            self._exports[key] = self._exporter(topology.num_chips).export(step, per_chip)
        exported = self._exports[key]
        if exported.stablehlo is None:
            return StepCheck(step, exported.audit, None)
        if sys.stderr.isatty():  # a large network takes minutes
            note = f"compiling {step} for {topology.name}, {per_chip} images a chip"
            print(f"\r{note:<70}", end="\r", file=sys.stderr, flush=True)
        compiled = compile_program(exported.stablehlo, topology, self._cache_dir)
        return StepCheck(step, exported.audit, compiled)

    def _largest_batch(self, topology: Topology, start: int) -> tuple[int, int]:
        """Images of a chip: the largest number found to fit, and the smallest found not to fit.

        They differ by at most an eighth, or by one image.
        """

        def fits(per_chip: int) -> bool:
            compiled = self._check_step("train", per_chip, topology).compiled
            assert compiled is not None
            # A refusal for another reason would say nothing about memory.
            if compiled.reason and "RESOURCE_EXHAUSTED" not in compiled.reason:
                raise UserError(
                    "--max_batch: the compiler refused the step for another reason than memory "
                    f"({compiled.reason}): leave the flag out to see all refusals"
                )
            return not compiled.reason

        return search_batch(fits, start)


def search_batch(fits: Callable[[int], bool], start: int) -> tuple[int, int]:
    """(largest batch found to fit, smallest found not to fit), by doubling and then bisection.

    Args:
      fits: whether a batch of that many images fits; false from some size on.
      start: the first size to try.
    """
    low, high = 0, start
    while fits(high):
        low, high = high, 2 * high
    while high - low > max(1, low // 8):
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low, high


def compile_program(stablehlo: bytes, topology: Topology, cache_dir: str) -> Compiled:
    """Runs `trainer.tpu.compile_step`; if the process crashes, that counts as a refusal."""
    with temporary.folder("tpu") as directory:
        program, result = (pathlib.Path(directory, name) for name in ("step", "result.json"))
        program.write_bytes(stablehlo)
        command = [sys.executable, "-m", "trainer.tpu.compile_step", str(program), topology.name]
        done = subprocess.run(
            [*command, cache_dir, str(result)], capture_output=True, text=True, check=False
        )
        if done.returncode == 0 and result.exists():
            return Compiled(**json.loads(result.read_text(encoding="utf-8")))
    last = (done.stderr.strip().splitlines() or ["no message"])[-1]
    reason = f"the compiler's process ended with {done.returncode}: {last[:200]}"
    return Compiled(topology=topology.name, reason=reason)
