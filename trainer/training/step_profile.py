"""`--profile`: traces training steps and prints a line that says where their time goes."""

from __future__ import annotations

import contextlib
import os
from types import TracebackType

from tqdm import tqdm

from trainer.runs.progress import Progress
from trainer.training import trace_file
from trainer.training.learner import Trainer

DIRECTORY = "profile"  # not in RUN/tensorboard, which every start deletes and writes again


class StepProfile:
    """Traces `config.profile` steps of the first epoch that a process trains, none of later ones.

    Use it around the host loops of an epoch:

        with StepProfile(trainer, progress) as profile:
            while …:
                count = profile.before(count)
                …                        # trains `count` steps and reads their totals
                profile.after(count)

    The first host loop is not traced, because it builds the graph of the steps. All workers run
    the same host loops, and only the chief traces. An error discards the trace.
    """

    def __init__(self, trainer: Trainer, progress: Progress) -> None:
        self._config, self._chief, self._progress = trainer.config, trainer.is_chief, progress
        self._logdir = os.path.join(trainer.config.run_dir, DIRECTORY)
        # If the graph exists, this process has trained, and profiled, an epoch before.
        self._wanted = trainer.config.profile
        if self._wanted and trainer.train_steps.experimental_get_tracing_count():
            self._wanted = 0
        self._left = self._wanted
        self._first_loop = 0  # how many steps the first host loop had; 0: it is not done
        self._first_step = 0  # first traced step of the epoch, counted from 1; 0: none yet
        self._session = contextlib.ExitStack()
        self._loop = contextlib.ExitStack()

    def __enter__(self) -> StepProfile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._loop.__exit__(kind, error, traceback)
        if error is not None:
            self._session.__exit__(kind, error, traceback)
        elif self._left:
            self._finish()

    def before(self, count: int) -> int:
        """Call it before a host loop of `count` steps; returns how many of them to run now."""
        if not self._left or not self._first_loop:
            return count
        if not self._first_step:
            self._first_step = self._progress.epoch_step + 1
            if self._chief:
                self._session.enter_context(trace_file.session(self._logdir))
        if self._chief:
            self._loop.enter_context(trace_file.host_loop(self._progress.step))
        return min(count, self._left)

    def after(self, count: int) -> None:
        """Call it after a host loop, when the devices have finished its steps."""
        self._loop.close()
        self._first_loop = self._first_loop or count
        if self._first_step and self._left:
            self._left -= count
            if not self._left:
                self._finish()

    def _finish(self) -> None:
        self._session.close()
        if self._chief:
            with tqdm.external_write_mode():  # in the middle of the epoch's bar
                print(f"profile: {self._describe()}", flush=True)
        self._left = 0

    def _describe(self) -> str:
        epoch = self._progress.epoch + 1
        if not self._first_step:
            return (
                f"nothing traced: epoch {epoch} has no step after the first host loop of "
                f"{self._first_loop}, which is left out because it builds the graph; choose a "
                "smaller --steps_per_loop"
            )
        count = self._wanted - self._left
        last = self._first_step + count - 1
        shares = trace_file.measure_shares(self._logdir)
        fewer = f" (fewer were left than --profile={self._wanted})" if self._left else ""
        return (
            f"steps {self._first_step}-{last} of epoch {epoch}{fewer}, "
            f"{shares.seconds / count * 1e3:.3g} ms each: {shares.describe()}; trace in "
            f"{self._logdir}: tensorboard --logdir={self._config.run_dir} (needs "
            "tensorboard-plugin-profile)"
        )
