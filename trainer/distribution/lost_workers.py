"""Several workers: one that is lost, and one that hangs.

When a worker dies, TensorFlow's coordination service misses its heartbeats and fails the collective
operations of the others. When one is stopped, or just waits for ever, its heartbeats may go on, and
the others wait inside TensorFlow, where no exception of Python's can reach them: so a thread looks
whether loops of steps still finish, and ends the process from outside.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

from cxr_tfrecords.errors import EXIT_TEMPORARY, TemporaryError

_TICKS = 20
_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

_beats = 0
_last = "the start"


def beat(done: str) -> None:
    """Notes progress; `done` says of what, as in `step 40`."""
    global _beats, _last
    _beats += 1
    _last = done


def start(timeout: float, end: Callable[[int], None] = os._exit) -> None:
    """Watches from now on, from a thread of its own.

    Args:
      timeout: seconds without a beat after which the process ends; 0: never.
      end: gets the exit code. Threads inside TensorFlow do not end by an exception.
    """
    if timeout:
        main = threading.get_ident()
        threading.Thread(target=_watch, args=(timeout, main, end), daemon=True).start()


@contextlib.contextmanager
def explained_losses() -> Iterator[None]:
    """Turns what TensorFlow says of a lost worker into a TemporaryError of one line."""
    import tensorflow as tf

    try:
        yield
    except (
        tf.errors.AbortedError,
        tf.errors.CancelledError,
        tf.errors.DeadlineExceededError,
        tf.errors.InternalError,
        tf.errors.UnavailableError,
    ) as error:
        names = re.findall(r"^/job:(\w+)/replica:\d+/task:(\d+)$", str(error), re.MULTILINE)
        who = ", ".join(f"{job} {task}" for job, task in names) or "another worker"
        reason = re.sub(r"\{\{.*?\}\} ", "", " ".join(str(error).split()))
        reason = reason.split(" The tasks have crashed")[0][:200]
        raise TemporaryError(f"{who} is lost after {_last} ({reason})") from error


def _watch(timeout: float, main: int, end: Callable[[int], None]) -> None:
    # Ticks are counted, not seconds: a process that was suspended itself has not waited.
    seen, idle = -1, 0
    while idle < _TICKS:
        time.sleep(timeout / _TICKS)
        seen, idle = _beats, idle + 1 if seen == _beats else 0
    print(
        f"nothing finished within --worker_timeout={timeout:g} seconds after {_last}, in "
        f"{_where(sys._current_frames().get(main))}: a worker hangs or is lost. Run the same "
        "command again on all workers to go on",
        file=sys.stderr,
        flush=True,
    )
    end(EXIT_TEMPORARY)


def _where(frame: FrameType | None) -> str:
    """The innermost line of this package that a thread is at."""
    while frame is not None:
        path = os.path.abspath(frame.f_code.co_filename)
        if path.startswith(_PACKAGE + os.sep):
            name = os.path.relpath(path, os.path.dirname(_PACKAGE))
            return f"{frame.f_code.co_name} ({name}:{frame.f_lineno})"
        frame = frame.f_back
    return "an unknown place"
