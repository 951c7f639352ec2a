"""Signals that ask a run to end soon: SIGTERM, a preemption notice, and SIGINT, Ctrl-C.

While a model is trained they are only noted, and the loop saves a checkpoint at its next safe
point: the end of a loop of steps or a batch of an evaluation. Everywhere else nothing could be
saved that is not on disk already, and they end the process at once.

Several workers must save after the same step, so they add up what they have noted once a loop. (The
`PreemptionCheckpointHandler` of TensorFlow agrees on a step too, but asks before every step and
saves through a manager of its own, which knows neither meters nor the place in the epoch.)
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

# Signals are sent to a process, so what is known of them belongs to the process as well.
_noted: signal.Signals | None = None
_deferred = False


class NoticedError(Exception):
    """At a safe point: a signal has come, here or to another worker."""


def listen() -> None:
    """Handles the signals from here on; called by the main thread of a command."""
    for number in _SIGNALS:
        signal.signal(number, _note)


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Within, signals are noted for `Notices.check` and do not interrupt anything."""
    global _deferred
    _deferred = True
    try:
        yield
    finally:
        _deferred = False


def ending(what: str) -> BaseException:
    """What to raise when the state is safe; `what` says where the run stands, as in `saved …`."""
    if _noted == signal.SIGINT:  # a person, who wants no launcher to start it again
        return KeyboardInterrupt(f"interrupted, {what}")
    return TemporaryError(f"{_noted.name if _noted else 'another worker was stopped'}, {what}")


class Notices:
    """Looks for a noted signal, the same on all workers."""

    def __init__(self, strategy: tf.distribute.Strategy) -> None:
        self._several = isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)
        self._add_up = strategies.make_sum(strategy)

    def check(self) -> None:
        """Raises `NoticedError` if any worker has noted a signal; all of them must call it."""
        noted = _noted is not None
        if self._several:
            noted = self._add_up(float(noted)) > 0
        if noted:
            raise NoticedError

    def check_alone(self) -> None:
        """As `check`, but does nothing where there are several workers."""
        if not self._several:
            self.check()


def _note(number: int, frame: FrameType | None) -> None:
    global _noted
    again = _noted == number == signal.SIGINT
    _noted = signal.Signals(number)
    if not _deferred or again:
        raise ending("nothing new to save" if not _deferred else "nothing saved")
    if number == signal.SIGINT:
        # Not print, which a signal may have interrupted.
        os.write(2, b"\ninterrupted: saving after this loop of steps (again: at once)\n")
