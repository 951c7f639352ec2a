"""Which files --input names, on the local disk or in an object store, and what their ids are."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator

from cxr_tfrecords import csv_rows, files
from cxr_tfrecords.errors import UserError

_PATH_COLUMNS = ("path", "filename", "file")


def find_files(source: str, output: str = "") -> tuple[str, list[str]]:
    """The folder that ids are relative to, and the ids: paths with `/`, sorted in a folder, in the
    order of a list.

    Args:
      source: an image; a folder, searched with all its subfolders but for lung masks (`masks`
        beside `images`); or a list, a .csv file with a column `path` whose paths are relative to
        the list's folder.
      output: what the command writes, which may be below a folder `source`: it and the files beside
        it whose names begin with its own and a point are no images to predict.

    Raises:
      UserError: nothing is there, or the list has no such column.
    """
    with files.explained(source, "input"):
        is_folder, is_file = _kind(source)
        if is_folder:
            walked = sorted(_walk(source) if files.is_local(source) else _walk_remote(source))
            names = _without_output(source, _without_masks(walked), output)
            if not names:
                raise UserError(
                    f"--input={source}: the folder holds no file: name a folder of images"
                )
            return source, names
        if not is_file:
            raise UserError(
                f"--input={source} does not exist: name an image, a folder or a .csv list"
            )
        folder, name = os.path.split(source)
        names = _read_list(source) if name.lower().endswith(".csv") else [name]
        if not names:
            raise UserError(f"--input={source}: the list names no file: add a row for each image")
        return folder or ".", names


def _kind(path: str) -> tuple[bool, bool]:
    """Whether a path is a folder, and whether it is a file."""
    if files.is_local(path):
        return os.path.isdir(path), os.path.isfile(path)
    fs, inner = files.filesystem(path)
    return fs.isdir(inner), fs.isfile(inner)


def _walk(folder: str) -> Iterator[str]:
    for parent, subfolders, names in os.walk(folder):
        subfolders[:] = [name for name in subfolders if not files.is_junk(name)]
        for name in names:
            if not files.is_junk(name):
                yield os.path.relpath(os.path.join(parent, name), folder).replace(os.sep, "/")


def _walk_remote(folder: str) -> Iterator[str]:
    fs, inner = files.filesystem(folder)
    for path in fs.find(inner):
        name = path.removeprefix(inner.rstrip("/") + "/")
        if not any(map(files.is_junk, name.split("/"))):
            yield name


def _without_masks(names: list[str]) -> list[str]:
    """Leaves out what lies in a folder `masks` beside a folder `images`: lung masks, as the build
    knows them, and no radiographs."""
    masks: set[str] = set()
    for name in names:
        folders = name.split("/")[:-1]
        masks.update(
            "/".join([*folders[:depth], "masks", ""])
            for depth, folder in enumerate(folders)
            if folder == "images"
        )
    starts = tuple(masks)
    return [name for name in names if not name.startswith(starts)]


def _without_output(folder: str, names: list[str], output: str) -> list[str]:
    """Leaves out what an earlier, stopped start of the same command has written."""
    if not output:
        return names
    start = os.path.relpath(output, folder) if files.is_local(folder + output) else output
    start = start.removeprefix(f"{folder.rstrip('/')}/")
    return [name for name in names if name != start and not name.startswith(f"{start}.")]


def _read_list(path: str) -> list[str]:
    try:
        # A byte-order mark, as some spreadsheets write it, is no part of the first name.
        text = files.read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"--input={path} is not a text file in UTF-8: save it so") from error
    reader = csv_rows.dict_reader(io.StringIO(text, newline=""))
    try:
        column = next((c for c in _PATH_COLUMNS if c in (reader.fieldnames or ())), None)
        if column is None:
            raise UserError(
                f"--input={path} has the columns {', '.join(reader.fieldnames or ()) or 'none'}"
                ": it needs a column path"
            )
        names = dict.fromkeys(row[column] for row in reader if row[column])
    except csv.Error as error:
        raise UserError(f"--input={path}, line {reader.line_num}: {error}: correct it") from error
    wrong = next((name for name in names if "\0" in name), None)
    if wrong is not None:
        raise UserError(f"--input={path}: the path {wrong!r} holds a NUL character: correct it")
    return list(names)
