"""Any file name that Linux or macOS takes is read back from a CSV file as it was written."""

from __future__ import annotations

import csv
import os
import pathlib
import re

import pyarrow.csv
import pytest

from cxr_tfrecords import csv_rows

ROOT = pathlib.Path(__file__).parents[2]
NAMES = ["Icon\r", "\r", "a\rb", "a\r\nb", "line\nbreak", 'quo"te', "com,ma", "semi;colon", " "]
NAMES += ["=1+1", "+1", "-1", "@SUM(A1)", "\u202egnp.rtl", "سعال.png", "x" * 255, "tab\t", "\\"]
LONG = "x" * 200_000
NOT_TEXT = os.fsdecode(b"\xff\xfe.png")


@pytest.mark.parametrize("name", [*NAMES, NOT_TEXT, LONG], ids=lambda name: ascii(name)[:20])
def test_any_name_is_read_back(tmp_path, name):
    path = str(tmp_path / "rows.csv")
    rows = [["id", "class"], [name, "a"], ["b", name]]
    with csv_rows.open_csv(path, "w") as file:
        csv_rows.writer(file).writerows(rows)
    with csv_rows.open_csv(path) as file:
        assert list(csv_rows.reader(file)) == rows
    with open(path, "rb") as file:
        content = file.read()
    assert content.startswith(b"id,class\n")
    if name != NOT_TEXT:
        options = pyarrow.csv.ParseOptions(newlines_in_values=True)
        table = pyarrow.csv.read_csv(
            path,
            parse_options=options,
            convert_options=pyarrow.csv.ConvertOptions(
                column_types={"id": "string", "class": "string"}, strings_can_be_null=False
            ),
        )
        assert [list(row.values()) for row in table.to_pylist()] == rows[1:]


def test_ordinary_rows_are_the_bytes_that_csv_writes(tmp_path):
    rows = [["id", "value"], ["a.png", 1.5], ["a, b", None], ["c", ""], [""]]
    for name, write in (("own", csv_rows.writer), ("csv", _plain)):
        with csv_rows.open_csv(str(tmp_path / name), "w") as file:
            write(file).writerows(rows)
    assert (tmp_path / "own").read_bytes() == (tmp_path / "csv").read_bytes()


def test_every_reader_of_csv_takes_fields_of_any_length():
    for package in ("cxr_tfrecords", "beam_pipelines", "trainer"):
        for path in (ROOT / package).rglob("*.py"):
            if path.name != "csv_rows.py":
                assert not re.search(r"csv\.(Dict)?[rR]eader\(", path.read_text()), path


def _plain(file):
    return csv.writer(file, lineterminator="\n")
