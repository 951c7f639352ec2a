"""Files on local disk, gs:// and s3://, read and written in the same way.

A thin layer over fsspec. Local paths go to `os` directly, which is faster: a build opens every
source file. `replacing` writes a file so that it is never seen half-written.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import stat
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from typing import IO, Any

from cxr_tfrecords.errors import UserError, first_line

# A file by which a process keeps others from a folder, see `concurrency.locks`.
LOCK = ".lock"
TEMPORARY = ".tmp-"
_BUFFER = 1 << 20  # bytes of a local file that are written at once: records are a few kB
_EXTRAS = {"gs": "gcp", "gcs": "gcp", "s3": "aws", "s3a": "aws"}


# What NumPy raises for a file of arrays that is missing or damaged; MemoryError: a size in it.
DAMAGED_ARRAYS = (
    *(OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, MemoryError),
    *(zipfile.BadZipFile, zlib.error, NotImplementedError, SyntaxError, tokenize.TokenError),
)

# Files and folders that operating systems, archives and file servers leave, in lower case. Names
# that begin with a dot (.DS_Store, ._scan.png, .ipynb_checkpoints) are passed over as well.
_JUNK = frozenset(
    (
        *("thumbs.db", "thumbs.db:encryptable", "ehthumbs.db", "ehthumbs_vista.db"),
        *("desktop.ini", "icon\r", "__macosx", "$recycle.bin", "system volume information"),
        *("@eadir", "#recycle", "#snapshot", "lost+found", "__pycache__"),
    )
)


def is_junk(name: str) -> bool:
    """Whether a name is hidden, or one that a system makes by itself, as Thumbs.db."""
    return name.startswith(".") or name.lower() in _JUNK


def is_local(path: str) -> bool:
    return "://" not in path


def join(folder: str, *names: str) -> str:
    """Path below a folder; the separator is `/` on every file system."""
    return "/".join([folder.rstrip("/"), *names])


def base_name(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2]


def filesystem(path: str) -> tuple[Any, str]:
    """The fsspec file system of a path and the path inside it.

    Raises:
      UserError: the scheme is unknown, or its package is not installed (naming the extra).
    """
    import fsspec

    scheme = path.partition("://")[0] if "://" in path else ""
    try:
        # Without the cache of listings: another worker may have added files meanwhile.
        options = {"use_listings_cache": False} if scheme else {}
        return fsspec.core.url_to_fs(path, **options)
    except ImportError as error:
        extra = _EXTRAS.get(scheme)
        hint = f"pip install 'cxr-balance[{extra}]'" if extra else str(error)
        raise UserError(f"{path}: {scheme}:// needs a package that is missing: {hint}") from error
    except ValueError as error:
        raise UserError(
            f"{path}: no file system is known by {scheme}:// ({error}): use a local path, gs:// or "
            "s3://"
        ) from error


@contextlib.contextmanager
def explained(path: str, flag: str) -> Iterator[None]:
    """Turns errors of a local disk or remote store into a UserError that names flag and path.

    Each store's library raises its own types, so any exception about a remote path is taken.
    """
    try:
        yield
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"--{flag}={path}: {error.strerror or error}") from error
    except Exception as error:
        if is_local(path):
            raise
        raise UserError(f"--{flag}={path}: {type(error).__name__}: {error}") from error


@contextlib.contextmanager
def explained_writes(target: str) -> Iterator[None]:
    """Turns an OSError, as of a disk that is full or read-only, into a UserError of one line."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot write {target}: {error.strerror or error}. Finished files are kept: make "
            "room or name another --output_dir, then run the same command again"
        ) from error


def open_file(path: str, mode: str = "rb") -> IO[Any]:
    """Opens a file; text is UTF-8, and line ends are not translated."""
    text: dict[str, Any] = {} if "b" in mode else {"encoding": "utf-8", "newline": ""}
    if is_local(path):
        return open(path, mode, **text, buffering=_BUFFER if mode == "wb" else -1)
    fs, inner = filesystem(path)
    return fs.open(inner, mode, **text)


def read_bytes(path: str) -> bytes:
    with open_file(path) as file:
        return file.read()


def read_regular(path: str) -> bytes:
    """The bytes of a file that somebody else named.

    Raises:
      OSError: it cannot be read, or is a pipe, device or socket, which is not opened: that might
        wait for ever.
    """
    if is_local(path):
        status = os.stat(path)
        kind = stat.S_IFMT(status.st_mode)
        if kind not in (stat.S_IFREG, stat.S_IFDIR):  # opening a folder has its own message
            raise OSError(errno.EINVAL, "a pipe, device or socket", path)
        if kind == stat.S_IFREG and not status.st_size:
            return b""  # not opened: files of /proc say so too, and reading /proc/kmsg waits
        with open(path, "rb", buffering=0) as file:  # a buffer would only add system calls
            return file.read()
    return read_bytes(path)


def exists(path: str) -> bool:
    if is_local(path):
        return os.path.exists(path)
    fs, inner = filesystem(path)
    return fs.exists(inner)


def size(path: str) -> int:
    """Bytes of a file."""
    if is_local(path):
        return os.stat(path).st_size
    fs, inner = filesystem(path)
    return fs.size(inner)


def sizes(folder: str) -> dict[str, int]:
    """Name -> bytes of the files (not folders) in a folder; empty where there is none."""
    if is_local(folder):
        if not os.path.isdir(folder):
            return {}
        with os.scandir(folder) as entries:
            return {entry.name: entry.stat().st_size for entry in entries if entry.is_file()}
    fs, inner = filesystem(folder)
    if not fs.exists(inner):
        return {}
    entries = fs.ls(inner, detail=True)
    return {base_name(one["name"]): one["size"] for one in entries if one["type"] == "file"}


def names(folder: str) -> set[str]:
    """Names in a folder, without those of temporary files and of its lock; empty where there is no
    folder."""
    if is_local(folder):
        listed = os.listdir(folder) if os.path.isdir(folder) else []
    else:
        fs, inner = filesystem(folder)
        listed = [base_name(p) for p in fs.ls(inner, detail=False)] if fs.exists(inner) else []
    return {name for name in listed if name not in ("", LOCK) and TEMPORARY not in name}


def remove_temporary(folder: str, start: str = "") -> None:
    """Removes the temporary files of `replacing` that a killed process left in a local folder.

    Args:
      start: of the names of the files that they would have become.

    Object stores show a file only when it is whole, so they hardly ever hold such a file.
    """
    if is_local(folder):
        for name in sizes(folder):
            if TEMPORARY in name and name.startswith(start):
                remove(join(folder, name))


def modified_ns(path: str) -> int:
    """Time of a local file's last change, ns since 1970; far in the future for files elsewhere,
    whose time is not known."""
    return os.stat(path).st_mtime_ns if is_local(path) else 2**63 - 1


def makedirs(folder: str) -> None:
    if is_local(folder):
        os.makedirs(folder, exist_ok=True)
    else:  # an object store has no folders, and its bucket must exist already
        filesystem(folder)


def nearest_existing(path: str) -> str:
    """A local path, or the nearest folder above it that exists."""
    while not os.path.lexists(path):
        path = os.path.dirname(path.rstrip("/")) or "."
    return path


def why_unwritable(path: str) -> str:
    """Why a local folder cannot be made or written to, seen without writing; empty if it can."""
    path = nearest_existing(path)
    if not os.path.isdir(path):
        return f"{path} is not a folder"
    return "" if os.access(path, os.W_OK | os.X_OK) else f"{path} cannot be written to"


def check_output_dir(path: str) -> None:
    """Refuses a local folder for results that holds something or cannot be put in place at the end,
    as `temporary.replacing_folder` does it: made beside it and renamed.

    Raises:
      UserError: it exists and is not empty, is a file or a mounted disk, or its parent cannot be
        written to.
    """
    with explained(path, "output_dir"):
        if os.path.lexists(path) and (not os.path.isdir(path) or os.listdir(path)):
            raise UserError(
                f"--output_dir={path} exists and is not empty: name a new or empty folder"
            )
    if os.path.ismount(path):  # it cannot be replaced by a folder that was made beside it
        raise UserError(f"--output_dir={path} is a mounted disk: name a new folder in it")
    if reason := why_unwritable(os.path.dirname(os.path.abspath(path))):
        raise UserError(f"--output_dir={path}: {reason}: name another folder")


def rename(source: str, target: str) -> None:
    """Renames a file, replacing the target; atomic on local disk, a copy on object stores."""
    if is_local(target):
        os.replace(source, target)
        return
    fs, inner = filesystem(target)
    fs.mv(fs._strip_protocol(source), inner)


def remove(path: str) -> None:
    if is_local(path):
        os.remove(path)
        return
    fs, inner = filesystem(path)
    fs.rm_file(inner)


def remove_tree(folder: str) -> None:
    """Removes a folder and all in it; nothing happens where there is none."""
    if is_local(folder):
        shutil.rmtree(folder, ignore_errors=True)
        return
    fs, inner = filesystem(folder)
    if fs.exists(inner):
        fs.rm(inner, recursive=True)


@contextlib.contextmanager
def replacing(path: str, suffix: str = "") -> Iterator[str]:
    """Yields a temporary name that becomes `path` on success and is removed on failure.

    Args:
      suffix: end of the temporary name, for writers that choose a format by it.
    """
    temporary = f"{path}{TEMPORARY}{os.getpid()}{suffix}"
    try:
        with named_failures(path):
            yield temporary
            rename(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            remove(temporary)
        raise


@contextlib.contextmanager
def named_failures(path: str) -> Iterator[None]:
    """Gives an error of the disk that names no file, as that of a write, the name of `path`."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = path
        raise


def write_text(path: str, text: str) -> None:
    """Writes text under a temporary name and renames it. Bytes of file names that are not UTF-8
    become \\udc80 to \\udcff."""
    with replacing(path) as temporary, open_file(temporary, "wb") as file:
        file.write(text.encode(errors="backslashreplace"))


def write_json(path: str, content: Any, *, sort_keys: bool = True, allow_nan: bool = True) -> None:
    """Writes JSON under a temporary name and renames it.

    With sorted keys, equal contents give equal bytes. Bytes of file names that are not UTF-8 become
    \\udc80 to \\udcff, and are the same bytes again after `read_json`.

    Raises:
      ValueError: `content` holds NaN or an infinity without `allow_nan`.
    """
    text = json.dumps(
        content, indent=1, sort_keys=sort_keys, ensure_ascii=False, allow_nan=allow_nan
    )
    write_text(path, f"{text}\n")


def read_json(path: str) -> Any:
    """The content of a JSON file.

    Raises:
      OSError, ValueError: it cannot be opened, or is not JSON, or has a key twice in one object.
    """
    try:
        return json.loads(read_bytes(path), object_pairs_hook=_without_twins)
    except RecursionError:
        raise ValueError("objects within objects, too many for JSON of ours") from None


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON, in which no key may stand twice: `json` would keep the last value."""
    result = dict(pairs)
    if len(result) < len(pairs):
        keys = [key for key, _ in pairs]
        twin = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twin[:60]!r} stands in it twice")
    return result


def read_named_json(path: str, remedy: str = "") -> Any:
    """The content of a JSON file that a user has named.

    Args:
      remedy: end of the error message, which says what to do.

    Raises:
      UserError: it cannot be opened, or is not JSON.
    """
    remedy = f"; {remedy}" if remedy else ""
    try:
        return read_json(path)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}{remedy}") from error
    except ValueError as error:
        raise UserError(f"{path} is damaged ({first_line(error, 160)}){remedy}") from error
