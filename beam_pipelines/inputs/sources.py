"""Finds the radiographs below a folder, in the common layouts of folders, without a flag.

Twenty million paths would take gigabytes in memory, so a list of files lies on disk and is read
from front to end.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import hashlib
import itertools
import json
import os
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from beam_pipelines.folders.class_folders import find_class_folders
from beam_pipelines.folders.image_files import (
    IMAGES,
    MASKS,
    WITHOUT_IDS,
    PassedOver,
    classes_above,
    classes_below,
    image_files,
)
from beam_pipelines.folders.listing import NOT_A_FILE, NOT_UNPACKED, unpack_hint
from cxr_tfrecords import files, splits
from cxr_tfrecords.concurrency import temporary
from cxr_tfrecords.errors import UserError
from cxr_tfrecords.pages.class_lists import few

BLOCK = 1 << 16  # files that `FileList` writes at once: millions would take much memory

# One row a candidate file. `split` is an index into splits.SPLITS or -1; `tie` is the
# salted digest of the group (such as a patient) that a table names, or empty; `mask` is a path or
# empty. The names enter `FileList.digest`, so they stay.
SCHEMA = pa.schema(
    [
        ("filename", pa.string()),
        ("label", pa.int32()),
        ("num_bytes", pa.int64()),
        ("mtime_ns", pa.int64()),
        ("split", pa.int8()),
        ("tie", pa.string()),
        ("mask", pa.string()),
    ]
)


@dataclasses.dataclass(frozen=True)
class SourceFile:
    """One candidate file, a row of `SCHEMA`; paths are relative to the input folder, with `/`."""

    filename: str
    label: int
    num_bytes: int = 0
    mtime_ns: int = 0
    split: int = -1
    tie: str = ""
    mask: str = ""


class FileList:
    """`SourceFile`s in a temporary file, with what a build asks of all of them.

    Attributes:
      label_counts: label -> number of files.
      num_bytes: of all files, as far as it is known.
      newest_ns: time of the last change of any file, ns since 1970; 0 where it is not known.
      may_hold_ids: a table names patients or other groups, or a file may be DICOM by its name.
      digest: hex digest of names, sizes and all that a user's table says of them.
    """

    def __init__(self, rows: Iterable[SourceFile]) -> None:
        """Writes the rows, whose order is kept: it must not depend on the file system's."""
        self.label_counts: collections.Counter[int] = collections.Counter()
        self.num_bytes = self.newest_ns = 0
        self.may_hold_ids = False
        stack = contextlib.ExitStack()
        weakref.finalize(self, stack.close)
        self._path = os.path.join(stack.enter_context(temporary.folder("sources")), "files.arrow")
        digest = hashlib.sha256()
        options = pa.ipc.IpcWriteOptions(compression="zstd")
        with pa.ipc.new_stream(self._path, SCHEMA, options=options) as stream:
            for block in in_blocks(rows, BLOCK):
                columns = {name: [getattr(row, name) for row in block] for name in SCHEMA.names}
                stream.write_batch(pa.RecordBatch.from_pydict(columns, SCHEMA))
                self.label_counts.update(columns["label"])
                self.num_bytes += sum(columns["num_bytes"])
                self.may_hold_ids |= any(columns["tie"]) or not all(
                    name.lower().endswith(WITHOUT_IDS) for name in columns["filename"]
                )
                self.newest_ns = max(self.newest_ns, *columns.pop("mtime_ns"))
                digest.update(json.dumps(columns).encode())
        self.digest = digest.hexdigest()

    def __len__(self) -> int:
        return self.label_counts.total()

    def __iter__(self) -> Iterator[SourceFile]:
        with pa.ipc.open_stream(self._path) as stream:
            for batch in stream:
                yield from (SourceFile(**row) for row in batch.to_pylist())


def in_blocks(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Lists of `size` items, the last one shorter."""
    iterator = iter(items)
    while block := list(itertools.islice(iterator, size)):
        yield block


@dataclasses.dataclass(frozen=True)
class Sources:
    """The input of a build.

    Attributes:
      root: the input folder.
      class_names: names of the class folders, sorted; a label is an index into them.
      listed: the files, by class and then name.
      ignored: folders, hidden files and files of the system that were passed over (relative
        paths).
      notes: lines for the user.
      left_out: reason -> number of rows of a list that were left out on the user's wish.
    """

    root: str
    class_names: tuple[str, ...]
    listed: FileList
    ignored: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    left_out: Mapping[str, int] = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.listed)


def find_sources(
    root: str,
    *,
    with_masks: bool = False,
    recursive: bool = False,
    known_classes: Sequence[str] = (),
    splits_choice: str = "",
    split_names: Sequence[str] = splits.SPLITS,
) -> Sources:
    """Lists `<root>/<Class>/images/*` (or `<root>/<Class>/*` where there is no `images`), or the
    same below folders of splits (`<root>/train/<Class>/*`), see `class_folders`.

    Every file in an image folder is a candidate, whatever its extension: one that is not an image
    is reported as rejected, not lost. Only hidden files and those that systems make by themselves
    are passed over, see `files.is_junk`, and with `recursive` what `image_files` says.

    Args:
      root: local folder, gs:// or s3:// address.
      with_masks: expect for each image a file of the same name in `masks` of its class folder;
        otherwise `masks` beside `images` is skipped.
      recursive: read images at any depth below a class folder.
      known_classes: those of the data set that is appended to: labels are indices into them.
      splits_choice: `given`, `own` or '', see `--splits`.
      split_names: those that the build makes.

    Raises:
      UserError: no such folder, fewer than two classes (or a class that is not one of the known
        ones), a class folder without any file, or what `class_folders.find_class_folders` raises.
    """
    layout = find_class_folders(root, splits_choice, split_names)
    classes = sorted({folder.class_name for folder in layout.folders})
    if len(classes) < (1 if known_classes else 2) or set(classes) <= {IMAGES, MASKS}:
        other = classes_below(root, classes[0]) if len(classes) == 1 else ""
        other = classes_above(root) or other
        raise UserError(
            f"--input_dir={root} holds {few(classes) or 'no class folder'}: at least 2 class "
            "folders are needed, each with its images in it or in its folder `images`"
            + (f"; {other}" if other else unpack_hint(layout.ignored))
        )
    check_known(classes, known_classes, f"--input_dir={root}")
    names = tuple(known_classes or classes)
    passed = PassedOver()

    def rows() -> Iterator[SourceFile]:
        for one in layout.folders:
            label = names.index(one.class_name)
            for path, mask, entry in image_files(root, one.path, recursive, with_masks, passed):
                yield SourceFile(path, label, entry.num_bytes, entry.mtime_ns, one.split, mask=mask)

    listed = FileList(rows())
    ignored = sorted([*layout.ignored, *passed.paths, *passed.folders])
    notes = [*layout.notes, *passed.notes(recursive)]
    special = [path for path in ignored if path.endswith(NOT_A_FILE)]
    if special:
        notes.append(
            f"warning: {len(special):,} pipes, devices, sockets or endless links are not read, "
            f"such as {special[0].removesuffix(NOT_A_FILE)}"
        )
    archives = [path for path in ignored if path.endswith(NOT_UNPACKED)]
    if archives:
        notes.append(
            f"warning: {len(archives):,} archives are not read, such as "
            f"{archives[0].removesuffix(NOT_UNPACKED)}: unpack them if they hold images"
        )
    return Sources(root, names, listed, tuple(ignored), tuple(notes))


def check_outside(root: str, output_dir: str) -> None:
    """Refuses an output directory in the input folder, where later builds would read it as images.

    Raises:
      UserError: `output_dir` is `root` or lies below it, symbolic links followed.
    """
    inner, outer = (
        os.path.realpath(path) if files.is_local(path) else path.rstrip("/")
        for path in (output_dir, root)
    )
    if f"{inner}/".startswith(f"{outer}/"):
        raise UserError(
            f"--output_dir={output_dir} lies in --input_dir={root}: name a folder outside, as "
            f"{root.rstrip('/')}-tfrecords"
        )


def check_known(classes: Sequence[str], known: Sequence[str], where: str) -> None:
    """Raises UserError where a class is not one of the data set that is appended to."""
    for name in classes:
        if known and name not in known:
            raise UserError(
                f"{where}: class {name!r} is not one of the data set's ({', '.join(known)}): "
                "labels would change; build a new --output_dir from all data"
            )
