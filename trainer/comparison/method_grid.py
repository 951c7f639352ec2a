"""A study: a grid of methods, seeds and backbones on one data set, one `trainer.main` run a cell.

Each run is a process of its own: it starts as a user's run would and frees all its memory, and a
run that fails does not stop the others. Finished runs are recognised by their directories. So a
study that was stopped can be continued or get another method or seed, and several machines can add
runs to it, on a shared disk or, with --runs, afterwards.
"""

from __future__ import annotations

import collections
import dataclasses
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from cxr_tfrecords.errors import UserError
from trainer.balancing.loss_table import LOSSES
from trainer.balancing.sampler_table import SAMPLERS
from trainer.runs import run_files
from trainer.runs.finished_run import FinishedRun
from trainer.settings.config import TrainConfig

# A method's name is made of samplers, losses and these kinds of mixup, joined by `+`:
# oversample, focal, undersample+focal, …
_MIXUPS = {"mixup": "plain", "balanced_mixup": "balanced"}
DECOUPLED = ("crt", "tau_norm", "posthoc_logit_adjusted")
_ERROR_LINES = 5


@dataclasses.dataclass(frozen=True)
class Method:
    """One way of balancing.

    Attributes:
      name: as in --methods and in the results.
      flags: flags of `trainer.main`, without the dashes, and their values.
      decoupled: the method of `trainer.decouple` that is applied to the finished run `none` of the
        same backbone and seed. Empty for a method that is trained from the start.
    """

    name: str
    flags: Mapping[str, str]
    decoupled: str = ""


@dataclasses.dataclass(frozen=True)
class Cell:
    """One run of the grid."""

    backbone: str
    method: Method
    seed: int

    @property
    def name(self) -> str:
        return f"{self.backbone}-{self.method.name}-seed{self.seed}"


def parse_method(name: str) -> Method:
    """Reads a method's name: a sampler, a loss, a kind of mixup or several of these joined by `+`;
    or a decoupled method alone.

    Raises:
      UserError: a part is unknown, or two parts set the same thing.
    """
    if name in DECOUPLED:
        return Method(name, {}, decoupled=name)
    flags: dict[str, str] = {}
    for part in name.split("+"):
        part_flags = _part_flags(part, name)
        twice = sorted(flags.keys() & part_flags.keys())
        if twice:
            raise UserError(
                f"--methods: {name!r} sets --{twice[0]} twice: leave one of its parts out"
            )
        flags |= part_flags
    return Method(name, flags)


def _part_flags(part: str, name: str) -> dict[str, str]:
    if part in SAMPLERS:
        return {"sampler": part}
    if part in LOSSES:
        return {"loss": part} | LOSSES[part].study_flags
    if part in _MIXUPS:
        return {"mixup": _MIXUPS[part], "mixup_alpha": "0.2"}
    known = [*SAMPLERS, *LOSSES, *_MIXUPS]
    raise UserError(
        f"--methods: {part!r} in {name!r} is not one of {', '.join(known)} (several can be joined "
        f"by +); {', '.join(DECOUPLED)} can be used alone"
    )


def make_grid(
    methods: Sequence[Method], seeds: Sequence[int], backbones: Sequence[str]
) -> list[Cell]:
    """All cells, ordered by seed: all methods have their first seed before the second begins."""
    return [Cell(b, m, s) for s in seeds for b in backbones for m in methods]


def run_dir(study_dir: str, cell: Cell) -> str:
    return os.path.join(study_dir, "runs", cell.name)


def command(study_dir: str, cell: Cell, common: Sequence[str]) -> list[str]:
    """The command line of a cell; `common` are the flags that all cells share."""
    where = f"--run_dir={run_dir(study_dir, cell)}"
    if cell.method.decoupled:
        base = run_dir(study_dir, dataclasses.replace(cell, method=parse_method("none")))
        start = [sys.executable, "-m", "trainer.decouple"]
        return [*start, f"--from_run={base}", where, f"--method={cell.method.decoupled}"]
    flags = [f"--{name}={value}" for name, value in cell.method.flags.items()]
    flags += [f"--backbone={cell.backbone}", f"--seed={cell.seed}", where]
    return [sys.executable, "-m", "trainer.main", *common, *flags]


def is_finished(study_dir: str, cell: Cell) -> bool:
    """Whether the cell's run is finished, see `run_files`; its model may have been deleted."""
    return run_files.is_finished(run_dir(study_dir, cell), with_model=False)


def run_grid(study_dir: str, cells: Sequence[Cell], common: Sequence[str], jobs: int) -> list[str]:
    """Runs the cells that are not finished; prints a line for each.

    Args:
      jobs: runs at the same time.

    Returns:
      Names of the runs that failed; their output is in `<run>.log`.

    Raises:
      UserError: a run refuses its settings (exit code 2), as all others would. A decoupled run with
        this exit code counts as failed instead: the user gives it no settings, and it ends so if
        the run that it starts from has failed.
    """
    from tqdm import tqdm  # of the extra `build`: its absence is reported by `run_main`

    todo = [cell for cell in cells if not is_finished(study_dir, cell)]
    print(f"{len(cells)} runs, {len(cells) - len(todo)} of them finished already", flush=True)
    failed: list[str] = []
    with tqdm(total=len(todo), desc="Study", unit=" runs", disable=None) as bar:
        for cell, code, seconds in _finish_one_by_one(study_dir, todo, common, jobs):
            bar.update()
            text = f"{cell.name}: {seconds / 60:.1f} min"
            if code:
                failed.append(cell.name)
                text = f"{cell.name}: failed with exit code {code}\n{_last_lines(study_dir, cell)}"
            tqdm.write(text, file=sys.stdout)
            if code == 2 and not cell.method.decoupled:
                raise UserError(
                    f"the settings of run {cell.name} were refused:\n{_last_lines(study_dir, cell)}"
                )
    return failed


def _finish_one_by_one(
    study_dir: str, cells: Sequence[Cell], common: Sequence[str], jobs: int
) -> Iterator[tuple[Cell, int, float]]:
    """Yields (cell, exit code, seconds) as runs end. A decoupled run waits for the one it needs."""
    waiting = collections.deque(cells)
    running: dict[Future[tuple[int, float]], Cell] = {}
    with ThreadPoolExecutor(max(jobs, 1)) as pool:
        try:
            while waiting or running:
                while waiting and len(running) < jobs:
                    ready = next((c for c in waiting if _may_start(study_dir, c, running)), None)
                    if ready is None:
                        break
                    waiting.remove(ready)
                    running[pool.submit(_run_one, study_dir, ready, common)] = ready
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    yield running.pop(future), *future.result()
        finally:
            for future in running:
                future.cancel()


def _may_start(study_dir: str, cell: Cell, running: Mapping[Future, Cell]) -> bool:
    if not cell.method.decoupled or not running:
        return True
    return is_finished(study_dir, dataclasses.replace(cell, method=parse_method("none")))


def _run_one(study_dir: str, cell: Cell, common: Sequence[str]) -> tuple[int, float]:
    started = time.monotonic()
    log = run_dir(study_dir, cell) + ".log"
    os.makedirs(os.path.dirname(log), exist_ok=True)
    with open(log, "w", encoding="utf-8") as output:
        process = subprocess.run(
            command(study_dir, cell, common), stdout=output, stderr=subprocess.STDOUT, check=False
        )
    return process.returncode, time.monotonic() - started


def _last_lines(study_dir: str, cell: Cell) -> str:
    with open(run_dir(study_dir, cell) + ".log", encoding="utf-8", errors="replace") as file:
        lines = file.read().splitlines()[-_ERROR_LINES:]
    return "\n".join(f"  {line}" for line in lines)


def describe_method(run: FinishedRun) -> str:
    """The name of a finished run's method, as `parse_method` reads it. If a decoupled run started
    from a run with balancing, the name of that run's method follows: `crt of focal`."""
    if not run.decoupled:
        return _describe_settings(run.config)
    method = run.decoupled["method"]
    base = _describe_settings(TrainConfig.from_json(run.decoupled["from_config"]))
    return method if base == "none" else f"{method} of {base}"


def name_runs(runs: Sequence[FinishedRun]) -> list[tuple[str, FinishedRun]]:
    """(name, run) of each run: its method, and its backbone where there are several."""
    backbones = {run.config.backbone for run in runs}
    return [
        (
            describe_method(run) + (f" ({run.config.backbone})" if len(backbones) > 1 else ""),
            run,
        )
        for run in runs
    ]


def default_reference(names: Sequence[str]) -> str:
    """The first name (see `name_runs`) of a run without balancing, else the first name."""
    return next((name for name in names if name.split(" ")[0] == "none"), names[0])


def _describe_settings(config: TrainConfig) -> str:
    parts = []
    if config.sampler != "none":
        parts.append(config.sampler)
    if config.loss != "cross_entropy":
        parts.append(config.loss)
    if config.mixup_alpha:
        parts.append({kind: name for name, kind in _MIXUPS.items()}[config.mixup])
    return "+".join(parts) or "none"
