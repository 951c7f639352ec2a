"""Marks on disk of the files in work: what a process was decoding when it died.

A crash in a decoder ends the process without a word. Its marks are still there, and the next run
decodes these files in a process of their own, see `decoding_process`.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator

from cxr_tfrecords import files


class Marks:
    """The marks of one process for a list of items: a file with a byte for each item.

      with Marks(folder, "list-7") as marks:
          with marks.at(3):
              ...  # if the process dies here, `interrupted(folder)` is {"list-7": {3}}

    Only a process that dies leaves the file behind; it stays when the list is begun again, until
    the folder is removed. In an object store nothing is marked.
    """

    def __init__(self, folder: str, name: str) -> None:
        # Two processes may work on one list, if a runner believes that the first is lost.
        path = files.join(folder, f"{name}.{uuid.uuid4().hex}")
        self._path = path if files.is_local(path) else ""
        self._descriptor = -1

    def __enter__(self) -> Marks:
        if self._path:
            self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        return self

    def __exit__(self, *error: object) -> None:
        if self._path:
            os.close(self._descriptor)
            with contextlib.suppress(FileNotFoundError):
                os.remove(self._path)

    @contextlib.contextmanager
    def at(self, index: int) -> Iterator[None]:
        """Marks an item while the block runs; for several threads at once."""
        if not self._path:
            yield
            return
        # A write reaches the kernel, which outlives the process, and costs microseconds.
        os.pwrite(self._descriptor, b"\1", index)
        yield
        os.pwrite(self._descriptor, b"\0", index)


def interrupted(folder: str) -> dict[str, set[int]]:
    """Name of a list -> the items that were marked when their process died."""
    lists: dict[str, set[int]] = {}
    for name in files.names(folder) if files.is_local(folder) else ():
        marks = files.read_bytes(files.join(folder, name))
        items = {index for index, mark in enumerate(marks) if mark}
        lists.setdefault(name.partition(".")[0], set()).update(items)
    return lists
