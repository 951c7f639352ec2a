"""Tables as people have them: encodings, delimiters, headers, and rows that name files."""

import gzip
import io
import zipfile

import pytest

from cxr_tfrecords import tables
from cxr_tfrecords.errors import UserError

FLAGS = {"flag": "subgroup_csv", "column_flag": "subgroup_column"}
ROWS = [["path", "label"], ["a/1.png", "Größe"], ["b/2.png", "B"]]


def write(path, text, encoding="utf-8"):
    path.write_bytes(text.encode(encoding))
    return tables.read_table(str(path), "input_csv")


def lines(delimiter):
    return "".join(f"{delimiter.join(row)}\r\n" for row in ROWS)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|", " "])
def test_delimiters_and_encodings_are_recognised(tmp_path, delimiter, encoding):
    table = write(tmp_path / "list.csv", lines(delimiter), encoding)
    assert table.columns == ("path", "label")
    assert table.rows == [(2, ROWS[1]), (3, ROWS[2])]


def test_a_packed_table_is_read(tmp_path):
    (tmp_path / "list.csv.gz").write_bytes(gzip.compress(lines(",").encode()))
    table = tables.read_table(str(tmp_path / "list.csv.gz"), "input_csv")
    assert [values for _, values in table.rows] == ROWS[1:]


def test_damage_inside_a_packed_table_is_one_line(tmp_path):
    packed = bytearray(gzip.compress(lines(",").encode()))
    packed[10] = 0xFF  # the first deflated byte: an error of zlib, not of gzip
    (tmp_path / "list.csv.gz").write_bytes(packed)
    with pytest.raises(UserError, match=r"is damaged .*: unpack it with gunzip$"):
        tables.read_table(str(tmp_path / "list.csv.gz"), "input_csv")


def test_a_table_that_unpacks_to_too_much_is_refused_before_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "_MOST_UNPACKED", 1 << 20)
    (tmp_path / "list.csv.gz").write_bytes(gzip.compress(bytes(1 << 21)))
    with zipfile.ZipFile(tmp_path / "list.xlsx", "w", zipfile.ZIP_DEFLATED) as parts:
        parts.writestr("xl/workbook.xml", bytes(1 << 21))
    pytest.importorskip("openpyxl")
    for name in ("list.csv.gz", "list.xlsx"):
        with pytest.raises(UserError, match=r"GiB when it is unpacked: give the rows"):
            tables.read_table(str(tmp_path / name), "input_csv")


def test_damage_inside_a_sheet_is_one_line(tmp_path):
    book = pytest.importorskip("openpyxl").Workbook()
    for row in ROWS:
        book.active.append(row)
    book.save(whole := io.BytesIO())
    path = tmp_path / "list.xlsx"
    path.write_bytes(whole.getvalue())
    assert [values for _, values in tables.read_table(str(path), "input_csv").rows] == ROWS[1:]
    with zipfile.ZipFile(whole) as parts, zipfile.ZipFile(path, "w") as damaged:
        for name in parts.namelist():
            content = parts.read(name)
            # The file opens: only its rows are cut off.
            damaged.writestr(name, content[:-40] if "sheet1" in name else content)
    with pytest.raises(UserError, match=r"cannot be read as an \.xlsx file .*save it again") as one:
        tables.read_table(str(path), "input_csv")
    assert "\n" not in str(one.value)


def test_lines_may_end_as_old_macs_end_them(tmp_path):
    table = write(tmp_path / "list.csv", lines(",").replace("\r\n", "\r"))
    assert [values for _, values in table.rows] == ROWS[1:]


def test_a_header_of_megabytes_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"line 1: field larger than field limit .*correct this"):
        write(tmp_path / "list.csv", "path," + "y" * (17 << 20) + "\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label,Label\n", r"has the column 'label' twice \(columns 2 and 3\)"),
        ("path,label\na.png\n", "line 2: 1 values under 2 column names"),
        ("path,label\n\n\na.png,b,c\n", "line 4: 3 values under 2 column names"),
    ],
)
def test_a_wrong_header_or_row_is_named(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        write(tmp_path / "list.csv", text)


def test_text_in_another_encoding_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"is not UTF-8 or UTF-16 text .*save it as CSV in UTF-8"):
        write(tmp_path / "list.csv", lines(","), "latin-1")


def test_columns_without_a_name_are_passed_over(tmp_path):
    table = write(tmp_path / "list.csv", ",path,,label\n0,a.png,,A\n")
    assert (table.column("", "", ["path"]), table.column("Label", "label_column")) == (1, 3)
    assert table.describe() == "it has path, label"


def test_columns_are_found_however_they_are_spelled(tmp_path):
    table = write(tmp_path / "list.csv", "Image Index,Patient ID,n\na.png,1,2\n")
    assert table.column("", "", tables.FILE_COLUMNS) == 0
    assert table.column("", "", tables.GROUP_COLUMNS) == 1
    assert table.column("patient_id", "group_column") == 1
    with pytest.raises(UserError, match=r"no column 'sex' \(--group_column\); it has image index"):
        table.column("sex", "group_column")


def test_a_table_without_a_header_has_numbers_for_columns(tmp_path):
    table = write(tmp_path / "train.txt", "3 a-b.jpeg pneumonia cohen\n4  c.png normal rsna \n")
    assert table.columns == ("1", "2", "3", "4")
    assert [line for line, _ in table.rows] == [1, 2]
    assert "no header" in table.describe()
    assert "2 (a-b.jpeg)" in table.describe()


@pytest.mark.parametrize(
    "value",
    ["", "nan", "N/A", "unknown", "ANONYMOUS PATIENT", "De-Identified", "NOID", "0000", "-"],
)
def test_placeholders_are_not_ids(value):
    assert tables.is_unknown_id(value)


@pytest.mark.parametrize("value", ["0", "0001", "12", "NA12", "patient00001", "anna"])
def test_ids_are_ids(value):
    assert not tables.is_unknown_id(value)


def values(rows, files):
    return tables.FileValues("--group_csv=t", rows, files)


def test_rows_name_files_by_path_name_or_name_without_extension():
    files = ["a/1.png", "a/2.png", "b/3.png", "b/4.png"]
    found = values([(2, "a/1.png", "P"), (3, "2.png", "Q"), (4, "3", "R")], files)
    assert [found.get(file) for file in files] == ["P", "Q", "R", None]


def test_a_name_of_two_files_is_refused():
    files = ["COVID/1.png", "NORMAL/1.png"]
    for name in ("1.png", "1"):
        found = values([(2, name, "P")], files)
        assert found.get(files[0]) == "P"
        with pytest.raises(UserError, match=r"line 2: '1.*names COVID/1\.png and NORMAL/1\.png"):
            found.get(files[1])


def test_a_path_is_about_no_other_file_of_this_name():
    files = ["a/1.png", "1.png"]
    found = values([(2, "1.png", "P"), (3, "a/1.png", "Q")], files)
    assert [found.get(file) for file in files] == ["Q", "P"]


def test_two_rows_that_contradict_each_other_are_named():
    for second in ("1.png", "1", "a/1.png"):
        found = values([(2, "1.png", "P"), (5, second, "Q")], ["a/1.png"])
        with pytest.raises(UserError, match=r"lines [25] and [25] give a/1\.png different values"):
            found.get("a/1.png")
    found = values([(2, "1.png", "P"), (5, "a/1.png", "P"), (6, "x", "P"), (7, "x", "Q")], [])
    assert found.get("a/1.png") == "P"


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
