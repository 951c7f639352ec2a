"""Finds the radiographs below a folder; both common layouts, without a flag."""

from __future__ import annotations

import dataclasses
import hashlib
import os

from cxr_tfrecords.errors import UserError

IMAGES, MASKS = "images", "masks"


@dataclasses.dataclass(frozen=True)
class SourceFile:
    """One candidate file: path relative to the input folder with `/`, class index, bytes, ns."""

    filename: str
    label: int
    num_bytes: int
    mtime_ns: int


@dataclasses.dataclass(frozen=True)
class Sources:
    """What was found.

    Attributes:
      root: the input folder.
      class_names: names of the class folders, sorted; a label is an index into them.
      files: sorted by file name, so the list does not depend on the file system's order.
      ignored: folders and hidden files that were passed over (relative paths).
    """

    root: str
    class_names: tuple[str, ...]
    files: tuple[SourceFile, ...]
    ignored: tuple[str, ...]

    @property
    def listing_digest(self) -> str:
        """Hex digest of names and sizes: tells added, removed and resized files."""
        digest = hashlib.sha256()
        for file in self.files:
            digest.update(f"{file.filename}\0{file.num_bytes}\0".encode())
        return digest.hexdigest()


def find_sources(root: str) -> Sources:
    """Lists `<root>/<Class>/images/*` (or `<root>/<Class>/*` where there is no `images`).

    `masks` beside `images` is ignored. Every other plain file in an image folder is a
    candidate, whatever its extension: one that is no image is reported as rejected, not lost.

    Raises:
      UserError: no such folder, fewer than two classes, a class without any file.
    """
    if not os.path.isdir(root):
        raise UserError(f"--input_dir={root} is not a folder")
    ignored: list[str] = []
    classes: list[str] = []
    for entry in _entries(root):
        if entry.is_dir() and not entry.name.startswith((".", "_")):
            classes.append(entry.name)
        elif entry.is_dir():
            ignored.append(entry.name)
    if len(classes) < 2:
        raise UserError(
            f"--input_dir={root} holds {', '.join(classes) or 'no class folder'}: at least 2 class "
            "folders are needed, each with its images in it or in its folder `images`"
        )
    files: list[SourceFile] = []
    for label, name in enumerate(classes):
        folder, passed_over = _image_folder(root, name)
        ignored += passed_over
        found = []
        for entry in _entries(os.path.join(root, folder)):
            path = f"{folder}/{entry.name}"
            if entry.name.startswith(".") or entry.is_dir():
                ignored.append(path)
            else:
                found.append(_source_file(entry, path, label))
        if not found:
            raise UserError(f"class folder {os.path.join(root, folder)} holds no file")
        files += found
    files.sort(key=lambda file: file.filename)
    return Sources(root, tuple(classes), tuple(files), tuple(sorted(ignored)))


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(f"cannot list {folder}: {error.strerror} (--input_dir)") from error


def _image_folder(root: str, class_name: str) -> tuple[str, list[str]]:
    """The folder that holds a class's images, and what beside it is passed over."""
    nested = f"{class_name}/{IMAGES}"
    if not os.path.isdir(os.path.join(root, nested)):
        return class_name, []
    beside = [e.name for e in _entries(os.path.join(root, class_name)) if e.name != IMAGES]
    return nested, [f"{class_name}/{name}" for name in beside]


def _source_file(entry: os.DirEntry[str], path: str, label: int) -> SourceFile:
    try:
        status = entry.stat()
    except OSError:  # a dangling link: inspected like the others, and rejected with its reason
        return SourceFile(path, label, 0, 0)
    return SourceFile(path, label, status.st_size, status.st_mtime_ns)
