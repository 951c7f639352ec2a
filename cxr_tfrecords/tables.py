"""Tables that users give: CSV, text and XLSX files whose rows name image files.

Delimiter and encoding are recognised, and so are the column names of published data sets.
"""

from __future__ import annotations

import codecs
import csv
import dataclasses
import gzip
import io
import re
import zipfile
import zlib
from collections.abc import Container, Iterable, Iterator, Sequence

from cxr_tfrecords import csv_rows, files
from cxr_tfrecords.errors import UserError, first_line

# Columns that hold a file's name, in the order of preference, as `column_key` spells them. RSNA
# names its files by `patientId`, MIMIC-CXR by `dicom_id`, NIH ChestX-ray14 by `Image Index`.
FILE_COLUMNS = (
    *("path", "filename", "file", "image", "imageid", "imageindex", "dicomid", "patientid"),
)
# Columns that hold a patient or another group whose images must share a split.
GROUP_COLUMNS = ("group", "patientid", "subjectid")

# Columns that hold a class. NIH ChestX-ray14 calls it `Finding Labels`.
LABEL_COLUMNS = ("label", "class", "findinglabels")

_DELIMITERS = ",\t;|"
_MOST_UNPACKED = 1 << 30  # bytes: the longest published list of images has 0.2 GB
_IMAGE_NAME = re.compile(r"\.(png|jpe?g|dcm|dicom|bmp|tiff?|webp|gif)$", re.IGNORECASE)
# Ids that name nobody, as `column_key` spells them.
_UNKNOWN = frozenset(
    (
        *("", "na", "nan", "nat", "none", "null", "nil", "unk", "unknown", "unknownpatient"),
        *("anon", "anonymous", "anonymized", "anonymised", "anonymouspatient"),
        *("anonymizedpatient", "anonymisedpatient", "deidentified", "deidentifiedpatient"),
        *("noid", "nopatientid", "noname", "missing", "notavailable", "notapplicable"),
        *("undefined", "removed", "redacted", "withheld", "patient"),
    )
)


@dataclasses.dataclass(frozen=True)
class Table:
    """A table that is read.

    Attributes:
      where: `--flag=path`, the beginning of messages about it.
      columns: the header's names, in lower case; 1, 2, … of a table without a header.
      rows: line number and one value a column.
    """

    where: str
    columns: tuple[str, ...]
    rows: list[tuple[int, list[str]]]

    def column(self, name: str, flag: str, known: Sequence[str] = ()) -> int | None:
        """Index of a column.

        Args:
          name: what the user called it with `--flag`; '' to take the first of `known` (spelled as
            `column_key` does) that the table has.

        Raises:
          UserError: the table has no column `name`.
        """
        keys = [column_key(column) for column in self.columns]
        if not name:
            return next((keys.index(key) for key in known if key in keys), None)
        if name.strip().lower() in self.columns:
            return self.columns.index(name.strip().lower())
        if column_key(name) not in keys:
            raise UserError(f"{self.where} has no column {name!r} (--{flag}); {self.describe()}")
        return keys.index(column_key(name))

    def describe(self) -> str:
        """The columns, for a message."""
        if self.columns[:1] == ("1",) and self.rows:
            first = zip(self.columns, self.rows[0][1], strict=True)
            shown = ", ".join(f"{number} ({value})" for number, value in first)
            return f"it has no header, its columns (and first values) are {shown}"
        return f"it has {', '.join(filter(None, self.columns)) or 'no columns'}"


def column_key(name: str) -> str:
    """A name in lower case, without blanks and punctuation: `Patient ID` becomes `patientid`."""
    return re.sub(r"[\W_]+", "", name.casefold())


def is_unknown_id(value: str) -> bool:
    """Whether a patient id is empty or a placeholder, such as `nan`, `ANONYMOUS` or `0000`.

    A single `0` is an id: patients are often numbered from 0.
    """
    return column_key(value) in _UNKNOWN or re.fullmatch("00+|[xX]{3,}", value.strip()) is not None


def file_name(text: str) -> str:
    """A path as a table has it, with `/` for the backslashes of Windows and without `./`."""
    return text.strip().replace("\\", "/").removeprefix("./")


def read_table(path: str, flag: str) -> Table:
    """Reads a table: CSV (`,`, `;`, tab, `|`), text separated by blanks, or XLSX; gzip or not.

    A first line that holds the name of an image file is a row: such a table has no header.

    Args:
      flag: of the command line, which names `path`.

    Raises:
      UserError: it cannot be read, is not UTF-8 or UTF-16 text, has a column twice, or has a row
        of another length than its header; names the line.
    """
    where = f"--{flag}={path}"
    with files.explained(path, flag):
        content = files.read_bytes(path)
    if path.lower().endswith(".xlsx"):
        lines: Iterable[tuple[int, list[str]]] = enumerate(_read_xlsx(content, where), start=1)
    else:
        lines = _read_text(_decode(content, where), where)
    rows = [(line, [value.strip() for value in values]) for line, values in lines if any(values)]
    if not rows:
        return Table(where, (), [])
    header = [name.lower() for name in rows[0][1]]
    if any(_IMAGE_NAME.search(value) for value in header):
        header = [str(number) for number in range(1, len(header) + 1)]
    else:
        rows = rows[1:]
        _check_header(header, where)
    for line, values in rows:
        if len(values) != len(header):
            raise UserError(
                f"{where}, line {line}: {len(values)} values under {len(header)} column names: "
                "put values that hold the delimiter into quotes"
            )
    return Table(where, tuple(header), rows)


def read_columns(
    path: str, columns: Sequence[str], *, flag: str, column_flag: str, key: str = ""
) -> Iterator[tuple[int, str, list[str]]]:
    """(line number, file name, values of the columns) of each row.

    Args:
      columns: names, spelled as in `Table.column`.
      flag, column_flag: names of the flags that gave the path and the columns, for messages.
      key: the column that holds file names; empty: the first of `FILE_COLUMNS` that has a value.

    Raises:
      UserError: the file cannot be read, it lacks a column, or a row names no file.
    """
    table = read_table(path, flag)
    indices = [table.column(column, column_flag) for column in columns]
    known = [column_key(key)] if key else FILE_COLUMNS
    keys = [column_key(column) for column in table.columns]
    name_indices = [keys.index(one) for one in known if one in keys]
    for line, values in table.rows:
        name = next((values[index] for index in name_indices if values[index]), "")
        if not name:
            raise UserError(
                f"{table.where}, line {line}: no file name. The table needs a column with file "
                f"names, called {'one of ' * (len(known) > 1)}{', '.join(known)}; "
                f"{table.describe()}"
            )
        yield line, file_name(name), [values[index] for index in indices if index is not None]


def match(names: Container[str], filename: str) -> str | None:
    """The name by which a table means a file: its path, its file name or that without extension,
    whichever comes first; None where the table has none of them."""
    return next((name for name in _names_of(filename) if name in names), None)


def _names_of(filename: str) -> Iterator[str]:
    base = filename.rpartition("/")[2]
    return iter(dict.fromkeys((filename, base, base.rpartition(".")[0])))


def _check_header(header: Sequence[str], where: str) -> None:
    for number, name in enumerate(header):
        if name and name in header[:number]:
            raise UserError(
                f"{where} has the column {name!r} twice (columns {header.index(name) + 1} and "
                f"{number + 1}): rename or remove one of them"
            )


def _decode(content: bytes, where: str) -> str:
    try:
        if content[:2] == b"\x1f\x8b":
            content = gzip.GzipFile(fileobj=io.BytesIO(content)).read(_MOST_UNPACKED + 1)
            _check_unpacked(len(content), where)
        if content[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            return content.decode("utf-16")
        if 0 in content[:2]:  # every second byte of English text in UTF-16
            return content.decode("utf-16-be" if content[0] == 0 else "utf-16-le")
        return content.decode("utf-8-sig")
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{where} is damaged ({error}): unpack it with gunzip") from error
    except UnicodeDecodeError as error:
        raise UserError(
            f"{where} is not UTF-8 or UTF-16 text ({error}): save it as CSV in UTF-8"
        ) from error


def _read_text(text: str, where: str) -> Iterator[tuple[int, list[str]]]:
    """(line number, values) of each row."""
    first = re.split(r"[\r\n]", text.lstrip(), maxsplit=1)[0]
    line = 1
    try:
        counts = [len(next(csv_rows.reader([first], delimiter=one), [])) for one in _DELIMITERS]
        if max(counts) == 1 and " " in first.strip():
            yield from enumerate((one.split() for one in text.splitlines()), start=1)
            return
        delimiter = _DELIMITERS[counts.index(max(counts))]
        reader = csv_rows.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        for values in reader:
            line = reader.line_num
            yield line, values
    except csv.Error as error:
        raise UserError(f"{where}, line {line}: {error}: correct this line") from error


def _check_unpacked(size: int, where: str) -> None:
    if size > _MOST_UNPACKED:
        raise UserError(
            f"{where} has more than {_MOST_UNPACKED >> 30} GiB when it is unpacked: give the rows "
            "and columns that are needed alone"
        )


def _read_xlsx(content: bytes, where: str) -> list[list[str]]:
    try:
        import openpyxl
    except ImportError as error:
        raise UserError(
            f"{where}: .xlsx needs a package: pip install 'cxr-balance[xlsx]'"
        ) from error
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as parts:
            _check_unpacked(sum(part.file_size for part in parts.infolist()), where)
        sheet = openpyxl.load_workbook(io.BytesIO(content), read_only=True).worksheets[0]
        # The rows are parsed only here.
        rows = sheet.iter_rows(values_only=True)
        return [["" if value is None else str(value) for value in row] for row in rows]
    except UserError:
        raise
    except Exception as error:  # openpyxl also raises errors of zip files and of XML
        raise UserError(
            f"{where} cannot be read as an .xlsx file ({first_line(error, 160)}): save it again, "
            "or as CSV"
        ) from error


class FileValues:
    """Values that the rows of a table give to files.

    A row names its file by its path, by its file name or by its file name without extension. A
    name that fits two files says nothing about either, so it is an error and not a guess.
    """

    def __init__(
        self, where: str, rows: Iterable[tuple[int, str, str]], filenames: Iterable[str]
    ) -> None:
        """Takes the rows' line numbers, names and values, and the paths of all files.

        Args:
          where: beginning of messages, see `Table.where`.
        """
        self._where = where
        self._rows: dict[str, tuple[str, int]] = {}
        self._conflicts: dict[str, tuple[int, int]] = {}
        self._used: dict[str, str] = {}
        for line, name, value in rows:
            earlier, first = self._rows.setdefault(name, (value, line))
            if earlier != value:
                self._conflicts.setdefault(name, (first, line))
        # A row with the path of a file is about no other file of this name.
        self._paths = {name for name in filenames if name in self._rows}

    def get(self, filename: str) -> str | None:
        """The value of a file, None if no row names it.

        Raises:
          UserError: two rows give it different values, or its row names another file too.
        """
        answer: tuple[str, int] | None = None
        for name in _names_of(filename):
            if name not in self._rows or (name in self._paths and name != filename):
                continue
            if name in self._conflicts:
                raise self._contradiction(filename, *self._conflicts[name])
            value, line = self._rows[name]
            other = self._used.setdefault(name, filename)
            if other != filename:
                raise UserError(
                    f"{self._where}, line {line}: {name!r} names {other} and {filename}: write "
                    "paths below the input folder, such as these, instead of file names alone"
                )
            if answer is not None and answer[0] != value:
                raise self._contradiction(filename, answer[1], line)
            answer = answer or (value, line)
        return answer[0] if answer else None

    def _contradiction(self, filename: str, first: int, second: int) -> UserError:
        return UserError(
            f"{self._where}: lines {first} and {second} give {filename} different values: keep one "
            "of them or, if they mean two files of one name, write their paths"
        )
