"""Trains the cells of a study that are not finished, each in a process of its own.

Such a process starts as a user's run would and frees all its memory, and a run that fails does not
stop the others. Several processes, also on machines that share a disk, may work on one study: the
log of a run is locked while it is trained, and the others pass over it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from types import FrameType

from cxr_tfrecords import files
from cxr_tfrecords.concurrency import locks
from cxr_tfrecords.errors import EXIT_TEMPORARY, DivergedError, TemporaryError, UserError
from trainer.comparison.method_grid import Cell
from trainer.comparison.study_cells import Study
from trainer.comparison.study_progress import StudyProgress
from trainer.runs import run_files

_ERROR_LINES = 5
_POLL_SECONDS = 0.2


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of the cells that were not finished.

    Attributes:
      failed: names of the runs that failed; their output is in their logs.
      elsewhere: names of the runs that another process was training.
    """

    failed: list[str]
    elsewhere: list[str]


@dataclasses.dataclass(frozen=True)
class _Run:
    """A run that is being trained by a process of ours."""

    cell: Cell
    process: subprocess.Popen[bytes]
    started: float


def run_study(study: Study, cells: Sequence[Cell], jobs: int) -> Outcome:
    """Trains those of the cells that are not finished; says which run is where.

    Args:
      cells: of the study, in their order.
      jobs: runs at the same time.

    Raises:
      UserError: a run refuses its settings (exit code 2), as all others would. A decoupled run with
        this exit code counts as failed instead: the user gives it no settings, and it ends so if
        the run that it starts from has failed.
      TemporaryError: this process or a run got SIGTERM. Runs are stopped and save a checkpoint.
    """
    waiting = [cell for cell in cells if study.needs_training(cell)]
    print(f"{len(cells)} runs, {len(cells) - len(waiting)} of them finished already", flush=True)
    outcome = Outcome([], [])
    if not waiting:
        return outcome
    os.makedirs(os.path.dirname(study.log(waiting[0])), exist_ok=True)
    running: list[_Run] = []
    with StudyProgress(study, waiting, jobs) as progress, _stopping(running):
        while waiting or running:
            for cell in _startable(study, waiting, [run.cell for run in running]):
                if len(running) == jobs:
                    break
                waiting.remove(cell)
                run = _start(study, cell, outcome, progress)
                if run is not None:
                    running.append(run)
            progress.show([run.cell for run in running])
            for run in [run for run in running if run.process.poll() is not None]:
                running.remove(run)
                _finish(study, run, outcome, progress)
            if running:
                time.sleep(_POLL_SECONDS)
    return outcome


def check_elsewhere(study: Study, outcome: Outcome) -> None:
    """Ends this process if another one still trains runs of the study.

    Raises:
      TemporaryError: it names these runs.
    """
    unfinished = [cell.name for cell in study.cells if study.needs_training(cell)]
    elsewhere = [name for name in outcome.elsewhere if name in unfinished]
    if elsewhere:
        raise TemporaryError(
            f"nothing is compared yet, another process trains {', '.join(elsewhere)}"
        )


def _startable(study: Study, waiting: Sequence[Cell], running: Sequence[Cell]) -> list[Cell]:
    """Waiting cells, without decoupled ones whose base is still to be trained."""
    unfinished = {*waiting, *running}
    bases = {cell: study.base(cell) for cell in waiting}
    return [cell for cell, base in bases.items() if base == cell or base not in unfinished]


def _start(study: Study, cell: Cell, outcome: Outcome, progress: StudyProgress) -> _Run | None:
    """Starts a run; None if another process trains it, or the one that it starts from, or has
    finished it."""
    log = study.log(cell)
    try:
        # The run's process inherits the descriptor as its output, and with it the lock.
        lock = None if study.base(cell).name in outcome.elsewhere else locks.take(log)
    except OSError as error:
        raise UserError(
            f"{log} cannot be written and locked ({error.strerror}): name a --study_dir on a disk "
            "that has file locks"
        ) from error
    if lock is None:
        outcome.elsewhere.append(cell.name)
        progress.end(cell, None, f"{cell.name}: passed over, another process trains it")
        return None
    try:
        if not study.needs_training(cell):
            progress.end(cell, None, f"{cell.name}: another process has finished it")
            return None
        os.ftruncate(lock, 0)
        process = subprocess.Popen(study.command(cell), stdout=lock, stderr=subprocess.STDOUT)
    finally:
        os.close(lock)
    progress.start(cell)
    return _Run(cell, process, time.monotonic())


def _finish(study: Study, run: _Run, outcome: Outcome, progress: StudyProgress) -> None:
    cell, code = run.cell, run.process.returncode
    if code == EXIT_TEMPORARY:
        raise TemporaryError(f"run {cell.name} was stopped, finished runs are kept")
    if not code:
        progress.end(cell, time.monotonic() - run.started)
        return
    with open(study.log(cell), encoding="utf-8", errors="replace") as file:
        lines = "\n".join(f"  {line}" for line in file.read().splitlines()[-_ERROR_LINES:])
    if code == 2 and not cell.method.decoupled:
        raise UserError(f"the settings of run {cell.name} were refused:\n{lines}")
    if code == DivergedError.exit_code and cell.draw is not None:
        files.write_json(os.path.join(study.run_dir(cell), run_files.DIVERGED), {"output": lines})
    outcome.failed.append(cell.name)
    progress.end(cell, None, f"{cell.name}: failed with exit code {code}\n{lines}")


@contextlib.contextmanager
def _stopping(running: Sequence[_Run]) -> Iterator[None]:
    """Asks the runs to save and end if this process is interrupted or fails, and waits for them."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise TemporaryError("SIGTERM, finished runs are kept")

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except BaseException:
        for run in running:
            run.process.terminate()
        for run in running:
            run.process.wait()
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
