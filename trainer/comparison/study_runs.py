"""Runs the cells of a study that are not finished, each in a process of its own.

Such a process starts as a user's run would and frees all its memory, and a run that fails does not
stop the others.
"""

from __future__ import annotations

import collections
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from cxr_tfrecords.errors import UserError
from trainer.comparison.method_grid import Cell
from trainer.comparison.study_cells import Study

_ERROR_LINES = 5


def run_study(study: Study, jobs: int) -> list[str]:
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

    todo = [cell for cell in study.cells if not study.is_finished(cell)]
    print(
        f"{len(study.cells)} runs, {len(study.cells) - len(todo)} of them finished already",
        flush=True,
    )
    failed: list[str] = []
    with tqdm(total=len(todo), desc="Study", unit=" runs", disable=None) as bar:
        for cell, code, seconds in _finish_one_by_one(study, todo, jobs):
            bar.update()
            text = f"{cell.name}: {seconds / 60:.1f} min"
            if code:
                failed.append(cell.name)
                text = f"{cell.name}: failed with exit code {code}\n{_last_lines(study, cell)}"
            tqdm.write(text, file=sys.stdout)
            if code == 2 and not cell.method.decoupled:
                raise UserError(
                    f"the settings of run {cell.name} were refused:\n{_last_lines(study, cell)}"
                )
    return failed


def _finish_one_by_one(
    study: Study, cells: Sequence[Cell], jobs: int
) -> Iterator[tuple[Cell, int, float]]:
    """Yields (cell, exit code, seconds) as runs end. A decoupled run waits for the one it needs."""
    waiting = collections.deque(cells)
    running: dict[Future[tuple[int, float]], Cell] = {}
    with ThreadPoolExecutor(max(jobs, 1)) as pool:
        try:
            while waiting or running:
                while waiting and len(running) < jobs:
                    ready = next((c for c in waiting if _may_start(study, c, running)), None)
                    if ready is None:
                        break
                    waiting.remove(ready)
                    running[pool.submit(_run_one, study, ready)] = ready
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    yield running.pop(future), *future.result()
        finally:
            for future in running:
                future.cancel()


def _may_start(study: Study, cell: Cell, running: Mapping[Future, Cell]) -> bool:
    if not cell.method.decoupled or not running:
        return True
    return study.is_finished(study.base(cell))


def _run_one(study: Study, cell: Cell) -> tuple[int, float]:
    started = time.monotonic()
    log = study.log(cell)
    os.makedirs(os.path.dirname(log), exist_ok=True)
    with open(log, "w", encoding="utf-8") as output:
        process = subprocess.run(
            study.command(cell), stdout=output, stderr=subprocess.STDOUT, check=False
        )
    return process.returncode, time.monotonic() - started


def _last_lines(study: Study, cell: Cell) -> str:
    with open(study.log(cell), encoding="utf-8", errors="replace") as file:
        lines = file.read().splitlines()[-_ERROR_LINES:]
    return "\n".join(f"  {line}" for line in lines)
