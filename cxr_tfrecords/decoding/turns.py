"""Threads of a process that decode wait for each other, so that memory does not grow with them."""

from __future__ import annotations

import ctypes
import functools
import sys
import threading
from collections.abc import Callable

FREE, SHARED, ALONE = 0, 1, 2


class Turns:
    """Some images are decoded while no other one is, others only beside others like them.

    The smallest images take no turn, and never wait.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._shared, self._alone, self._waiting = 0, False, 0

    def take(self, turn: int) -> None:
        """Waits for a turn, `SHARED` or `ALONE`, which must be given back.

        Whoever wants to be alone comes before all that ask for a shared turn later: else it might
        wait for ever.
        """
        with self._changed:
            if turn == SHARED:
                self._changed.wait_for(lambda: not (self._alone or self._waiting))
                self._shared += 1
                return
            self._waiting += 1
            try:
                self._changed.wait_for(lambda: not (self._alone or self._shared))
                self._alone = True
            finally:
                self._waiting -= 1

    def give_back(self, turn: int) -> None:
        """Lets others have their turn."""
        if turn == ALONE:
            _give_back_memory()
        with self._changed:
            if turn == SHARED:
                self._shared -= 1
            else:
                self._alone = False
            self._changed.notify_all()


def _give_back_memory() -> None:
    """Returns freed memory to the system, of which the C library keeps up to 64 MB a thread."""
    trim = _malloc_trim()
    if trim:
        trim(0)


@functools.lru_cache(maxsize=1)
def _malloc_trim() -> Callable[[int], int] | None:
    """That of glibc; None with other C libraries."""
    if not sys.platform.startswith("linux"):
        return None
    return getattr(ctypes.CDLL(None), "malloc_trim", None)
