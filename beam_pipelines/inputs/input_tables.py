"""Tables that a user gives: a list of images as input, and columns that group images."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Sequence

from beam_pipelines.folders.split_words import split_number
from beam_pipelines.inputs import listed_paths
from beam_pipelines.inputs.group_salt import group_digest
from beam_pipelines.inputs.sources import FileList, SourceFile, Sources, check_known
from cxr_tfrecords import files, splits, tables
from cxr_tfrecords.errors import UserError


@dataclasses.dataclass(frozen=True)
class _Row:
    """A line of a list of images; `size` is None where the file is not there."""

    line: int
    path: str
    label: str
    split: str
    group: str
    mask: str
    size: int | None = None


def read_input_csv(
    path: str,
    root: str,
    salt: str,
    *,
    known_classes: Sequence[str] = (),
    splits_choice: str = "",
    split_names: Sequence[str] = splits.SPLITS,
    path_column: str = "",
    label_column: str = "",
    group_column: str = "",
    label_separator: str = "",
) -> Sources:
    """Reads a list of images: a path and a label, and where wanted a split, a group and a mask.

    Args:
      path: the table; its paths are read as `listed_paths` says, and are relative to `root`, or to
        the table's folder if that is ''.
      salt: of groups, see `group_digest`.
      known_classes: as in `sources.find_sources`.
      splits_choice: `given`: there must be a column `split`; `own`: it is ignored; or ''.
      split_names: what the column `split` can hold.
      path_column, label_column, group_column: '': the first known column, see `_rows`.
      label_separator: rows whose label names several findings, separated by it, are left out.

    Raises:
      UserError: a column or value is missing or unknown, or two rows contradict each other; names
        the line.
    """
    root = root or path.rpartition("/")[0] or "."
    table = tables.read_table(path, "input_csv")
    rows, notes = _rows(table, path_column, label_column, group_column, splits_choice)
    for row in rows:
        if not row.path or not row.label:
            raise UserError(f"{table.where}, line {row.line}: path or label is empty: fill it in")
    rows, left_out, more = _one_label_each(rows, label_separator)
    notes += more
    names = sorted({row.label for row in rows})
    if len(names) < 2 and not known_classes:
        raise UserError(
            f"{table.where} names {len(names)} class (column of labels: --label_column): at least "
            "2 are needed"
        )
    check_known(names, known_classes, table.where)
    names = list(known_classes) or names
    root, rows, more = _find_files(rows, root, table.where)
    notes += more
    rows, repeated = _each_once(rows, table.where)
    if repeated:
        notes.append(f"{repeated:,} repeated rows were taken once")
    unknown = sum(1 for row in rows if row.group and tables.is_unknown_id(row.group))
    if unknown:
        notes.append(f"the group of {unknown:,} images names nobody (such as unknown or 0000)")
    listed = [
        SourceFile(
            filename=row.path,
            label=names.index(row.label),
            num_bytes=row.size or 0,  # a file that is not there is rejected with its reason
            split=split_number(row.split, split_names, f"{table.where}, line {row.line}: split"),
            tie="" if tables.is_unknown_id(row.group) else group_digest(row.group, salt),
            mask=row.mask,
        )
        for row in rows
    ]
    listed.sort(key=lambda file: (file.label, file.filename))
    shown = tuple(f"{path}: {note}" for note in notes)
    return Sources(root, tuple(names), FileList(listed), notes=shown, left_out=left_out)


def _rows(
    table: tables.Table, path_column: str, label_column: str, group_column: str, splits_choice: str
) -> tuple[list[_Row], list[str]]:
    """The rows, and notes that say which columns were taken."""
    path = table.column(path_column, "path_column", tables.FILE_COLUMNS)
    label = table.column(label_column, "label_column", tables.LABEL_COLUMNS)
    if path is None or label is None:
        raise UserError(
            f"{table.where} needs the columns path and label (--path_column, --label_column); "
            f"{table.describe()}"
        )
    known = [key for key in tables.GROUP_COLUMNS if key != _key(table, path)]
    split_column = table.column("", "", ["split"])
    if splits_choice == "given" and split_column is None:
        raise UserError(f"--splits=given: {table.where} has no column split; {table.describe()}")
    indices = {
        "path": path,
        "label": label,
        "split": None if splits_choice == "own" else split_column,
        "group": table.column(group_column, "group_column", known),
        "mask": table.column("", "", ["mask"]),
    }
    taken = {role: index for role, index in indices.items() if index is not None}
    notes = []
    if split_column is not None and "split" not in taken:
        notes.append("the column split is ignored (--splits=own)")
    if any(table.columns[index] != role for role, index in taken.items()):
        shown = ", ".join(f"{role} from {table.columns[index]!r}" for role, index in taken.items())
        notes.append(f"columns: {shown}")
    for index, column in enumerate(table.columns):
        if "group" not in taken and "patient" in column and index not in taken.values():
            notes.append(
                f"column {column!r} is not used: --group_column={column!r} keeps images of one "
                "value in one split"
            )
    rows = []
    for line, values in table.rows:
        split, group, mask = (
            values[taken[role]] if role in taken else "" for role in ("split", "group", "mask")
        )
        rows.append(_Row(line, values[path], values[label], split, group, mask))
    return rows, notes


def _one_label_each(
    rows: list[_Row], separator: str
) -> tuple[list[_Row], dict[str, int], list[str]]:
    """The rows without those of several labels, reason -> number of these, and notes."""
    if not separator:
        return rows, {}, _warn_of_several_labels([row.label for row in rows])
    kept = []
    for row in rows:
        labels = {label.strip() for label in row.label.split(separator)} - {""}
        if len(labels) == 1:
            kept.append(dataclasses.replace(row, label=labels.pop()))
    count = len(rows) - len(kept)
    note = f"{count:,} of {len(rows):,} rows have several labels and were left out"
    return kept, {"several labels (--label_separator)": count}, [note]


def _warn_of_several_labels(labels: Sequence[str]) -> list[str]:
    names = set(labels)
    for separator in "|;,":
        several = {
            name
            for name in names
            if separator in name
            and (separator == "|" or all(part.strip() in names for part in name.split(separator)))
        }
        if several:
            return [
                f"warning: {sum(label in several for label in labels):,} rows have several labels, "
                f"such as {min(several)!r}, and each combination becomes a class of its own: "
                f"--label_separator='{separator}' leaves these rows out (an image can have one "
                "label only)"
            ]
    return []


def _find_files(rows: list[_Row], root: str, where: str) -> tuple[str, list[_Row], list[str]]:
    """The input folder, the rows with paths below it, and notes; see `listed_paths`."""
    read = [listed_paths.read_path(row.path, f"{where}, line {row.line}") for row in rows]
    masks = [listed_paths.read_path(row.mask, f"{where}, line {row.line}") for row in rows]
    common, paths = listed_paths.common_root(root, read + masks, where)
    search = listed_paths.FileSearch(common)
    placed, searched = [], 0
    for row, path, mask in zip(rows, paths, paths[len(rows) :], strict=False):
        name, size = path, _size(files.join(common, path))
        if size is None:
            name = search.find(path, f"{where}, line {row.line}")
            if name != path:
                size = _size(files.join(common, name))
                searched += 1
        placed.append(dataclasses.replace(row, path=name, mask=mask, size=size))
    notes = []
    if common != root:
        notes.append(f"names are stored relative to {common}, the common folder of all paths")
    if searched:
        notes.append(f"{searched:,} files were found by their names in folders below {common}")
    return common, placed, notes


def _each_once(rows: list[_Row], where: str) -> tuple[list[_Row], int]:
    """The rows without those that say the same again, and how many these are."""
    seen: dict[str, _Row] = {}
    for row in rows:
        first = seen.setdefault(row.path, row)
        for column in ("label", "split", "group", "mask"):
            ours, theirs = getattr(row, column), getattr(first, column)
            if ours != theirs:
                raise UserError(
                    f"{where}, line {row.line}: {row.path} is in line {first.line} already, with "
                    f"the {column} {theirs!r} instead of {ours!r}: remove one of the lines"
                )
    return list(seen.values()), len(rows) - len(seen)


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
    column = column.strip() or table.columns[group_index]
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


def _size(path: str) -> int | None:
    try:
        return files.size(path)
    except OSError:
        return None
