"""How the paths in a list of images are read.

- A relative path is below the input folder; an absolute one, or an address with `://`, is used as
  it is; `~` is the home folder; `\\` is `/`.
- `.` and `..` are resolved in the text alone, so that one file has one name.
- A symbolic link is followed when its file is read, and keeps its own name.
- Names are stored relative to the input folder, so that a data set can be moved. Where paths lead
  out of it, the common folder of all paths takes its place.
- A file name alone that is not in the input folder is looked for in the folders below it.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Sequence

from cxr_tfrecords import files, tables
from cxr_tfrecords.errors import UserError


def read_path(text: str, where: str) -> str:
    """A path of a list, normalised; '' stays ''.

    Args:
      where: beginning of messages.

    Raises:
      UserError: it lies on a drive of a Windows machine, or holds a NUL, as no path does.
    """
    path = tables.file_name(text)
    if "\0" in path:
        raise UserError(f"{where}: {text!r} holds a NUL character: correct this line")
    if re.match("[A-Za-z]:/", path):
        raise UserError(
            f"{where}: {text} is a path on a Windows drive: write paths relative to --input_dir"
        )
    if not path:
        return path
    if not files.is_local(path):
        scheme, _, rest = path.partition("://")
        return f"{scheme}://{posixpath.normpath(rest)}"
    return posixpath.normpath(os.path.expanduser(path))


def common_root(root: str, paths: Sequence[str], where: str) -> tuple[str, list[str]]:
    """The folder that all paths are below, and the paths relative to it.

    Args:
      root: the input folder; it is kept if all paths are below it.
      paths: from `read_path`.

    Raises:
      UserError: there is no such folder.
    """
    if not any(_leads_out(path) for path in paths):
        return root, list(paths)
    base = root if not files.is_local(root) else os.path.abspath(root)
    whole = [path and _absolute(path, base) for path in paths]
    below = f"{base.rstrip('/')}/"
    if all(path.startswith(below) for path in whole if path):
        return root, [path.removeprefix(below) for path in whole]
    prefix, addresses = _prefix(whole, where)
    try:
        folder = posixpath.commonpath([posixpath.dirname(one) for one in addresses])
    except ValueError:
        folder = ""
    if prefix and not folder:
        raise UserError(f"{where}: its addresses have no common bucket: make one list for each")
    below = f"{prefix}{folder.rstrip('/')}/"
    return f"{prefix}{folder}", [path.removeprefix(below) for path in whole]


def _leads_out(path: str) -> bool:
    return path.startswith(("/", "../")) or not files.is_local(path)


def _absolute(path: str, base: str) -> str:
    if not files.is_local(path) or path.startswith("/"):
        return path
    scheme, mark, folder = base.rpartition("://")
    return f"{scheme}{mark}{posixpath.normpath(posixpath.join(folder, path))}"


def _prefix(paths: Sequence[str], where: str) -> tuple[str, list[str]]:
    """`s3://` or the like (empty for local paths), and what follows it in each path."""
    parts = [path.rpartition("://") for path in paths if path]
    prefixes = {scheme + mark for scheme, mark, _ in parts}
    if len(prefixes) > 1:
        raise UserError(
            f"{where} names files in several kinds of places ({', '.join(sorted(prefixes))}, where "
            "'' is the local disk): make one list for each"
        )
    return prefixes.pop(), [rest for _, _, rest in parts]


class FileSearch:
    """Finds local files below a folder by file name, with or without extension.

    The folder is read once, when the first name is asked for.
    """

    def __init__(self, root: str) -> None:
        self._root = root
        self._paths: dict[str, str] | None = None
        self._twice: dict[str, str] = {}

    def find(self, name: str, where: str) -> str:
        """Path of the file below the folder; `name` itself if there is none.

        Raises:
          UserError: two files have this name.
        """
        if "/" in name or not files.is_local(self._root):
            return name
        if self._paths is None:
            self._paths = {}
            self._read()
        if name in self._twice:
            raise UserError(
                f"{where}: {name} is the name of {self._paths[name]} and {self._twice[name]} in "
                f"{self._root}: write their paths"
            )
        return self._paths.get(name, name)

    def _read(self) -> None:
        assert self._paths is not None
        for folder, folders, names in os.walk(self._root):
            folders[:] = sorted(one for one in folders if not one.startswith("."))
            inside = os.path.relpath(folder, self._root)
            for base in sorted(names):
                path = base if inside == "." else f"{inside}/{base}"
                for name in dict.fromkeys((base, base.rpartition(".")[0])):
                    if name and self._paths.setdefault(name, path) != path:
                        self._twice.setdefault(name, path)
