"""A study: a grid of methods, seeds and backbones on one data set, one `trainer.main` run a cell.

Each run is a process of its own: it starts as a user's run would, frees all its memory, and a
failing one takes no other along. A finished run is found again by its directory, so a study that
was stopped goes on, grows by a method or a seed, and can be filled by several machines that share
a disk (or afterwards, with --runs).
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

# A method's name is made of these, joined by `+`: oversample, focal, undersample+focal, …
_MIXUPS = {"mixup": "plain", "balanced_mixup": "balanced"}
DECOUPLED = ("crt", "tau_norm", "posthoc_logit_adjusted")
_ERROR_LINES = 5


@dataclasses.dataclass(frozen=True)
class Method:
    """One way of balancing.

    Attributes:
      name: as the user gives it and as results call it.
      flags: of `trainer.main`, without the dashes.
      decoupled: a method of `trainer.decouple`: made of the finished run without balancing; else
        empty.
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
    """A sampler, a loss, a kind of mixup or several joined by `+`; or a decoupled method.

    Raises:
      UserError: a part is unknown, or two parts set the same thing.
    """
    if name in DECOUPLED:
        return Method(name, {}, decoupled=name)
    flags: dict[str, str] = {}
    for part in name.split("+"):
        own = _part_flags(part, name)
        twice = sorted(flags.keys() & own.keys())
        if twice:
            raise UserError(f"--methods: {name!r} sets --{twice[0]} twice")
        flags |= own
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
        f"--methods: {part!r} in {name!r} is not one of {', '.join(known)}, nor alone one of "
        f"{', '.join(DECOUPLED)}"
    )


def make_grid(
    methods: Sequence[Method], seeds: Sequence[int], backbones: Sequence[str]
) -> list[Cell]:
    """All cells, seed by seed: the first seed of all methods is there before the second begins."""
    return [Cell(b, m, s) for s in seeds for b in backbones for m in methods]


def run_dir(study_dir: str, cell: Cell) -> str:
    return os.path.join(study_dir, "runs", cell.name)


def command(study_dir: str, cell: Cell, common: Sequence[str]) -> list[str]:
    """The command line of a cell; `common` are flags of all of them."""
    where = f"--run_dir={run_dir(study_dir, cell)}"
    if cell.method.decoupled:
        base = run_dir(study_dir, dataclasses.replace(cell, method=parse_method("none")))
        start = [sys.executable, "-m", "trainer.decouple"]
        return [*start, f"--from_run={base}", where, f"--method={cell.method.decoupled}"]
    own = [f"--{name}={value}" for name, value in cell.method.flags.items()]
    own += [f"--backbone={cell.backbone}", f"--seed={cell.seed}", where]
    return [sys.executable, "-m", "trainer.main", *common, *own]


def is_finished(study_dir: str, cell: Cell) -> bool:
    """Whether the cell's run is, see `run_files`; its model may be deleted."""
    return run_files.is_finished(run_dir(study_dir, cell), with_model=False)


def run_grid(study_dir: str, cells: Sequence[Cell], common: Sequence[str], jobs: int) -> list[str]:
    """Runs the cells that are not finished; prints a line for each.

    Args:
      jobs: runs at the same time.

    Returns:
      Names of the runs that failed; their output is in `<run>.log`.

    Raises:
      UserError: a run refuses its settings (exit code 2): others would do the same. (A decoupled
        one has no settings of the user's: it refuses a base that failed.)
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
                raise UserError(f"run {cell.name} was refused:\n{_last_lines(study_dir, cell)}")
    return failed


def _finish_one_by_one(
    study_dir: str, cells: Sequence[Cell], common: Sequence[str], jobs: int
) -> Iterator[tuple[Cell, int, float]]:
    """Yields (cell, exit code, seconds) as runs end. A decoupled run waits for its base."""
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
    """The name of a finished run's method, as `parse_method` reads it. A decoupled one that was
    not made of a run without balancing says of which."""
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
    """The first that balances nothing, else the first; names as of `name_runs`."""
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
