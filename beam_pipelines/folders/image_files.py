"""The files of a class folder that can be images: those right in it, or at any depth."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import itertools
import os
from collections.abc import Iterator, Sequence

from beam_pipelines.folders.listing import (
    NOT_A_FILE,
    NOT_UNPACKED,
    Entry,
    is_archive,
    list_entries,
    unpack_hint,
)
from cxr_tfrecords import files
from cxr_tfrecords.errors import UserError

IMAGES, MASKS = "images", "masks"

# Extensions of files that lie beside images in published data sets. Others may be images, with
# or without an extension (DICOM files often have none).
_NO_IMAGES = frozenset(
    (
        *(".csv", ".tsv", ".txt", ".json", ".jsonl", ".xml", ".yaml", ".yml", ".ini", ".log"),
        *(".md", ".rst", ".html", ".htm", ".pdf", ".doc", ".docx", ".rtf", ".xls", ".xlsx"),
        *(".py", ".ipynb", ".m", ".r", ".sh", ".npy", ".npz", ".mat", ".pkl", ".h5", ".db"),
    )
)


# Those of images that cannot name a patient, and of all images, where files are not opened.
WITHOUT_IDS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif")
_IMAGES = frozenset((*WITHOUT_IDS, ".dcm"))
_SHOWN = 4  # names of folders in a message


@dataclasses.dataclass
class PassedOver:
    """What lies in class folders and is not read.

    Attributes:
      paths: hidden files, files of the system, archives, and what lies beside a folder `images`.
      folders: other folders; with --recursive those beside `images`, too.
      suffixes: extension -> number of files that are no images by it; counted with --recursive.
    """

    paths: list[str] = dataclasses.field(default_factory=list)
    folders: list[str] = dataclasses.field(default_factory=list)
    suffixes: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)

    def notes(self, recursive: bool) -> list[str]:
        """Lines for the user, with counts."""
        unread = self.folders
        if not recursive:
            unread = [path for path in unread if not _holds_masks(path)]
        texts = [f"{len(unread):,} folders (such as {unread[0]})"] if unread else []
        if not recursive:
            return [f"not read in class folders: {text}; --recursive reads them" for text in texts]
        if self.suffixes:
            kinds = [f"{suffix} {count:,}" for suffix, count in sorted(self.suffixes.items())]
            total = self.suffixes.total()
            texts.append(f"{total:,} files that are no images ({', '.join(kinds)})")
        return [f"passed over in class folders: {', '.join(texts)}"] if texts else []


def image_files(
    root: str, folder: str, recursive: bool, with_masks: bool, passed: PassedOver
) -> Iterator[tuple[str, str, Entry]]:
    """Path, path of the mask (or '') and entry of each file that can be an image, by name.

    Where the folder holds a folder `images`, these are the files in that one. The mask of
    `images/a/1.png` is `masks/a/1.png`, in the class folder.

    Args:
      folder: a class folder; this and the paths are relative to `root`, with `/`.
      recursive: read the folders in it as well, at any depth, except those of masks and links to
        a folder above; files that are no images by their extension are then passed over.
      passed: what is not read is added to it.

    Raises:
      UserError: there is no such file.
    """
    start = _image_folder(root, folder, recursive, with_masks, passed)
    count = likely = 0
    for path, entry in _walk(root, start, recursive, passed, ()):
        mask = f"{folder}/{MASKS}/{path.removeprefix(f'{start}/')}" if with_masks else ""
        yield path, mask, entry
        count += 1
        likely += _suffix(entry.name) not in _NO_IMAGES
    if not likely and not recursive:
        deeper = next(_walk(root, start, True, PassedOver(), ()), None)
        if deeper is not None:
            other = ""
            if "/" not in folder:  # below a folder of a split, another one would lose the split
                below = (classes_below(root, one) for one in (start, *_folders(root)))
                other = next(filter(None, below), "")
            raise UserError(
                f"class folder {files.join(root, start)} holds no image, but the folders in it do, "
                f"such as {deeper[0]}: {other}{'. Otherwise ' if other else ''}--recursive reads "
                "images at any depth below a class folder, as images of this class"
            )
    if not count:
        raise UserError(
            f"class folder {files.join(root, start)} holds no file that can be an image: "
            "remove it, or add its images" + unpack_hint(passed.paths)
        )


def classes_below(root: str, folder: str) -> str:
    """`if A, B are the classes, give --input_dir=…`, where a folder, or the only one in it, holds
    several folders of images; '' where there is none.

    Args:
      folder: relative to `root`, with `/`.
    """
    inner = (
        entry.name
        for entry in list_entries(files.join(root, folder))
        if entry.is_folder
        and not files.is_junk(entry.name)
        and not _holds_masks(entry.name)
        and next(_walk(root, f"{folder}/{entry.name}", True, PassedOver(), ()), None)
    )
    names = list(itertools.islice(inner, _SHOWN + 1))
    if len(names) == 1:
        return classes_below(root, f"{folder}/{names[0]}")
    return _if_classes(names, files.join(root, folder))


def classes_above(root: str) -> str:
    """The same for the folder above `root`, where `root` looks as a class folder among others; of
    local folders only, and without looking at any depth: it may be a home folder."""
    if not files.is_local(root):
        return ""
    path = os.path.abspath(root)
    above = os.path.dirname(os.path.normpath(root))
    if not above or os.path.basename(above) == os.pardir:
        above = os.path.dirname(path)
    with contextlib.suppress(UserError, OSError):  # a folder that may not be listed
        names = [
            entry.name
            for entry in list_entries(above)
            if entry.is_folder and _looks_like_a_class(files.join(above, entry.name))
        ]
        return _if_classes(names, above) if os.path.basename(path) in names else ""
    return ""


def _folders(root: str) -> Iterator[str]:
    return (entry.name for entry in list_entries(root) if entry.is_folder)


def _looks_like_a_class(folder: str) -> bool:
    return any(
        entry.name == IMAGES if entry.is_folder else _suffix(entry.name) in _IMAGES
        for entry in list_entries(folder)
    )


def _if_classes(names: Sequence[str], folder: str) -> str:
    if len(names) < 2:
        return ""
    shown = ", ".join([*names[:_SHOWN], *["…"] * (len(names) > _SHOWN)])
    return f"if {shown} are the classes, give --input_dir={folder}"


def _image_folder(
    root: str, folder: str, recursive: bool, with_masks: bool, passed: PassedOver
) -> str:
    """The folder that holds a class folder's images; what lies beside it is passed over."""
    entries = list(list_entries(files.join(root, folder)))
    if not any(entry.name == IMAGES and entry.is_folder for entry in entries):
        return folder
    for entry in entries:
        if entry.name != IMAGES and not (with_masks and entry.name == MASKS):
            counted = recursive and entry.is_folder and not files.is_junk(entry.name)
            (passed.folders if counted else passed.paths).append(f"{folder}/{entry.name}")
    return f"{folder}/{IMAGES}"


def _walk(
    root: str, folder: str, recursive: bool, passed: PassedOver, above: tuple[str, ...]
) -> Iterator[tuple[str, Entry]]:
    """Paths and entries of files that can be images; `above`: folders that this one lies in."""
    location = files.join(root, folder)
    above = (*above, os.path.realpath(location) if files.is_local(location) else location)
    for entry in list_entries(location):
        path = f"{folder}/{entry.name}"
        if files.is_junk(entry.name):
            passed.paths.append(path)
        elif entry.is_special:
            passed.paths.append(path + NOT_A_FILE)
        elif not entry.is_folder and is_archive(entry.name):
            passed.paths.append(path + NOT_UNPACKED)
        elif not entry.is_folder:
            suffix = _suffix(entry.name)
            if recursive and suffix in _NO_IMAGES:
                passed.suffixes[suffix] += 1
            else:
                yield path, entry
        elif recursive and not _holds_masks(path) and not _is_above(root, path, above):
            yield from _walk(root, path, recursive, passed, above)
        else:
            passed.folders.append(path)


def _is_above(root: str, path: str, above: tuple[str, ...]) -> bool:
    """Whether a folder is a symbolic link to one that it lies in: it would be read for ever."""
    return files.is_local(root) and os.path.realpath(files.join(root, path)) in above


def _holds_masks(path: str) -> bool:
    return files.base_name(path).lower() in (MASKS, "mask")


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()
