"""Rows of a user's table, and the image files that they mean."""

import pytest

from cxr_tfrecords import tables
from cxr_tfrecords.errors import UserError

FLAGS = {"flag": "subgroup_csv", "column_flag": "subgroup_column"}


def _table(tmp_path, text):
    path = tmp_path / "table.csv"
    path.write_text(text)
    return str(path)


def test_rows_name_a_file_by_the_first_known_column_or_by_the_one_that_is_wanted(tmp_path):
    path = _table(tmp_path, "Image_ID,Sex,FileName\n7, F ,a.png\n8,M,\n")
    assert list(tables.read_columns(path, ["SEX"], **FLAGS)) == [
        (2, "a.png", ["F"]),
        (3, "8", ["M"]),
    ]
    rows = tables.read_columns(path, ["sex", "filename"], key="IMAGE_ID", **FLAGS)
    assert [name for _, name, _ in rows] == ["7", "8"]


def test_a_missing_column_or_file_name_is_one_line_with_the_flag(tmp_path):
    path = _table(tmp_path, "path,sex\na.png,F\n,M\n")
    with pytest.raises(
        UserError, match=r"^--subgroup_csv=.* no column 'age' \(--subgroup_column\); it has path, "
    ):
        list(tables.read_columns(path, ["age"], **FLAGS))
    with pytest.raises(UserError, match=r"line 3: no file name.* called one of path, filename"):
        list(tables.read_columns(path, ["sex"], **FLAGS))
    with pytest.raises(UserError, match=r"line 2: no file name.* called id; it has path, sex"):
        list(tables.read_columns(path, ["sex"], key="id", **FLAGS))


def test_a_file_is_meant_by_path_then_name_then_name_without_extension():
    assert tables.match({"a/b.c.png", "b.c.png", "b.c"}, "a/b.c.png") == "a/b.c.png"
    assert tables.match({"b.c.png", "b.c"}, "a/b.c.png") == "b.c.png"
    assert tables.match({"b.c", "a/b.c"}, "a/b.c.png") == "b.c"
    assert tables.match({"b"}, "a/b.c.png") is None
