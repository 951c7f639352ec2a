"""Copies, patients, lists of images, masks: what the build unites, keeps and sets aside."""

import collections
import csv
import dataclasses
import os
import re

import cv2
import numpy as np
import pytest

from beam_pipelines import job
from beam_pipelines.inputs import group_salt, input_tables, sources
from beam_pipelines.settings import beam_flags
from beam_pipelines.settings.config import BuildConfig
from cxr_tfrecords import dataset_dir, images, records, synthetic, tfrecord, verify
from cxr_tfrecords.concurrency import locks
from cxr_tfrecords.errors import TemporaryError, UserError
from tests.dicom_files import dicom_file

CONFIG = BuildConfig(image_size=64)
# With this seed a near-duplicate stands in another split than its original, unless they are united.
APART = dataclasses.replace(CONFIG, seed=3)


@pytest.fixture(scope="module")
def radiographs(tmp_path_factory):
    root = tmp_path_factory.mktemp("in") / "set"
    synthetic.write_synthetic(str(root), scale=0.008, image_size=96)
    return root


def build(found, output, config=CONFIG, **options):
    settings = {"overwrite": False, "resume": True, "max_bad_fraction": 0.0, "threads": 1}
    settings["page"] = False  # drawing it takes longer than these builds: test_statistics.py
    return job.build(
        found, str(output), config, beam_flags.parse([], []), **{**settings, **options}
    ).manifest


def source_rows(output):
    with open(output / dataset_dir.SOURCES, newline="") as file:
        return {row["filename"]: row for row in csv.DictReader(file)}


def add_near_copy(root, tmp_path, into="Normal"):
    """A set of links to the images, and in class `into` a re-encoded copy of one of COVID's."""
    copy = tmp_path / "with-copy"
    for path in root.glob("*/images/*.png"):
        link = copy / path.relative_to(root)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path)
    picture = cv2.imread(str(root / "COVID" / "images" / "COVID-5.png"), cv2.IMREAD_GRAYSCALE)
    small = cv2.resize(picture, (80, 80), interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(copy / into / "images" / "copy.jpg"), small)
    return copy


def test_near_duplicates_share_a_split_and_verify_proves_it(radiographs, tmp_path):
    found = sources.find_sources(str(add_near_copy(radiographs, tmp_path)))
    manifest = build(found, tmp_path / "out", APART)
    rows = source_rows(tmp_path / "out")
    copy, original = rows["Normal/images/copy.jpg"], rows["COVID/images/COVID-5.png"]
    assert copy["group"] == original["group"]
    assert (copy["split"], copy["tied_by"]) == (original["split"], "near")
    assert copy["group"] in manifest["duplicates"]["label_conflicts"]
    assert verify.verify(str(tmp_path / "out")).faults == []


def test_identical_pixels_are_not_told_as_near_duplicates(radiographs, tmp_path):
    copy = add_near_copy(radiographs, tmp_path)
    original = (radiographs / "Normal" / "images" / "Normal-4.png").read_bytes()
    (copy / "Normal" / "images" / "again.png").write_bytes(original)
    manifest = build(sources.find_sources(str(copy)), tmp_path / "out")
    tied_by = {name: row["tied_by"] for name, row in source_rows(tmp_path / "out").items()}
    assert tied_by["Normal/images/again.png"] == "pixels"
    assert tied_by["Normal/images/copy.jpg"] == "near"
    # The synthetic set has one exact copy of its own (COVID-2 is COVID-1).
    assert manifest["duplicates"]["tied_by"] == {"pixels": 4, "near": 2, "group": 0}


def test_verify_names_a_near_duplicate_in_two_splits(radiographs, tmp_path):
    found = sources.find_sources(str(add_near_copy(radiographs, tmp_path)))
    build(found, tmp_path / "out", dataclasses.replace(APART, dedup="off"))
    faults = verify.verify(str(tmp_path / "out"), near_distance=10).faults
    assert any("copy.jpg" in f and "a near-duplicate (" in f and "COVID-5.png" in f for f in faults)


def test_drop_writes_one_of_each_copies_and_conflicts_are_settled(radiographs, tmp_path):
    found = sources.find_sources(str(add_near_copy(radiographs, tmp_path, "COVID")))
    build(found, tmp_path / "drop", dataclasses.replace(CONFIG, dedup="drop"))
    rows = source_rows(tmp_path / "drop")
    assert "--dedup=drop" in rows["COVID/images/copy.jpg"]["reason"]
    assert rows["COVID/images/COVID-5.png"]["shard"]
    other = tmp_path / "other"
    other.mkdir()
    conflicting = sources.find_sources(str(add_near_copy(radiographs, other)))
    with pytest.raises(UserError, match=r"COVID-5\.png.*--label_conflicts"):
        build(conflicting, other / "e", dataclasses.replace(CONFIG, label_conflicts="error"))
    build(conflicting, other / "d", dataclasses.replace(CONFIG, label_conflicts="drop"))
    rows = source_rows(other / "d")
    for name in ("Normal/images/copy.jpg", "COVID/images/COVID-5.png"):
        assert "--label_conflicts=drop" in rows[name]["reason"]


def test_patients_never_span_splits_and_their_ids_are_not_stored(radiographs, tmp_path):
    table = tmp_path / "patients.csv"
    names = sorted(p.stem for p in radiographs.glob("*/images/*.png"))
    lines = [f"{name},patient-{number // 2}" for number, name in enumerate(names)]
    table.write_text("\n".join(["FILE NAME,patient_id", *lines]))
    found = sources.find_sources(str(radiographs))
    tied = input_tables.group_by_csv(found, str(table), "patient_id", "secret")
    manifest = build(tied, tmp_path / "out", salt="secret")
    patient = dict(line.split(",") for line in lines)
    where = collections.defaultdict(set)
    for name, row in source_rows(tmp_path / "out").items():
        where[patient[name.rpartition("/")[2][:-4]]].add(row["split"])
    assert all(len(splits) == 1 for splits in where.values())
    assert manifest["duplicates"]["tied_by"]["group"] == len(names)
    for path in (tmp_path / "out").iterdir():
        assert b"patient-1" not in path.read_bytes()
    with pytest.raises(UserError, match="--group_salt_file"):
        build(tied, tmp_path / "out", salt="other")
    with pytest.raises(UserError, match="has no column 'person'"):
        input_tables.group_by_csv(found, str(table), "person", "")


def test_a_list_of_images_keeps_its_splits_and_leaks_are_refused(radiographs, tmp_path):
    table = tmp_path / "list.csv"
    paths = sorted(str(p.relative_to(radiographs)) for p in radiographs.glob("*/images/*.png"))
    rows = [
        [path, path.split("/")[0].upper(), ("train", "val", "test")[number % 3], f"p{number}"]
        for number, path in enumerate(paths)
    ]

    def write(rows):
        with open(table, "w", newline="") as file:
            csv.writer(file).writerows([["path", "label", "split", "group"], *rows])
        return input_tables.read_input_csv(str(table), str(radiographs), "")

    off = dataclasses.replace(CONFIG, dedup="off")
    manifest = build(write(rows), tmp_path / "out", off)
    assert manifest["class_names"] == ["COVID", "LUNG_OPACITY", "NORMAL", "VIRAL PNEUMONIA"]
    found = source_rows(tmp_path / "out")
    assert all(found[r[0]]["split"] == r[2].replace("val", "validation") for r in rows)
    torn = [[*row[:3], "one patient"] for row in rows]
    with pytest.raises(UserError, match="the given splits leak"):
        build(write(torn), tmp_path / "torn")
    with pytest.raises(UserError, match="line 3: split 'holdout'"):
        write([rows[0], [*rows[-1][:2], "holdout", ""]])
    with pytest.raises(UserError, match=r"line 3: .* is in line 2 already"):
        write([rows[0], [*rows[0][:3], "other"], rows[-1]])


def test_masks_are_stored_and_shown(radiographs, tmp_path):
    found = sources.find_sources(str(radiographs), with_masks=True)
    build(found, tmp_path / "out", dataclasses.replace(CONFIG, with_masks=True))
    data = dataset_dir.load(str(tmp_path / "out"))
    assert verify.verify(data.path).faults == []
    serialized = next(tfrecord.read_records(data.shards[0].path))
    whole, lungs, background = (
        records.parse_example(serialized, data.showing(mask))["image"].numpy()
        for mask in ("none", "lungs", "background")
    )
    assert lungs.any()
    assert background.any()
    np.testing.assert_array_equal(lungs + background, whole)
    assert not (lungs.astype(bool) & background.astype(bool)).any()
    with pytest.raises(UserError, match="holds no lung masks"):
        dataclasses.replace(data, has_masks=False).showing("lungs")


def test_balanced_splits_are_cut_and_marked(radiographs, tmp_path):
    config = dataclasses.replace(CONFIG, balance_splits=("test",))
    manifest = build(sources.find_sources(str(radiographs)), tmp_path / "out", config)
    assert len(set(manifest["counts"]["test"].values())) == 1
    assert len(set(manifest["counts"]["validation"].values())) > 1
    assert manifest["prevalence"]["test"] == "balanced"
    assert manifest["prevalence"]["validation"] == "natural"
    aside = sum(manifest["sources"]["set_aside"].values())
    assert manifest["sources"]["written"] + aside == manifest["sources"]["found"]


def test_a_second_build_into_a_directory_at_work_is_refused(radiographs, tmp_path):
    with (
        locks.held(str(tmp_path / "out"), "--output_dir"),
        pytest.raises(TemporaryError, match=f"process {os.getpid()} on .* is writing to --outp"),
    ):
        build(sources.find_sources(str(radiographs)), tmp_path / "out")


def test_dicom_patients_are_united_and_only_their_hash_is_stored(radiographs, tmp_path):
    folder = tmp_path / "dicom"
    patients = {}
    for number, path in enumerate(sorted(radiographs.glob("*/images/*.png"))):
        target = folder / path.parent.parent.name / f"{path.stem}.dcm"
        target.parent.mkdir(parents=True, exist_ok=True)
        pixels = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        patients[str(target.relative_to(folder))] = f"patient-{number // 2}"
        target.write_bytes(dicom_file(pixels, bits=8, PatientID=f"patient-{number // 2}"))
    found = sources.find_sources(str(folder))
    manifest = build(found, tmp_path / "out", salt="secret")
    rows = source_rows(tmp_path / "out")
    where = collections.defaultdict(set)
    for name, row in rows.items():
        where[patients[name]].add((row["split"], row["group"]))
        assert (row["format"], row["mode"]) == ("DICOM", "MONOCHROME2;8")
    assert all(len(own) == 1 for own in where.values())
    assert manifest["duplicates"]["tied_by"]["group"] == len(patients)
    for path in (tmp_path / "out").iterdir():
        assert b"patient-1" not in path.read_bytes()
    assert manifest["config"]["salt_id"] == group_salt.salt_id("secret")
    unnamed = dataclasses.replace(CONFIG, patient_ids=False, anonymize_names=True)
    (folder / "COVID" / "broken-1.dcm").write_bytes(b"no image")
    found = sources.find_sources(str(folder))
    manifest = build(found, tmp_path / "unnamed", unnamed, salt="secret", max_bad_fraction=0.5)
    assert manifest["duplicates"]["tied_by"]["group"] == 0
    assert manifest["config"]["salt_id"] == ""  # no id was hashed
    stored = source_rows(tmp_path / "unnamed")
    assert list(stored) == sorted(
        group_salt.hashed_name(name, "secret") for name in [*rows, "COVID/broken-1.dcm"]
    )
    assert not verify.verify(str(tmp_path / "unnamed")).faults
    for path in (tmp_path / "unnamed").iterdir():
        assert not re.search(rb"COVID-\d|broken-1|\.dcm", path.read_bytes())


def test_enhanced_images_are_stored_and_the_manifest_says_so(radiographs, tmp_path):
    found = sources.find_sources(str(radiographs))
    manifest = build(found, tmp_path / "out", dataclasses.replace(CONFIG, enhance="complement"))
    assert manifest["config"]["enhance"] == "complement"
    data = dataset_dir.load(str(tmp_path / "out"))
    record = records.parse_record(next(tfrecord.read_records(data.shards[0].path)))
    source = images.decode((radiographs / record.filename).read_bytes()).pixels
    plain = images.resize(images.to_channels(source, 1), 64)
    stored = images.decode_stored(record.encoded, "png", 64, 1)
    np.testing.assert_array_equal(stored, 255 - plain)
    assert verify.verify(data.path).faults == []
