"""Tables that a user gives, as CSV or XLSX: rows that say something of image files."""

from __future__ import annotations

import csv
import io
from collections.abc import Container, Iterator, Sequence

from cxr_tfrecords import files
from cxr_tfrecords.errors import UserError

# Columns that hold a file's name, in the order of preference; compared in lower case.
FILE_COLUMNS = ("path", "filename", "file name", "file_name", "file", "image", "image_id")


def read_columns(
    path: str, columns: Sequence[str], *, flag: str, column_flag: str, key: str = ""
) -> Iterator[tuple[int, str, list[str]]]:
    """(line number, file name, values of the columns) of each row; names and values are stripped.

    Args:
      columns: names in any case.
      flag, column_flag: names of the flags that gave the path and the columns, for messages.
      key: the column that holds file names; empty: the first of `FILE_COLUMNS` that has a value.

    Raises:
      UserError: the file cannot be read, it lacks a column, or a row names no file.
    """
    names = (key.lower(),) if key else FILE_COLUMNS
    for line, row in read_table(path, flag):
        for column in columns:
            if column.lower() not in row:
                raise UserError(
                    f"--{flag}={path} has no column {column!r} (--{column_flag}); it has "
                    f"{', '.join(row)}"
                )
        name = next((row[c] for c in names if row.get(c)), None)
        if name is None:
            raise UserError(
                f"--{flag}={path}, line {line}: no file name. The table needs a column with file "
                f"names, called {'one of ' * (len(names) > 1)}{', '.join(names)}; it has "
                f"{', '.join(row)}"
            )
        yield line, name, [row[column.lower()] for column in columns]


def match(names: Container[str], filename: str) -> str | None:
    """The name by which a table means a file: its path, its file name or that without extension,
    whichever comes first; None where the table has none of them."""
    base = filename.rpartition("/")[2]
    candidates = (filename, base, base.rpartition(".")[0])
    return next((name for name in candidates if name in names), None)


def read_table(path: str, flag: str) -> Iterator[tuple[int, dict[str, str]]]:
    """(line number, row) of a CSV or XLSX file with a header; column names in lower case.

    Raises:
      UserError: the file cannot be read, or a line has more or fewer values than the header.
    """
    with files.explained(path, flag):
        content = files.read_bytes(path)
    rows: Iterator[list[str]]
    if path.lower().endswith(".xlsx"):
        rows = _read_xlsx(content, path, flag)
    else:
        try:
            rows = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""))
        except UnicodeDecodeError as error:
            raise UserError(f"--{flag}={path} is not UTF-8 text ({error})") from error
    header = [name.strip().lower() for name in next(rows, [])]
    for line, values in enumerate(rows, start=2):
        if any(values):
            if len(values) != len(header):
                raise UserError(
                    f"--{flag}={path}, line {line}: {len(values)} values under {len(header)} "
                    "column names"
                )
            yield line, {k: v.strip() for k, v in zip(header, values, strict=True)}


def _read_xlsx(content: bytes, path: str, flag: str) -> Iterator[list[str]]:
    try:
        import openpyxl
    except ImportError as error:
        raise UserError(
            f"--{flag}={path}: .xlsx needs a package: pip install 'cxr-balance[xlsx]'"
        ) from error
    try:
        sheet = openpyxl.load_workbook(io.BytesIO(content), read_only=True).worksheets[0]
    except Exception as error:  # openpyxl also raises errors of zip files and of XML
        raise UserError(
            f"--{flag}={path} cannot be read as an .xlsx file ({error}): save it again, or as CSV"
        ) from error
    for row in sheet.iter_rows(values_only=True):
        yield ["" if value is None else str(value) for value in row]
