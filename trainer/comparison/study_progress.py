"""What a study shows while its runs train: which run, which epoch, and about how long it takes."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence

from trainer.comparison.method_grid import Cell
from trainer.comparison.study_cells import Study
from trainer.epochs.plan import EpochPlanner
from trainer.runs import run_files

# Seconds between two lines about running runs, where the output is not a terminal.
_INTERVAL = 60.0
_DOT_SECONDS = 2.0


class StudyProgress:
    """Counts runs; use it as a context, in which it shows a bar on a terminal and lines elsewhere.

    Attributes:
      finished: runs that have ended well, with their seconds.
    """

    def __init__(self, study: Study, cells: Sequence[Cell], jobs: int) -> None:
        """cells: the runs to train, `jobs` of them at a time."""
        from tqdm import tqdm  # of the extra `build`: its absence is reported by `run_main`

        self._study, self._cells, self._jobs = study, list(cells), jobs
        self._epochs = {c: study.config(c).epochs for c in cells if not c.method.decoupled}
        self._updates = {c: n * _epoch_steps(study, c) for c, n in self._epochs.items()}
        self._numbers: dict[Cell, int] = {}
        self._ended: set[Cell] = set()
        self._seconds: dict[Cell, float] = {}
        self._shown = -_INTERVAL
        self._bar = tqdm(
            total=len(cells),
            bar_format="{n_fmt} of {total_fmt} runs |{bar:10}| {elapsed}{postfix}",
            dynamic_ncols=True,
            disable=None,
        )

    def __enter__(self) -> StudyProgress:
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()

    def start(self, cell: Cell) -> None:
        """A run has started."""
        self._numbers[cell] = len(self._numbers) + 1
        if not self._bar.disable:
            self.say(f"{self._name(cell)} started, its output is in {self._study.log(cell)}")

    def end(self, cell: Cell, seconds: float | None, text: str = "") -> None:
        """A run has ended.

        Args:
          seconds: its duration; None if it failed or was not trained here.
          text: what to say; empty: the duration.
        """
        self._ended.add(cell)
        if seconds is not None:
            self._seconds[cell] = seconds
        self._bar.update()
        left = self._text_left([])
        self.say((text or f"{cell.name}: {_duration(seconds or 0)}") + (left and f"; {left}"))

    def say(self, text: str) -> None:
        """Prints a line, above the bar if there is one."""
        self._bar.write(text, file=sys.stdout)
        sys.stdout.flush()

    def show(self, running: Sequence[Cell]) -> None:
        """Shows the epochs of running runs and the time left, as often as fits the output."""
        if not running or (self._bar.disable and time.monotonic() - self._shown < _INTERVAL):
            return
        self._shown = time.monotonic()
        texts = []
        for cell in running:
            epochs = self._epochs.get(cell)
            text = self._name(cell)
            if epochs:
                text += f", epoch {min(self._epochs_done(cell) + 1, epochs)} of {epochs}"
            texts.append(text + (f", log {self._study.log(cell)}" if self._bar.disable else ""))
        left = self._text_left(running)
        line = "; ".join([*texts, left] if left else texts)
        if self._bar.disable:
            self.say(line)
        else:
            self._bar.set_postfix_str(line)

    def _name(self, cell: Cell) -> str:
        return f"run {self._numbers[cell]} of {len(self._cells)}: {cell.name}"

    def _epochs_done(self, cell: Cell) -> int:
        path = os.path.join(self._study.run_dir(cell), run_files.HISTORY)
        try:
            with open(path, encoding="utf-8") as file:
                return max(sum(1 for _ in file) - 1, 0)
        except OSError:
            return 0

    def _text_left(self, running: Sequence[Cell]) -> str:
        """`about 12 min left`; empty before the first run and after the last."""
        seconds = self.seconds_left(running)
        return f"about {_duration(seconds)} left" if seconds else ""

    def seconds_left(self, running: Sequence[Cell] = ()) -> float | None:
        """Seconds that the other runs take, by their updates and the seconds an update of the runs
        that have ended; None before the first has. A decoupled run takes the mean of those that
        have ended, none before the first."""
        left = 0.0
        decoupled = [s for cell, s in self._seconds.items() if cell.method.decoupled]
        for cell in self._cells:
            if cell in self._ended:
                continue
            if cell.method.decoupled:
                left += sum(decoupled) / max(len(decoupled), 1)
                continue
            rate = self._seconds_an_update(cell)
            if rate is None:
                return None
            share = self._epochs_done(cell) / self._epochs[cell] if cell in running else 0.0
            left += self._updates[cell] * max(1 - share, 0.0) * rate
        return left / self._jobs

    def _seconds_an_update(self, cell: Cell) -> float | None:
        """Of ended runs with the cell's backbone or, if there are none, of all."""
        ended = [c for c in self._seconds if not c.method.decoupled]
        same = [c for c in ended if c.backbone == cell.backbone] or ended
        updates = sum(self._updates[c] for c in same)
        return sum(self._seconds[c] for c in same) / updates if updates else None


@contextlib.contextmanager
def announced(step: str) -> Iterator[None]:
    """Prints what is done within the context, a dot every two seconds, and how long it took.

    Lines that are printed within the context, such as warnings, come after that line.
    """
    started, ended = time.monotonic(), threading.Event()
    terminal, errors = sys.stdout, sys.stderr
    held, held_errors = io.StringIO(), io.StringIO()

    def print_dots() -> None:
        while not ended.wait(_DOT_SECONDS):
            print(".", end="", flush=True, file=terminal)

    print(step, end=" ", flush=True)
    thread = threading.Thread(target=print_dots, daemon=True)
    thread.start()
    try:
        with contextlib.redirect_stdout(held), contextlib.redirect_stderr(held_errors):
            yield
    finally:
        ended.set()
        thread.join()
        print(f"({_duration(time.monotonic() - started)})\n{held.getvalue()}", end="", flush=True)
        print(held_errors.getvalue(), end="", file=errors, flush=True)


def _epoch_steps(study: Study, cell: Cell) -> int:
    config = study.config(cell)
    data = study.data[cell.fold]
    planner = EpochPlanner(config, data.class_names, data.counts["train"])
    return config.steps_per_epoch or planner.plan(0).steps


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
