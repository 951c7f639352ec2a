"""Splits that a list gives: none for validation, and copies that lie in two of them."""

import csv
import dataclasses
import re
import shutil

import pytest

from beam_pipelines import job
from beam_pipelines.inputs import input_tables
from beam_pipelines.settings import beam_flags
from beam_pipelines.settings.config import BuildConfig
from cxr_tfrecords import dataset_dir, verify
from cxr_tfrecords.errors import UserError
from tests.beam_pipelines.radiographs import write_radiographs

CONFIG = BuildConfig(image_size=24, near_distance=-1)
DROP = dataclasses.replace(CONFIG, given_leaks="drop_from_train")
CLASSES = {"A": 12, "B": 10}


@pytest.fixture
def root(tmp_path):
    return write_radiographs(tmp_path / "in", CLASSES, nested=False)


def build(root, split_of, config=CONFIG, group_of=lambda name: "", out="out", page=False):
    """Builds all images of the folder with the splits and groups that two functions give."""
    names = sorted(str(path.relative_to(root)) for path in root.glob("*/*.png"))
    table = root.parent / f"{out}.csv"
    with open(table, "w", newline="") as file:
        rows = [(name, name[0], split_of(name), group_of(name)) for name in names]
        csv.writer(file).writerows([("path", "label", "split", "group"), *rows])
    sources = input_tables.read_input_csv(str(table), str(root), "")
    manifest = job.build(
        sources,
        str(root.parent / out),
        config,
        beam_flags.parse([], []),
        overwrite=False,
        resume=True,
        max_bad_fraction=0.0,
        threads=1,
        page=page,
    ).manifest
    with open(root.parent / out / dataset_dir.SOURCES, newline="") as file:
        return manifest, {row["filename"]: row for row in csv.DictReader(file)}


def number(name):
    return int(re.findall(r"\d+", name)[0])


def in_thirds(name):
    return ("train", "validation", "test")[number(name) % 3]


def test_validation_is_taken_from_train_by_groups(root):
    manifest, rows = build(
        root,
        lambda name: "test" if number(name) >= 8 else "training",
        group_of=lambda name: f"{name[0]}{number(name) // 2}",
    )
    assert {name for name, row in rows.items() if row["split"] == "test"} == {
        name for name in rows if number(name) >= 8
    }
    assert all(manifest["counts"]["validation"].values())
    for name, row in rows.items():
        pair = f"{name[0]}/{name[0]}-{number(name) ^ 1}.png"
        assert row["split"] == rows[pair]["split"]
    taken = sum(manifest["counts"]["validation"].values())
    assert f"no validation: {taken} of 16 training images" in manifest["notes"][0]
    assert verify.verify(str(root.parent / "out")).faults == []


def test_validation_that_is_given_is_kept(root):
    manifest, rows = build(root, in_thirds)
    assert all(row["split"] == in_thirds(name) for name, row in rows.items())
    assert manifest["notes"] == []
    assert manifest["given_splits"]["images"] == 22


def test_given_splits_without_test_are_refused_with_a_remedy(root):
    with pytest.raises(UserError, match=r"no image in the test split .*with --splits=own"):
        build(root, lambda name: "train" if number(name) else "val")


def copy_into(root, *pairs):
    for source, target in pairs:
        shutil.copy(root / source, root / target)


def test_leaks_of_given_splits_are_refused_or_leave_train(root):
    # Copies in train and test, in train and validation, in validation and test, in test alone.
    pairs = [("A/A-0.png", "B/B-2.png"), ("A/A-3.png", "A/A-4.png"), ("B/B-1.png", "B/B-5.png")]
    copy_into(root, *pairs, ("A/A-2.png", "A/A-5.png"))
    for config in (CONFIG, dataclasses.replace(CONFIG, dedup="drop")):
        with pytest.raises(UserError, match=r"leak: 3 groups.*leave the training ones out with"):
            build(root, in_thirds, config)
    manifest, rows = build(root, in_thirds, DROP, out="dropped", page=True)
    left = {name for name, row in rows.items() if "--given_leaks" in row["reason"]}
    assert left == {"A/A-0.png", "A/A-3.png", "B/B-1.png"}
    given = manifest["given_splits"]
    assert (given["leaking_groups"], given["dropped"]) == (3, 3)
    assert [(one["file"], one["split"]) for one in given["dropped_files"]] == [
        ("A/A-0.png", "train"),
        ("A/A-3.png", "train"),
        ("B/B-1.png", "validation"),
    ]
    for name, row in rows.items():
        assert row["split"] == ("" if name in left else in_thirds(name))
    assert verify.verify(str(root.parent / "dropped")).faults == []
    page = (root.parent / "dropped" / "stats.html").read_text()
    section = page[page.index("Images that were in two given splits") :]
    assert "3 images of 3 groups left" in section
    section = section[: section.index("Copies and groups")]
    assert "no image" not in section
    for name in left:
        assert f'alt="{name}"' in section


def test_the_given_test_split_loses_no_image_to_a_copy_that_is_dropped(root):
    copy_into(root, ("A/A-0.png", "A/A-2.png"), ("B/B-2.png", "B/B-5.png"))
    _, rows = build(root, in_thirds, dataclasses.replace(DROP, dedup="drop"))
    assert rows["A/A-2.png"]["split"] == "test"
    assert [rows[f"B/B-{n}.png"]["split"] for n in (2, 5)] == ["test", ""]


def test_patients_of_the_given_test_split_leave_train(root):
    _, rows = build(root, in_thirds, DROP, lambda n: "one" * (n in ("A/A-2.png", "A/A-3.png")))
    assert "--given_leaks" in rows["A/A-3.png"]["reason"]  # its patient is in A-2.png, test
    assert rows["A/A-2.png"]["split"] == "test"


def test_folds_refuse_given_leaks():
    with pytest.raises(UserError, match=r"--given_leaks .*--folds=3"):
        dataclasses.replace(DROP, folds=3)


def test_a_value_that_unites_many_images_is_warned_of(root):
    manifest, _ = build(root, lambda name: "", group_of=lambda n: "ward 7" * (number(n) < 4))
    assert "one given group unites 8 of 22 images (more than 10%)" in manifest["notes"][0]
    with pytest.raises(UserError, match=r"has no image in the [\s\S]*given group unites 22 of 22"):
        build(root, lambda name: "", group_of=lambda name: "ward 7", out="all")
    manifest, _ = build(root, lambda name: "", group_of=lambda n: n[0] * (number(n) < 1), out="2")
    assert manifest["notes"] == []
