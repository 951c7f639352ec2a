"""A lock on a folder in an object store: one process at a time writes there.

    with store_locks.held("gs://bucket/run", "--run_dir=gs://bucket/run") as check:
        check()    # before each write: TemporaryError if another process has taken over

The lock is an object, `.lock-1`, that is created on the condition that it does not exist. The store
itself checks this (`ifGenerationMatch=0` of Google Cloud Storage, `If-None-Match: *` of S3). No
store knows that a process was killed, so the holder writes the object again every `BEAT` seconds.
Who finds a lock that does not change for `LEASE` seconds takes over, by creating the next number:
of several processes that try, one succeeds.

Not protected: stores that ignore the condition, as some servers with S3's protocol do; and writes
of a holder that was suspended for longer than `LEASE` just after `check`.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator

from cxr_tfrecords import files
from cxr_tfrecords.errors import TemporaryError

PREFIX = f"{files.LOCK}-"
BEAT = 15.0  # seconds
LEASE = 60.0


@contextlib.contextmanager
def held(folder: str, name: str) -> Iterator[Callable[[], None]]:
    """Keeps other processes from a folder in an object store; see the module.

    Args:
      name: of the folder in a message, such as `--run_dir=gs://bucket/run`.

    Yields:
      A function that raises TemporaryError if this process does not have the lock any more.

    Raises:
      TemporaryError: another process has the folder; it says which one.
    """
    lock = _Lock(folder, name)
    lock.take()
    thread = threading.Thread(target=lock.keep, daemon=True)
    thread.start()
    try:
        yield lock.check
    finally:
        lock.ended.set()
        thread.join()
        lock.release()


class _Lock:
    def __init__(self, folder: str, name: str) -> None:
        self._folder, self._name = folder, name
        self._fs, inner = files.filesystem(folder)
        self._prefix = files.join(inner, PREFIX)
        self._owner = f"process {os.getpid()} on {socket.gethostname()}"
        self._text = f"{self._owner}\n{uuid.uuid4()}\n"
        self._number = 0
        self.ended = threading.Event()

    def take(self) -> None:
        while True:
            numbers = self._numbers()
            last = numbers[-1] if numbers else 0
            if last and not self._is_abandoned(last):
                continue  # its holder has ended meanwhile
            if self._create(last + 1):
                break
        self._number = last + 1
        for number in numbers:
            self._remove(number)

    def keep(self) -> None:
        """Writes the lock again and again until `ended`; stops if it was lost."""
        beats = 0
        while not self.ended.wait(BEAT):
            beats += 1
            with contextlib.suppress(Exception):  # the store does not answer: try again
                if not self._is_mine():
                    return
                self._fs.pipe_file(self._path(self._number), f"{self._text}{beats}\n".encode())

    def check(self) -> None:
        if not self._is_mine():
            raise TemporaryError(
                f"another process has taken over {self._name}, because this one did not answer for "
                f"{LEASE:.0f} seconds"
            )

    def release(self) -> None:
        with contextlib.suppress(Exception):  # else it is abandoned, and the next one waits
            if self._is_mine():
                self._remove(self._number)

    def _is_mine(self) -> bool:
        numbers = self._numbers()
        if not numbers or numbers[-1] != self._number:
            return False
        return (self._read(self._number) or "").startswith(self._text)

    def _is_abandoned(self, number: int) -> bool:
        """Waits until a lock has not changed for `LEASE` seconds; False if it was removed.

        Raises:
          TemporaryError: it has changed, so its holder is alive.
        """
        before = self._read(number)
        if before is None:
            return False
        owner = before.partition("\n")[0]
        print(
            f"{self._name} is locked by {owner}: waiting {LEASE:.0f} seconds to see whether that "
            "still runs",
            flush=True,
        )
        end = time.monotonic() + LEASE
        while time.monotonic() < end:
            time.sleep(min(BEAT / 3, LEASE))
            now = self._read(number)
            if now is None:
                return False
            if now != before:
                raise TemporaryError(
                    f"{owner} is writing to {self._name}, wait for its end or name another"
                )
        return True

    def _create(self, number: int) -> bool:
        """Creates a lock; False if another process was faster."""
        path = self._path(number)
        try:
            self._fs.pipe_file(path, self._text.encode(), mode="create")
        except Exception:  # each store's library raises another type
            if number not in self._numbers():
                raise
        return self._read(number) == self._text

    def _numbers(self) -> list[int]:
        matches = (re.fullmatch(rf"{PREFIX}(\d+)", name) for name in files.names(self._folder))
        return sorted(int(match[1]) for match in matches if match)

    def _path(self, number: int) -> str:
        return f"{self._prefix}{number}"

    def _read(self, number: int) -> str | None:
        try:
            return self._fs.cat_file(self._path(number)).decode()
        except FileNotFoundError:
            return None

    def _remove(self, number: int) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._fs.rm_file(self._path(number))
