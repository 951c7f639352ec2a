"""DICOM structured reports on predictions, read back as another program would."""

import csv
import hashlib
import types

import numpy as np
import pytest

from tests.dicom_files import dicom_file

pytest.importorskip("highdicom", reason="needs the extra dicom_sr")

import highdicom
import pydicom

from trainer.deployment import structured_report

NAMES = ("COVID", "Lung_Opacity", "Normal")
PROBABILITIES = (0.25, 1.2345678e-05, 0.75)
TAGS = {
    "SOPInstanceUID": "1.2.3.4",
    "StudyInstanceUID": "1.2.3",
    "SeriesInstanceUID": "1.2.3.1",
    "PatientID": "P7",
    "PatientName": "Müller^Änne",
    "SpecificCharacterSet": "ISO_IR 192",
    "StudyDate": "20210304",
    "StudyTime": "101500",
}


def write_source(folder, **files):
    """Image files, and the file of predictions on them."""
    folder.mkdir()
    with open(folder / "rows.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "class", *(f"calibrated_{name}" for name in NAMES)])
        for name, data in files.items():
            (folder / name).write_bytes(data)
            writer.writerow([name, "COVID", *map(str, PROBABILITIES)])


def write_reports(root, folder="reports", model=b"model"):
    model_hash = hashlib.sha256(model).hexdigest()
    run = types.SimpleNamespace(model_hash=model_hash, class_names=NAMES)
    rows, source = str(root / "in" / "rows.csv"), str(root / "in")
    said = structured_report.write_reports(rows, source, str(root / folder), [run])
    return said, sorted((root / folder).iterdir())


def image(**tags):
    tags = {name: value for name, value in (TAGS | tags).items() if value is not None}
    return dicom_file(np.zeros((4, 4), np.uint16), **tags)


def test_a_report_says_what_the_row_says_of_its_image(tmp_path):
    write_source(tmp_path / "in", a=image())
    said, (path,) = write_reports(tmp_path)
    assert said.startswith("1 structured report in ")
    report = highdicom.sr.srread(path)
    assert report.SOPClassUID == pydicom.uid.ComprehensiveSRStorage
    assert (report.PatientID, report.PatientName) == ("P7", "Müller^Änne")
    assert (report.StudyInstanceUID, report.ContentDate) == ("1.2.3", "20210304")
    assert report.SeriesInstanceUID != "1.2.3.1"
    assert report.ContentQualification == "RESEARCH"
    evidence = report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0]
    assert evidence.SeriesInstanceUID == "1.2.3.1"
    assert evidence.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == "1.2.3.4"

    (group,) = report.content.get_image_measurement_groups()
    assert group.source_images[0].referenced_sop_instance_uid == "1.2.3.4"
    measured = {one.name.meaning: (one.value, one.unit.value) for one in group.get_measurements()}
    assert measured == {
        f"Probability of {name}": (value, "1")
        for name, value in zip(NAMES, PROBABILITIES, strict=True)
    }
    (evaluation,) = group.get_qualitative_evaluations()
    assert (evaluation.value.value, evaluation.value.scheme_designator) == ("840539006", "SCT")
    texts = [item.TextValue for item in report.ContentSequence if item.ValueType == "TEXT"]
    assert "For research, not for clinical use" in " ".join(texts)


def test_writing_again_gives_the_same_bytes_and_another_model_another_report(tmp_path):
    write_source(tmp_path / "in", a=image())
    (first,) = write_reports(tmp_path)[1]
    (again,) = write_reports(tmp_path, "again")[1]
    (other,) = write_reports(tmp_path, "other", b"another model")[1]
    assert (first.name, first.read_bytes()) == (again.name, again.read_bytes())
    assert other.name != first.name
    for path in (first, other):
        report = pydicom.dcmread(path)
        for uid in (report.SOPInstanceUID, report.SeriesInstanceUID):
            assert uid.is_valid


def test_files_without_a_report_are_counted_with_the_reason(tmp_path):
    absent = dict.fromkeys(("PatientID", "PatientName", "StudyDate", "StudyTime"))
    sparse = image(SOPInstanceUID="1.2.3.5", **absent)[128:]
    files = {"a": image(), "b": b"\x89PNG", "c": image(StudyInstanceUID=None), "d": b"text"}
    write_source(tmp_path / "in", **files, sparse=sparse)
    said, paths = write_reports(tmp_path)
    first, *rest = said.splitlines()
    assert first.startswith("2 structured reports")
    assert rest == [
        "2 images got none: not a DICOM file; the first is b",
        "1 image got none: the header has no StudyInstanceUID; it is c",
    ]
    assert len(paths) == 2


def test_many_reasons_are_not_a_line_each(tmp_path):
    """The value of a wrong header is in its reason, so each file may have one of its own."""
    wrong = {f"f{i}": image(StudyDate=f"2021x{i}") for i in range(9)}
    write_source(tmp_path / "in", a=image(), **wrong)
    first, *rest = write_reports(tmp_path)[0].splitlines()
    assert first.startswith("1 structured report in ")
    assert len(rest) == 6
    assert rest[-1] == "4 others got none, for 4 other reasons"


@pytest.mark.parametrize(
    "times",
    [
        {},
        {"AcquisitionDate": "20210304", "AcquisitionTime": "1015"},
        {"AcquisitionDateTime": "2021"},
    ],
    ids=["no_time", "date_and_time", "moment"],
)
def test_images_of_real_devices_name_them_and_get_a_report(times, tmp_path):
    """highdicom adds the device to the report as soon as a header names its manufacturer."""
    device = {"Manufacturer": "ACME", "ManufacturerModelName": "Ray 2", "StationName": "ROOM1"}
    write_source(tmp_path / "in", a=image(**device, **times))
    said, (path,) = write_reports(tmp_path)
    assert said.startswith("1 structured report in ")
    named, software = pydicom.dcmread(path).ContributingEquipmentSequence
    assert (named.Manufacturer, named.get("ContributionDateTime")) == (
        "ACME",
        times.get("AcquisitionDateTime"),
    )
    assert "ContributionDateTime" not in software
    assert write_reports(tmp_path, "again")[1][0].read_bytes() == path.read_bytes()


def test_a_class_without_a_certain_concept_gets_a_code_of_this_project():
    code = structured_report._code("Lung_Opacity")
    assert (code.scheme_designator, code.meaning) == ("99CXRBALANCE", "Lung_Opacity")
    assert code == structured_report._code("Lung_Opacity")
    assert structured_report._code("Viral Pneumonia").value == "75570004"
    assert len(structured_report._code("x" * 99).meaning) == 64
