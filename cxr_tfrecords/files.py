"""Files on local disk, gs:// and s3:// alike, never seen half-written.

A thin layer over fsspec. Local paths take the short way through `os`, which matters where a
build opens every source file once.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from typing import IO, Any

from cxr_tfrecords.errors import UserError

_TEMPORARY = ".tmp-"
_EXTRAS = {"gs": "gcp", "gcs": "gcp", "s3": "aws", "s3a": "aws"}


def is_local(path: str) -> bool:
    return "://" not in path


def join(folder: str, *names: str) -> str:
    """Path below a folder; `/` separates on every file system that we write to."""
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
        # No listing cache: another worker may have added files since.
        options = {"use_listings_cache": False} if scheme else {}
        return fsspec.core.url_to_fs(path, **options)
    except ImportError as error:
        extra = _EXTRAS.get(scheme)
        hint = f"pip install 'cxr-balance[{extra}]'" if extra else str(error)
        raise UserError(f"{path}: {scheme}:// needs a package that is missing: {hint}") from error
    except ValueError as error:
        raise UserError(f"{path}: no file system is known by {scheme}:// ({error})") from error


@contextlib.contextmanager
def explained(path: str, flag: str) -> Iterator[None]:
    """Turns what a remote store raises (each library has its own types) into one line."""
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
def explained_writes(what: str) -> Iterator[None]:
    """Turns a full, read-only or vanished disk under the output into one line, on any process."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot write {what}: {error.strerror or error}. What is finished is kept: make room "
            "or name another --output_dir, then run the same command again"
        ) from error


def open_file(path: str, mode: str = "rb") -> IO[Any]:
    """Opens a file; text is UTF-8 with `\\n` kept as it is."""
    text: dict[str, Any] = {} if "b" in mode else {"encoding": "utf-8", "newline": ""}
    if is_local(path):
        return open(path, mode, **text)
    fs, inner = filesystem(path)
    return fs.open(inner, mode, **text)


def read_bytes(path: str) -> bytes:
    with open_file(path) as file:
        return file.read()


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
    found = fs.ls(inner, detail=True)
    return {base_name(one["name"]): one["size"] for one in found if one["type"] == "file"}


def names(folder: str) -> set[str]:
    """Names of the whole files and folders in a folder; empty where there is none."""
    if is_local(folder):
        found = os.listdir(folder) if os.path.isdir(folder) else []
    else:
        fs, inner = filesystem(folder)
        found = [base_name(p) for p in fs.ls(inner, detail=False)] if fs.exists(inner) else []
    return {name for name in found if name and _TEMPORARY not in name}


def remove_temporary(folder: str) -> None:
    """Removes what a killed process left of `replacing` in a local folder.

    Object stores show a file only when it is whole, so there is hardly ever any such file there.
    """
    if is_local(folder):
        for name in sizes(folder):
            if _TEMPORARY in name:
                remove(join(folder, name))


def modified_ns(path: str) -> int:
    """Time of a local file's last change, ns since 1970; the far future elsewhere (unknown)."""
    return os.stat(path).st_mtime_ns if is_local(path) else 2**63 - 1


def makedirs(folder: str) -> None:
    if is_local(folder):
        os.makedirs(folder, exist_ok=True)
    else:  # an object store has no folders: its bucket is the user's to make
        filesystem(folder)


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
    temporary = f"{path}{_TEMPORARY}{os.getpid()}{suffix}"
    try:
        yield temporary
        rename(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            remove(temporary)
        raise


def write_json(path: str, content: Any, *, sort_keys: bool = True, allow_nan: bool = True) -> None:
    """Writes JSON under a temporary name and renames it; with sorted keys bytes repeat.

    Raises:
      ValueError: `content` holds NaN or an infinity without `allow_nan`.
    """
    with replacing(path) as temporary, open_file(temporary, "w") as file:
        json.dump(
            content, file, indent=1, sort_keys=sort_keys, ensure_ascii=False, allow_nan=allow_nan
        )
        file.write("\n")


def read_json(path: str) -> Any:
    """The content of a JSON file.

    Raises:
      OSError, ValueError: it cannot be opened, or is not JSON.
    """
    return json.loads(read_bytes(path))


def read_named_json(path: str, remedy: str = "") -> Any:
    """The content of a JSON file that a user has named.

    Args:
      remedy: what to do where it cannot be read.

    Raises:
      UserError: it cannot be opened, or is not JSON.
    """
    remedy = f"; {remedy}" if remedy else ""
    try:
        return read_json(path)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}{remedy}") from error
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}){remedy}") from error


@contextlib.contextmanager
def replacing_folder(folder: str) -> Iterator[str]:
    """Yields a new, empty folder beside a local one that is missing or empty, and becomes it on
    success; on failure it is removed."""
    temporary = f"{folder.rstrip('/')}{_TEMPORARY}{os.getpid()}"
    os.makedirs(temporary)
    try:
        yield temporary
        if os.path.isdir(folder):
            os.rmdir(folder)
        os.rename(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
