"""Lists one folder, local or remote, and tells which entries are no part of a data set."""

from __future__ import annotations

import dataclasses
import errno
import os
import stat
import sys
from collections.abc import Iterable, Iterator

from cxr_tfrecords import files
from cxr_tfrecords.errors import UserError

_ARCHIVES = (".zip", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".7z", ".rar")
NOT_A_FILE = " (not a file)"  # after the paths of pipes, devices, sockets and endless links
NOT_UNPACKED = " (an archive, not unpacked)"  # after the paths of archives that are passed over


@dataclasses.dataclass(frozen=True)
class Entry:
    """A file or folder; `mtime_ns` is 0 where it is not known. `is_special`: a pipe, device or
    socket, whose opening may wait for ever, or an endless link."""

    name: str
    is_folder: bool
    num_bytes: int
    mtime_ns: int
    is_special: bool = False


def is_archive(name: str) -> bool:
    """Whether a file is called as archives of many files are, such as `archive.zip`."""
    return name.lower().endswith(_ARCHIVES)


def unpack_hint(ignored: Iterable[str]) -> str:
    """End of a message: which of the paths that were passed over is an archive; '' if none is."""
    path = next((path for path in ignored if path.endswith(NOT_UNPACKED)), "")
    return f"; {path.removesuffix(NOT_UNPACKED)} is an archive: unpack it" if path else ""


def not_a_folder(path: str) -> UserError:
    """The error for an input folder that is none."""
    hint = " but an archive: unpack it, and give the folder of its images"
    return UserError(f"--input_dir={path} is not a folder{hint if is_archive(path) else ''}")


def list_entries(folder: str) -> Iterator[Entry]:
    """A folder's entries by name; a dangling link counts as an empty file, to be rejected.

    Raises:
      UserError: it is not a folder, cannot be listed, or a name is not UTF-8 text.
    """
    if not files.is_local(folder):
        yield from _remote_entries(folder)
        return
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise not_a_folder(folder) from error
    except OSError as error:
        raise UserError(f"--input_dir: cannot list {folder}: {error.strerror}") from error
    for name in names:
        path = os.path.join(folder, name)
        if not _is_text(name):
            coding = sys.getfilesystemencoding()
            remedy = "rename it"
            if coding != "utf-8":  # as with PYTHONUTF8=0 in the locale C: the name may be right
                remedy = f"Python takes names for {coding} here, set PYTHONUTF8=1"
            raise UserError(f"--input_dir: the name of {path!r} is not UTF-8 text: {remedy}")
        try:
            status = os.stat(path)
        except OSError as error:
            yield Entry(name, False, 0, 0, is_special=error.errno == errno.ELOOP)
            continue
        is_folder = stat.S_ISDIR(status.st_mode)
        is_special = not is_folder and not stat.S_ISREG(status.st_mode)
        yield Entry(name, is_folder, status.st_size, status.st_mtime_ns, is_special)


def _is_text(name: str) -> bool:
    """Whether a file's name can be stored; Linux takes any bytes for one."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _remote_entries(folder: str) -> Iterator[Entry]:
    fs, inner = files.filesystem(folder)
    with files.explained(folder, "input_dir"):
        try:
            entries = fs.ls(inner, detail=True)
        except FileNotFoundError as error:
            # A missing folder's message is its path alone; a missing bucket's says more.
            alone = str(error).strip("/") == inner.strip("/")
            reason = "there is no such folder" if alone else error.strerror or error
            raise UserError(f"--input_dir={folder}: {reason}") from error
    rows = {files.base_name(one["name"]): one for one in entries if one["name"] != inner}
    for name in sorted(rows):
        one = rows[name]
        # Each store has its own format of time: here changes are found by name and size.
        yield Entry(name, one["type"] == "directory", one["size"] or 0, 0)
