"""Rows of the CSV files that this software writes, so that any file name is read back as it is.

Before Python 3.13 `csv` does not quote a carriage return if lines end with a line feed alone, and
then cannot read the row; macOS has files called `Icon\\r`. File names of other bytes than UTF-8
stay what they are (`surrogateescape`). A name that begins with `=`, `+`, `-` or `@` is not changed
either, because it must lead to its file: a spreadsheet may take it for a formula.

All CSV files are read by `reader` or `dict_reader`, tables of users too: `csv` itself refuses a
field of over 131,072 characters, and the text of a report in such a table may be longer.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from typing import IO, Any

from cxr_tfrecords import files

_LONGEST_FIELD = 1 << 24  # characters; a quote that is never closed makes one field of a whole file


def open_csv(path: str, mode: str = "r") -> IO[str]:
    """Opens a CSV file, local or remote, in which file names may be of any bytes."""
    text: dict[str, Any] = {"newline": "", "encoding": "utf-8", "errors": "surrogateescape"}
    if files.is_local(path):
        return open(path, mode, **text)
    fs, inner = files.filesystem(path)
    return fs.open(inner, mode, **text)


def reader(lines: Iterable[str], **options: Any) -> Any:
    """A `csv.reader` of long fields. lines: a file opened with newline="", or the like."""
    csv.field_size_limit(_LONGEST_FIELD)
    return csv.reader(lines, **options)


def dict_reader(lines: Iterable[str]) -> csv.DictReader[str]:
    """A `csv.DictReader` of long fields."""
    csv.field_size_limit(_LONGEST_FIELD)
    return csv.DictReader(lines)


def writer(file: IO[str]) -> Any:
    """A `csv.writer` whose lines end with a line feed, to a file opened with newline=""."""
    return csv.writer(_LineFeeds(file), lineterminator="\r\n")


class _LineFeeds:
    """`csv` quotes both characters of its line end and writes each row in one call."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def write(self, row: str) -> int:
        return self._file.write(row.removesuffix("\r\n") + "\n")
