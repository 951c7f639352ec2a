"""Locks that keep two processes from the same work, also on machines that share a disk.

    with locks.held("runs/a", "--run_dir=runs/a"):      # of a folder that this process writes
        ...

The locks are the kernel's: a process that ends, in whatever way, leaves none behind.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import sys
from collections.abc import Iterator

from cxr_tfrecords import files
from cxr_tfrecords.errors import TemporaryError, UserError

# What `flock` raises on file systems that have no locks.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL)


@contextlib.contextmanager
def held(folder: str, name: str) -> Iterator[None]:
    """Keeps other processes from a folder, which is made if it is missing, and removes what killed
    ones have left half-written.

    The file `.lock` in it is locked, and says who has it. Object stores, Windows and some network
    disks have no locks: there nobody is kept out.

    Args:
      name: of the folder in a message, such as `--run_dir=RUN`.

    Raises:
      TemporaryError: another process has the folder; it says which one.
      UserError: the folder or its `.lock` cannot be written.
    """
    if not files.is_local(folder):
        yield
        return
    existed, path = os.path.isdir(folder), os.path.join(folder, files.LOCK)
    try:
        os.makedirs(folder, exist_ok=True)
        descriptor = _take_or_say_who(path, name)
    except OSError as error:
        raise UserError(f"cannot write to {name}: {error.strerror}") from error
    try:
        if descriptor is not None:
            files.remove_temporary(folder)  # of processes that were killed
        yield
    finally:
        _release(path, descriptor)
        if not existed:  # nothing is left of work that was refused before its first file
            with contextlib.suppress(OSError):
                os.rmdir(folder)


@contextlib.contextmanager
def held_file(path: str, name: str) -> Iterator[None]:
    """As `held`, of one file among others in a local folder: the file `path`.lock is locked.

    Args:
      name: of the file in a message, such as `--output=FILE`.

    Raises:
      TemporaryError: another process writes the file; it says which one.
      OSError: the folder cannot be written.
    """
    lock = f"{path}{files.LOCK}"
    descriptor = _take_or_say_who(lock, name)
    try:
        if descriptor is not None:
            folder, start = os.path.split(os.path.abspath(path))
            files.remove_temporary(folder, start)
        yield
    finally:
        _release(lock, descriptor)


def _release(path: str, descriptor: int | None) -> None:
    """Ends what `_take_or_say_who` began: removes the file, then unlocks it."""
    if descriptor is not None:
        with contextlib.suppress(OSError):
            os.remove(path)
        os.close(descriptor)


def _take_or_say_who(path: str, name: str) -> int | None:
    """The descriptor of a locked file; None where there are no locks."""
    while True:
        try:
            descriptor = take(path)
        except OSError as error:
            if error.errno in _NO_LOCKS:
                return None
            raise
        if descriptor is None:
            with contextlib.suppress(OSError), open(path, encoding="utf-8") as file:
                raise TemporaryError(
                    f"{file.read().strip() or 'another process'} is writing to {name}, wait for "
                    "its end or name another"
                )
            continue  # it has ended, and removed the file
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                break
        os.close(descriptor)  # the process that had it removed this file just before it ended
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
    return descriptor


def take(path: str) -> int | None:
    """Locks a file, which is made if it is missing, until the descriptor is closed.

    Processes that inherit the descriptor hold the lock too. On Windows nothing is locked.

    Returns:
      An open descriptor; None if another process has the lock.

    Raises:
      OSError: the file cannot be opened, or its file system has no locks.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    if sys.platform != "win32":
        import fcntl

        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except OSError:
            os.close(descriptor)
            raise
    return descriptor
