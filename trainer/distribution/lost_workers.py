"""Ends a worker process when another worker is lost or hangs.

If a worker dies, TensorFlow's coordination service misses its heartbeats and makes the collective
operations of the others fail. If a worker is alive but waits forever, its heartbeats may go on, and
the others wait inside TensorFlow, where a Python exception cannot stop them. So a thread checks
that host loops (calls that run many training steps) still finish; if not, it ends the process.
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
    """Notes that the process makes progress; `done` names what is finished, such as `step 40`."""
    global _beats, _last
    _beats += 1
    _last = done


def start(timeout: float, end: Callable[[int], None] = os._exit) -> None:
    """Starts the thread that watches for progress.

    Args:
      timeout: seconds without a call of `beat` after which the process ends; 0: never.
      end: ends the process, given an exit code. The default does not raise an exception, because
        a thread inside TensorFlow would not receive it.
    """
    if timeout:
        main = threading.get_ident()
        threading.Thread(target=_watch, args=(timeout, main, end), daemon=True).start()


@contextlib.contextmanager
def explained_losses() -> Iterator[None]:
    """Turns TensorFlow's errors about a lost worker into a TemporaryError of one line."""
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
    # Counts short sleeps and not the clock, because a process that was suspended has not waited.
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
    """The innermost line of this package that a thread executes."""
    while frame is not None:
        path = os.path.abspath(frame.f_code.co_filename)
        if path.startswith(_PACKAGE + os.sep):
            name = os.path.relpath(path, os.path.dirname(_PACKAGE))
            return f"{frame.f_code.co_name} ({name}:{frame.f_lineno})"
        frame = frame.f_back
    return "an unknown place"
