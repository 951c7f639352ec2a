"""Temporary folders that a killed process leaves only until the next one is made.

with temporary.folder("models") as path:     # $TMPDIR/cxr-models-…
    ...
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator

from cxr_tfrecords import files
from cxr_tfrecords.concurrency import locks

_PREFIX = "cxr-"


@contextlib.contextmanager
def folder(purpose: str) -> Iterator[str]:
    """Yields a new folder in $TMPDIR, removed at the end; first removes those of killed processes.

    A folder is in use while the file `.lock` in it is locked, which the kernel frees with the
    process. So folders of other containers that share $TMPDIR are left alone too. On Windows, where
    nothing can be locked, a killed process leaves its folder.
    """
    remove_abandoned()
    path, descriptor = _make_and_lock(f"{_PREFIX}{purpose}-")
    try:
        os.makedirs(inner := os.path.join(path, "files"))
        yield inner
    finally:
        shutil.rmtree(path, ignore_errors=True)
        if descriptor is not None:
            os.close(descriptor)


def _make_and_lock(prefix: str) -> tuple[str, int | None]:
    """A new folder, and the descriptor of its lock; None on a file system without locks."""
    while True:
        path = tempfile.mkdtemp(prefix=prefix)
        try:
            descriptor = locks.take(os.path.join(path, files.LOCK))
        except OSError:
            return path, None
        if descriptor is not None:
            return path, descriptor
        shutil.rmtree(path, ignore_errors=True)  # `remove_abandoned` of another process looks at it


def remove_abandoned() -> None:
    """Removes the folders of `folder` in $TMPDIR whose process has ended."""
    root = tempfile.gettempdir()
    for name in os.listdir(root):
        path = os.path.join(root, name)
        if not name.startswith(_PREFIX) or not os.path.exists(os.path.join(path, files.LOCK)):
            continue
        with contextlib.suppress(OSError):  # of another user, or removed meanwhile
            descriptor = locks.take(os.path.join(path, files.LOCK))
            if descriptor is not None:
                if os.path.isdir(os.path.join(path, "files")):  # else it is being made just now
                    shutil.rmtree(path, ignore_errors=True)
                os.close(descriptor)
