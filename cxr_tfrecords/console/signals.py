"""How a command ends at Ctrl-C (SIGINT) and SIGTERM."""

import contextlib
import os
import signal
import sys
import threading
from types import FrameType
from typing import Any

_NUMBERS = (signal.SIGINT, signal.SIGTERM)
_SECONDS = 0.1  # until a signal whose exception was lost is sent again


def end_at_once(state: str, code: int) -> None:
    """Lets both signals end the process at once, with a line and an exit code.

    For commands whose files are whole or absent at every moment. An exception would go through
    the threads of Beam and other libraries, which print it and replace the exit code.

    Args:
      state: what is kept and what to do, the end of the line. code: of SIGTERM.
    """

    def end(number: int, frame: FrameType | None) -> None:
        name = "interrupted" if number == signal.SIGINT else "SIGTERM"
        with contextlib.suppress(Exception):
            sys.stdout.flush()
        # os.write and not print, because the signal may have interrupted a print.
        os.write(2, f"\n{name}: {state}\n".encode())
        os._exit(130 if number == signal.SIGINT else code)

    for number in _NUMBERS:
        if signal.getsignal(number) != signal.SIG_IGN:  # as nohup sets it
            signal.signal(number, end)


def raise_once(exception: BaseException) -> None:
    """Lets SIGTERM raise `exception` in the main thread, as SIGINT raises KeyboardInterrupt, so
    that both remove what is half-written; and sees to it that a library cannot lose them.

    Python drops what is raised while it collects garbage, where libraries may run code of theirs
    (JAX does): the signal is then sent again.
    """
    process = os.getpid()

    def stop(number: int, frame: FrameType | None) -> None:
        if os.getpid() == process:
            raise exception
        signal.signal(number, signal.SIG_DFL)  # a fork of this process, which a library ends so
        os.kill(os.getpid(), number)

    def dropped(lost: Any) -> None:
        if lost.exc_type not in (KeyboardInterrupt, type(exception)):
            return before(lost)
        number = signal.SIGINT if lost.exc_type is KeyboardInterrupt else signal.SIGTERM
        timer = threading.Timer(_SECONDS, os.kill, (process, number))
        timer.daemon = True
        timer.start()
        return None

    before = sys.unraisablehook
    sys.unraisablehook = dropped
    if signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
        signal.signal(signal.SIGTERM, stop)
