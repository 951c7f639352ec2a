"""Tables that a user gives: a list of images as input, and columns that group images."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Iterator, Sequence

from beam_pipelines.inputs.sources import FileList, SourceFile, Sources, check_known
from cxr_tfrecords import files, splits, tables
from cxr_tfrecords.errors import UserError


def group_digest(value: str, salt: str) -> str:
    """32 hex digits of a patient id or the like: keyed BLAKE2b (RFC 7693), the salt is its key.

    Whoever knows the salt can find an id by trying all possible ids, so keep the salt secret.
    """
    key = hashlib.sha256(salt.encode()).digest()
    return hashlib.blake2b(value.strip().encode(), digest_size=16, key=key).hexdigest()


def read_input_csv(
    path: str,
    root: str,
    salt: str,
    *,
    known_classes: Sequence[str] = (),
    split_names: Sequence[str] = splits.SPLITS,
) -> Sources:
    """Reads a list of images: columns `path`, `label` and, where wanted, `split`, `group`, `mask`.

    Args:
      path: the CSV file; its paths are relative to `root`, or to its own folder if that is ''.
      salt: of `group`, see `group_digest`.
      known_classes: as in `sources.find_sources`.
      split_names: what the column `split` can hold.

    Raises:
      UserError: a column or value is missing or unknown, or a path comes twice; names the line.
    """
    root = root or path.rpartition("/")[0] or "."
    table = tables.read_table(path, "input_csv")
    rows = [(line, dict(zip(table.columns, values, strict=True))) for line, values in table.rows]
    if not {"path", "label"} <= set(table.columns):
        raise UserError(f"{table.where} needs the columns path and label; {table.describe()}")
    names = sorted({row["label"] for _, row in rows if row["label"]})
    if len(names) < 2 and not known_classes:
        raise UserError(f"--input_csv={path} names {len(names)} class: at least 2 are needed")
    check_known(names, known_classes, f"--input_csv={path}")
    names = list(known_classes) or names
    labels = {name: label for label, name in enumerate(names)}
    listed: list[SourceFile] = []
    seen: dict[str, int] = {}
    for line, row in rows:
        where = f"--input_csv={path}, line {line}"
        if not row["path"] or not row["label"]:
            raise UserError(f"{where}: path or label is empty")
        if row["path"] in seen:
            raise UserError(f"{where}: {row['path']} is in line {seen[row['path']]} already")
        seen[row["path"]] = line
        group = row.get("group", "")
        listed.append(
            SourceFile(
                filename=row["path"],
                label=labels[row["label"]],
                num_bytes=_size(files.join(root, row["path"])),
                split=_split_index(row.get("split", ""), split_names, where),
                tie=group_digest(group, salt) if group else "",
                mask=row.get("mask", ""),
            )
        )
    listed.sort(key=lambda file: (file.label, file.filename))
    return Sources(root, tuple(names), FileList(listed))


def group_by_csv(sources: Sources, path: str, column: str, salt: str) -> Sources:
    """Puts files that share a value of a column, as `patient_id`, into one group.

    A row names its file by path, by file name or by file name without extension, whichever
    matches; the data sheets of the COVID-19 Radiography Database (.xlsx) can be given as they are.

    Args:
      column: '': the first of `tables.GROUP_COLUMNS` that the table has.

    Raises:
      UserError: a column is missing, no row matches a file, or a file's row is not clear (see
        `tables.FileValues`).
    """
    table = tables.read_table(path, "group_csv")
    name_index = table.column("", "", tables.FILE_COLUMNS)
    if name_index is None:
        raise UserError(
            f"{table.where} needs a column with file names, called path, filename, image or the "
            f"like; {table.describe()}"
        )
    known = [key for key in tables.GROUP_COLUMNS if key != _key(table, name_index)]
    group_index = table.column(column, "group_column", known)
    if group_index is None:
        raise UserError(
            f"{table.where}: name the column that groups images with --group_column; "
            f"{table.describe()}"
        )
    column = table.columns[group_index]
    root = os.path.abspath(sources.root) if files.is_local(sources.root) else sources.root

    def rows() -> Iterator[tuple[int, str, str]]:
        for line, values in table.rows:
            name = tables.file_name(values[name_index]).removeprefix(f"{root.rstrip('/')}/")
            unknown = tables.is_unknown_id(values[group_index])
            if name:
                yield line, name, "" if unknown else values[group_index]

    groups = tables.FileValues(table.where, rows(), (file.filename for file in sources.listed))
    counts = {"named": 0, "unknown": 0}

    def grouped() -> Iterator[SourceFile]:
        for file in sources.listed:
            group = groups.get(file.filename)
            if group is not None:
                counts["named" if group else "unknown"] += 1
            yield dataclasses.replace(file, tie=group_digest(group, salt) if group else file.tie)

    listed = FileList(grouped())
    if not sum(counts.values()):
        raise UserError(f"{table.where} names none of the {len(sources)} files: check paths")
    notes = [f"{path}: {column} found for {counts['named']:,} of {len(sources):,} files"]
    if counts["unknown"]:
        notes.append(_unknown_note(path, column, counts["unknown"]))
    return dataclasses.replace(sources, listed=listed, notes=(*sources.notes, *notes))


def _key(table: tables.Table, index: int) -> str:
    return tables.column_key(table.columns[index])


def _unknown_note(path: str, column: str, count: int) -> str:
    return (
        f"{path}: {count:,} files have an empty {column}, or one that names nobody (such as "
        "unknown or 0000): they are not united by it"
    )


def _split_index(name: str, split_names: Sequence[str], where: str) -> int:
    names = {"": -1, **{split: number for number, split in enumerate(split_names)}}
    if splits.VALIDATION in names:
        names |= dict.fromkeys(("val", "valid"), names[splits.VALIDATION])
    if name.lower() not in names:
        raise UserError(f"{where}: split {name!r} is not one of {', '.join(split_names)}")
    return names[name.lower()]


def _size(path: str) -> int:
    try:
        return files.size(path)
    except OSError:
        return 0  # inspected like the others, and rejected with its reason
