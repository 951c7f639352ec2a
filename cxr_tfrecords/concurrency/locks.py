"""Locks that keep two processes from the same work, also on machines that share a disk."""

from __future__ import annotations

import os
import sys


def take(path: str) -> int | None:
    """Locks a folder, or a file that is made if it is missing, until the descriptor is closed.

    The lock is the kernel's: a process that ends, in whatever way, leaves none behind. Processes
    that inherit the descriptor hold the lock too. On NFS only files can be locked, and on Windows
    nothing is.

    Returns:
      An open descriptor; None if another process has the lock.

    Raises:
      OSError: the path cannot be opened, or its file system has no locks.
    """
    mode = os.O_RDONLY if os.path.isdir(path) else os.O_RDWR | os.O_CREAT
    descriptor = os.open(path, mode, 0o666)
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
