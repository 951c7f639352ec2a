"""Temporary folders that a killed process leaves only until the next one is made.

with temporary.folder("models") as path:     # $TMPDIR/cxr-models-…
    ...
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator

from cxr_tfrecords import files
from cxr_tfrecords.concurrency import locks
from cxr_tfrecords.errors import UserError

_PREFIX = "cxr-"


@contextlib.contextmanager
def folder(purpose: str) -> Iterator[str]:
    """Yields a new folder in $TMPDIR, removed at the end; first removes those of killed processes.

    A folder is in use while the file `.lock` in it is locked, which the kernel frees with the
    process. So folders of other containers that share $TMPDIR are left alone too. On Windows, where
    nothing can be locked, a killed process leaves its folder.
    """
    remove_abandoned()
    with _locked(tempfile.gettempdir(), f"{_PREFIX}{purpose}-") as inner:
        yield inner


@contextlib.contextmanager
def of_libraries(purpose: str) -> Iterator[None]:
    """Meanwhile temporary files of all Python code, such as TensorFlow's converters, which leave
    them in $TMPDIR if they are killed, are in a folder as `folder` makes it."""
    before = tempfile.tempdir
    with folder(purpose) as inner:
        tempfile.tempdir = inner
        try:
            yield
        finally:
            tempfile.tempdir = before


@contextlib.contextmanager
def replacing_folder(folder: str) -> Iterator[str]:
    """Yields a temporary folder, which is renamed to `folder` on success and removed on failure;
    first removes those beside `folder` that killed processes left.

    `folder` is local, and missing or empty.

    Raises:
      UserError: another process has filled it meanwhile.
    """
    parent, name = os.path.split(os.path.abspath(folder))
    os.makedirs(parent, exist_ok=True)
    prefix = f"{name}{files.TEMPORARY}"
    remove_abandoned(parent, prefix)
    with _locked(parent, prefix) as inner, files.named_failures(folder):
        yield inner
        try:
            if os.path.isdir(folder):
                os.rmdir(folder)
            os.rename(inner, folder)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            raise UserError(
                f"{folder}: another process has written there meanwhile: use its files, or name "
                "another folder"
            ) from error


@contextlib.contextmanager
def _locked(parent: str, prefix: str) -> Iterator[str]:
    """Yields the folder `files` in a new, locked folder, which is removed at the end."""
    path, descriptor = _make_and_lock(parent, prefix)
    try:
        os.makedirs(inner := os.path.join(path, "files"))
        yield inner
    finally:
        shutil.rmtree(path, ignore_errors=True)
        if descriptor is not None:
            os.close(descriptor)


def _make_and_lock(parent: str, prefix: str) -> tuple[str, int | None]:
    """A new folder, and the descriptor of its lock; None on a file system without locks."""
    while True:
        path = tempfile.mkdtemp(prefix=prefix, dir=parent)
        try:
            descriptor = locks.take(os.path.join(path, files.LOCK))
        except OSError:
            return path, None
        if descriptor is not None:
            return path, descriptor
        shutil.rmtree(path, ignore_errors=True)  # `remove_abandoned` of another process looks at it


def remove_abandoned(root: str = "", prefix: str = _PREFIX) -> None:
    """Removes the folders of this module whose process has ended.

    Args:
      root: the folder that holds them; empty: $TMPDIR.
      prefix: with which their names begin.
    """
    root = root or tempfile.gettempdir()
    for name in os.listdir(root):
        path = os.path.join(root, name)
        if not name.startswith(prefix) or not os.path.exists(os.path.join(path, files.LOCK)):
            continue
        with contextlib.suppress(OSError):  # of another user, or removed meanwhile
            descriptor = locks.take(os.path.join(path, files.LOCK))
            if descriptor is not None:
                if os.path.isdir(os.path.join(path, "files")):  # else it is being made just now
                    shutil.rmtree(path, ignore_errors=True)
                os.close(descriptor)
