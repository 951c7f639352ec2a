"""Signals that ask a run to end soon: SIGTERM (preemption) and SIGINT (Ctrl-C).

While a model is trained, a signal is only noted. The training loop then saves a checkpoint at its
next safe point: the end of a host loop (a call that runs many training steps) or of a batch of an
evaluation. At all other times there is nothing to save that is not on disk already, and a signal
ends the process at once.

With several workers, all must save after the same step. So after every host loop they add up
whether they have noted a signal. (TensorFlow's `PreemptionCheckpointHandler` also agrees on a step,
but it asks before every step, and its checkpoints hold neither the meters nor the position in the
epoch.)
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from types import FrameType

import tensorflow as tf

from cxr_tfrecords.errors import TemporaryError
from trainer.distribution import strategies

_SIGNALS = (signal.SIGTERM, signal.SIGINT)

# Global variables, because a signal is sent to the whole process.
_noted: signal.Signals | None = None
_deferred = False


class NoticedError(Exception):
    """Raised at a safe point if this process or another worker has received a signal."""


def listen() -> None:
    """Handles the signals from now on; call it in the main thread."""
    for number in _SIGNALS:
        signal.signal(number, _note)


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Within the context, signals interrupt nothing and are noted for `Notices.check`."""
    global _deferred
    _deferred = True
    try:
        yield
    finally:
        _deferred = False


def ending(state: str) -> BaseException:
    """The exception that ends the process after a signal.

    Args:
      state: what was saved, for the message: `saved after step 20`, `nothing saved`.
    """
    if _noted == signal.SIGINT:  # from a person: no launcher should start the run again
        return KeyboardInterrupt(f"interrupted, {state}")
    return TemporaryError(f"{_noted.name if _noted else 'another worker was stopped'}, {state}")


class Notices:
    """Checks whether a signal was noted, with the same answer on all workers."""

    def __init__(self, strategy: tf.distribute.Strategy) -> None:
        self._has_workers = isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)
        self._add_up = strategies.make_sum(strategy)

    def check(self) -> None:
        """Raises `NoticedError` if any worker has noted a signal; all of them must call it."""
        noted = _noted is not None
        if self._has_workers:
            noted = self._add_up(float(noted)) > 0
        if noted:
            raise NoticedError

    def check_alone(self) -> None:
        """As `check`, but does nothing if there are several workers."""
        if not self._has_workers:
            self.check()


def _note(number: int, frame: FrameType | None) -> None:
    global _noted
    again = _noted == number == signal.SIGINT
    _noted = signal.Signals(number)
    if not _deferred or again:
        raise ending("nothing new to save" if not _deferred else "nothing saved")
    if number == signal.SIGINT:
        # os.write and not print, because the signal may have interrupted a print.
        os.write(2, b"\ninterrupted: saves after the running steps; Ctrl-C again ends at once\n")
