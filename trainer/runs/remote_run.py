"""A run directory in an object store: `--run_dir=gs://…`, s3://… or another address of fsspec.

A run is written to a working directory in $TMPDIR, which is a run directory like any other, and
copied to its address after every checkpoint, after every epoch and at the end. When a run starts,
what is at the address is copied to the working directory first.

A store shows an object when it is whole, and not before. So it is enough to copy and to remove
files in the right order (`_order`): whatever moment a process is killed at, the address holds a run
that can be resumed.

- A checkpoint is complete if its `state.index` is there. It is copied after the other files of its
  folder, and removed before them. A checkpoint to resume from is copied after config.json and the
  best checkpoint, which it names, and removed before that.
- report.md, which says that a run is finished, is copied last and removed first.

A process that is killed loses what it trained after the last checkpoint that was copied.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator

from cxr_tfrecords import files
from cxr_tfrecords.concurrency import store_locks, temporary
from cxr_tfrecords.errors import TemporaryError, UserError, first_line
from trainer.runs import run_files

_INDEX = "state.index"  # TensorFlow writes it for the prefix `state`, see `checkpoints`
_UNFINISHED = "/.unfinished/"
_RESUME = f"{run_files.CHECKPOINTS}/{run_files.RESUME}/"
# What changes when an object is replaced, by the names of several stores.
_VERSION = ("size", "ETag", "etag", "generation", "updated", "LastModified", "created")

_copies: dict[str, _Copy] = {}  # working directory -> its copy
_read: dict[str, _Copy] = {}  # address -> the copy that commands read


@contextlib.contextmanager
def opened(run_dir: str, is_written: Callable[[str], bool]) -> Iterator[str]:
    """Yields the working directory of a run in an object store, or a local `run_dir` itself.

    Args:
      is_written: whether this process writes the run, asked with the working directory. Then other
        processes are kept out, and what is in the working directory at the end is copied.

    Raises:
      TemporaryError: another process writes there, or the store could not be written.
      UserError: the store cannot be read. Messages name the address, not the working directory.
    """
    if files.is_local(run_dir):
        yield run_dir
        return
    with temporary.folder("run") as parent:
        copy = _Copy(run_dir, os.path.join(parent, files.base_name(run_dir)))
        _copies[copy.folder] = copy
        try:
            copy.fetch()
            with (
                _naming(copy),
                copy.locked() if is_written(copy.folder) else contextlib.nullcontext(),
            ):
                yield copy.folder
        finally:
            del _copies[copy.folder]


def upload(run_dir: str) -> None:
    """Copies what has changed in a working directory to its address; nothing for other folders.

    Raises:
      TemporaryError: the store could not be written, or another process has taken over the run.
    """
    if run_dir in _copies:
        _copies[run_dir].save()


def refresh(run_dir: str) -> None:
    """Copies from the address again, if the objects there have changed; for workers that only read,
    when the one that writes is known to have the lock."""
    if run_dir in _copies and not _copies[run_dir].is_locked:
        _copies[run_dir].fetch()


def address_of(path: str) -> str:
    """The address that a folder is a copy of, for messages and records; other paths unchanged."""
    for copy in (*_copies.values(), *_read.values()):
        if copy.folder == path:
            return copy.address
    return path


@contextlib.contextmanager
def reading(run_dir: str) -> Iterator[str]:
    """Yields `local(run_dir)`; messages name the address."""
    folder = local(run_dir)
    with _naming(_read[run_dir]) if folder != run_dir else contextlib.nullcontext():
        yield folder


def local(run_dir: str) -> str:
    """A folder to read a finished run from: `run_dir` itself, or a copy of what is at its address,
    without checkpoints. Copies are removed when the process ends.

    Raises:
      UserError: the store cannot be read.
    """
    if files.is_local(run_dir):
        return run_dir
    if run_dir not in _read:
        stack = contextlib.ExitStack()
        parent = stack.enter_context(temporary.folder("run"))
        atexit.register(stack.close)
        _read[run_dir] = _Copy(run_dir, os.path.join(parent, files.base_name(run_dir)), False)
    _read[run_dir].fetch()
    return _read[run_dir].folder


@contextlib.contextmanager
def _naming(copy: _Copy) -> Iterator[None]:
    try:
        yield
    except (TemporaryError, UserError) as error:
        raise type(error)(str(error).replace(copy.folder, copy.address)) from error


class _Copy:
    """A working directory and its address."""

    def __init__(self, address: str, folder: str, with_checkpoints: bool = True) -> None:
        self.address, self.folder = address.rstrip("/"), folder
        self._fs, self._inner = files.filesystem(self.address)
        self._with_checkpoints = with_checkpoints
        self._listed: dict[str, str] | None = None
        # Each file at the address -> the state of the local file that is equal to it; None: none.
        self._sent: dict[str, tuple[int, int] | None] = {}
        self._check: Callable[[], None] | None = None

    @property
    def is_locked(self) -> bool:
        return self._check is not None

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        name = f"--run_dir={self.address}"
        with contextlib.ExitStack() as stack:
            with files.explained(self.address, "run_dir"):
                self._check = stack.enter_context(store_locks.held(self.address, name))
            self.fetch()  # again: another process may have written before the lock was free
            try:
                yield
            except BaseException:
                # Such as the file that explains the failure, which a second failure must not hide.
                with contextlib.suppress(Exception, TemporaryError):
                    self.save()
                raise
            self.save()

    def fetch(self) -> None:
        """Makes the folder equal to the address, without checkpoints that are not complete."""
        with files.explained(self.address, "run_dir"):
            listed = self._list()
            if listed == self._listed:
                return
            shutil.rmtree(self.folder, ignore_errors=True)
            os.makedirs(self.folder)
            wanted = [name for name in listed if self._is_wanted(name, listed)]
            for name in wanted:
                os.makedirs(os.path.dirname(self._local(name)), exist_ok=True)
            if wanted:
                self._fs.get(list(map(self._remote, wanted)), list(map(self._local, wanted)))
        self._listed, self._sent = listed, dict.fromkeys(listed) | self._scan()

    def save(self) -> None:
        """Makes the address equal to the folder.

        Raises:
          TemporaryError: see `upload`.
        """
        if self._check is None:
            return
        try:
            self._check()
            self._save()
        except Exception as error:
            raise TemporaryError(
                f"--run_dir={self.address} could not be written ({type(error).__name__}: "
                f"{first_line(error, 160)}); the checkpoints that are there are complete"
            ) from error

    def _save(self) -> None:
        present = self._scan()
        # Before anything else: an unfinished run must not look finished, nor a checkpoint complete
        # while its files are being replaced.
        changed = self._changed(present)
        first = {_index_of(name) for name in changed}
        if run_files.REPORT in changed or run_files.REPORT not in present:
            first.add(run_files.REPORT)
        self._remove(first.intersection(self._sent))
        changed = self._changed(present)
        for step in sorted(set(map(_order, changed))):
            names = [name for name in changed if _order(name) == step]
            self._fs.put(list(map(self._local, names)), list(map(self._remote, names)))
            self._sent |= {name: present[name] for name in names}
        self._remove(name for name in self._sent if name not in present)

    def _changed(self, present: dict[str, tuple[int, int]]) -> list[str]:
        return [name for name, state in present.items() if self._sent.get(name) != state]

    def _remove(self, names: Iterable[str]) -> None:
        # In the opposite order of copying: a checkpoint goes before the best one that it names.
        for name in sorted(names, key=_order, reverse=True):
            with contextlib.suppress(FileNotFoundError):
                self._fs.rm_file(self._remote(name))
            del self._sent[name]

    def _list(self) -> dict[str, str]:
        """Name -> version of each object below the address."""
        try:
            found = self._fs.find(self._inner, detail=True)
        except FileNotFoundError:
            found = {}
        names = {path[len(self._inner.rstrip("/")) + 1 :]: info for path, info in found.items()}
        return {
            name: str([info.get(key) for key in _VERSION])
            for name, info in names.items()
            if info["type"] == "file"
            and name
            and not name.startswith(store_locks.PREFIX)
            # A name such as ../x would be a file elsewhere on this machine.
            and not {"", ".", ".."}.intersection(name.split("/"))
        }

    def _is_wanted(self, name: str, listed: dict[str, str]) -> bool:
        if not name.startswith(f"{run_files.CHECKPOINTS}/"):
            return True
        return self._with_checkpoints and _index_of(name) in listed

    def _scan(self) -> dict[str, tuple[int, int]]:
        """Each file of the working directory, below it -> time of its last change and size."""
        states = {}
        for parent, _, names in os.walk(self.folder):
            for name in names:
                path = os.path.join(parent, name)
                short = os.path.relpath(path, self.folder).replace(os.sep, "/")
                if name != files.LOCK and files.TEMPORARY not in name and _UNFINISHED not in short:
                    status = os.stat(path)
                    states[short] = status.st_mtime_ns, status.st_size
        return states

    def _local(self, name: str) -> str:
        return os.path.join(self.folder, *name.split("/"))

    def _remote(self, name: str) -> str:
        return files.join(self._inner, name)


def _order(name: str) -> int:
    """Files with a smaller number are copied before those with a larger one."""
    if name == run_files.REPORT:
        return 5
    if not name.startswith(f"{run_files.CHECKPOINTS}/"):
        return 0
    return (3 if name.startswith(_RESUME) else 1) + name.endswith(f"/{_INDEX}")


def _index_of(name: str) -> str:
    """The index file of the checkpoint that a file belongs to."""
    return f"{name.rpartition('/')[0]}/{_INDEX}"
