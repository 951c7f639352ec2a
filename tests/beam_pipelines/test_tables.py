"""--group_csv=FILE.xlsx, in the layout of the COVID-19 Radiography Database's metadata sheets."""

from __future__ import annotations

import csv
import sys

import pytest

from beam_pipelines import job
from beam_pipelines.inputs import group_salt, input_tables, sources
from beam_pipelines.settings import beam_flags
from beam_pipelines.settings.config import BuildConfig
from cxr_tfrecords import dataset_dir
from cxr_tfrecords.errors import UserError
from tests.beam_pipelines import commands
from tests.beam_pipelines.radiographs import CLASSES, write_radiographs

HEADER = ("FILE NAME", "FORMAT", "SIZE", "URL")


@pytest.fixture
def radiographs(tmp_path):
    return write_radiographs(tmp_path / "in")


@pytest.fixture
def sheet(tmp_path):
    """Every two images of a class come from one address; names are without extension."""
    openpyxl = pytest.importorskip("openpyxl", reason="needs the extra `xlsx`")
    book = openpyxl.Workbook()
    page = book.active
    page.append(HEADER)
    for name, count in CLASSES.items():
        for number in range(count):
            row = f"{name}-{number}", "PNG", "256*256", f"https://{name}/{number // 2}"
            page.append(row)
    page.append((None, None, None, None))  # sheets end in empty rows
    book.create_sheet("notes").append(["not read"])
    path = tmp_path / "Metadata.XLSX"
    book.save(path)
    return path


def read_sources(output):
    with open(output / dataset_dir.SOURCES, newline="") as file:
        return {row["filename"]: row for row in csv.DictReader(file)}


@pytest.mark.slow
def test_images_of_one_address_in_a_sheet_share_a_split(radiographs, sheet, tmp_path):
    out = tmp_path / "out"
    done = commands.build(
        *(f"--input_dir={radiographs}", f"--output_dir={out}", "--near_distance=-1"),
        *("--image_size=24", f"--group_csv={sheet}", "--group_column=URL"),
        f"--group_salt_file={tmp_path / 'salt'}",
    )
    assert done.returncode == 0, done.stderr
    assert f"{sheet}: URL found for 40 of 40 files" in done.stdout
    salt = (tmp_path / "salt").read_text().strip()
    rows = read_sources(out)
    for name, count in CLASSES.items():
        for number in range(0, count, 2):
            pair = [rows[f"{name}/images/{name}-{number + i}.png"] for i in (0, 1)]
            assert pair[0]["group"] == pair[1]["group"]
            assert pair[0]["split"] == pair[1]["split"]
            assert pair[0]["given_group"] == group_salt.group_digest(
                f"https://{name}/{number // 2}", salt
            )
    assert len({row["group"] for row in rows.values()}) == 20
    assert "https://" not in (out / dataset_dir.SOURCES).read_text()


def test_a_sheet_groups_as_the_same_table_in_csv_does(radiographs, sheet, tmp_path):
    import openpyxl

    text = tmp_path / "Metadata.csv"
    with open(text, "w", newline="") as file:
        csv.writer(file).writerows(openpyxl.load_workbook(sheet).worksheets[0].values)
    found = sources.find_sources(str(radiographs))
    ties = [
        [file.tie for file in input_tables.group_by_csv(found, str(path), "URL", "salt").listed]
        for path in (sheet, text)
    ]
    assert ties[0] == ties[1]
    assert len(set(ties[0])) == 20


def test_a_sheet_without_the_column_or_with_other_names_is_one_line(radiographs, sheet):
    found = sources.find_sources(str(radiographs))
    with pytest.raises(UserError, match=r"no column 'patient'.*file name, format, size, url"):
        input_tables.group_by_csv(found, str(sheet), "patient", "")
    other = sources.find_sources(str(write_radiographs(sheet.parent / "o", {"a": 2, "b": 2})))
    with pytest.raises(UserError, match="names none of the 4 files"):
        input_tables.group_by_csv(other, str(sheet), "URL", "")


def test_a_damaged_sheet_is_one_line(radiographs, sheet):
    found = sources.find_sources(str(radiographs))
    for content in (b"", b"FILE NAME,URL\n", sheet.read_bytes()[:2000]):
        sheet.write_bytes(content)
        with pytest.raises(
            UserError, match=r"^--group_csv=.*XLSX cannot be read as an \.xlsx file"
        ):
            input_tables.group_by_csv(found, str(sheet), "URL", "")


def test_a_missing_package_for_sheets_names_the_extra(radiographs, sheet, monkeypatch):
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    found = sources.find_sources(str(radiographs))
    with pytest.raises(UserError, match=r"^--group_csv=.* pip install 'cxr-balance\[xlsx\]'"):
        input_tables.group_by_csv(found, str(sheet), "URL", "")


def test_a_group_in_a_sheet_unites_across_classes(radiographs, tmp_path):
    openpyxl = pytest.importorskip("openpyxl", reason="needs the extra `xlsx`")
    book = openpyxl.Workbook()
    book.active.append(HEADER)
    for name in ("COVID-1", "Normal-2"):
        book.active.append((name, "PNG", "256*256", "https://one"))
    book.save(tmp_path / "sheet.xlsx")
    found = sources.find_sources(str(radiographs))
    tied = input_tables.group_by_csv(found, str(tmp_path / "sheet.xlsx"), "url", "")
    manifest = job.build(
        tied,
        str(tmp_path / "out"),
        BuildConfig(near_distance=-1, image_size=24),
        beam_flags.parse([], []),
        overwrite=False,
        resume=True,
        max_bad_fraction=0.0,
    ).manifest
    (group,) = manifest["duplicates"]["groups"].values()
    assert group == ["COVID/images/COVID-1.png", "Normal/images/Normal-2.png"]
    # A patient may well have two findings: only copies of one picture contradict each other.
    assert manifest["duplicates"]["num_label_conflicts"] == 0


def write_sheet(path, header, rows):
    path.write_text("\n".join(map(",".join, [header, *rows])))
    return str(path)


def test_file_names_that_repeat_across_classes_are_refused(tmp_path):
    root = tmp_path / "in"
    for name in ("COVID", "NORMAL"):
        (root / name).mkdir(parents=True)
        for number in range(3):
            (root / name / f"{number}.png").touch()
    found = sources.find_sources(str(root))
    rows = [
        (f"{n}.png", name, f"{name}-{n // 2}") for name in ("COVID", "NORMAL") for n in range(3)
    ]
    header = ("filename", "class", "patient_id")
    sheet = write_sheet(tmp_path / "sheet.csv", header, rows)
    with pytest.raises(UserError, match=r"lines 2 and 5 give COVID/0\.png different values"):
        input_tables.group_by_csv(found, sheet, "", "")
    sheet = write_sheet(tmp_path / "sheet.csv", header, rows[:3])
    with pytest.raises(UserError, match=r"line 2: .*names COVID/0\.png and NORMAL/0\.png"):
        input_tables.group_by_csv(found, sheet, "", "")
    whole = [(f"{root}/{name}\\{file}", name, patient) for file, name, patient in rows]
    sheet = write_sheet(tmp_path / "sheet.csv", header, whole)
    grouped = input_tables.group_by_csv(found, sheet, "", "")
    ties = [file.tie for file in grouped.listed]
    assert ties[0] == ties[1]
    assert len(set(ties)) == 4


def test_ids_that_name_nobody_unite_no_images(radiographs, tmp_path):
    found = sources.find_sources(str(radiographs))
    names = [file.filename for file in found.listed]
    for value in ("nan", "unknown", "0000", ""):
        rows = [(name, "one" if index < 2 else value) for index, name in enumerate(names)]
        sheet = write_sheet(tmp_path / "sheet.csv", ("file", "Patient ID"), rows)
        grouped = input_tables.group_by_csv(found, sheet, "", "")
        assert [bool(file.tie) for file in grouped.listed] == [True] * 2 + [False] * 38
        assert "38 files have an empty patient id, or one that names nobody" in grouped.notes[-1]
