"""--folds: groups stay in one fold, classes are spread evenly, verify and --append know folds."""

import collections
import csv
import dataclasses
import json
import shutil

import numpy as np
import pytest

from beam_pipelines.inputs import input_tables
from beam_pipelines.settings.config import BuildConfig
from cxr_tfrecords import dataset_dir, images, records, tfrecord, verify
from cxr_tfrecords.errors import UserError
from tests.beam_pipelines.radiographs import CLASSES, write_radiographs
from tests.beam_pipelines.test_append import CONFIG, add, build, find

FOLDS = dataclasses.replace(CONFIG, folds=3)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Radiographs with a copy in another class, and the data set of 3 folds."""
    folder = tmp_path_factory.mktemp("folds")
    root = write_radiographs(folder / "in", {name: 2 * n for name, n in CLASSES.items()})
    first, second, *_ = sorted(CLASSES)
    shutil.copy(next((root / first).rglob("*.png")), root / second / "copy.png")
    manifest = build(find(root), folder / "out", FOLDS)
    return root, folder / "out", manifest


def rows(output):
    with open(output / dataset_dir.SOURCES, newline="") as file:
        return list(csv.DictReader(file))


def test_groups_stay_in_one_fold_and_classes_are_spread_evenly(built):
    _, output, manifest = built
    folds = collections.defaultdict(set)
    for row in rows(output):
        folds[row["group"]].add(row["split"])
    assert max(map(len, folds.values())) == 1
    assert set().union(*folds.values()) == {"fold0", "fold1", "fold2"}
    assert manifest["split_proof"]["groups_in_two_splits"] == 0
    for name in manifest["class_names"]:
        counts = [manifest["counts"][fold][name] for fold in ("fold0", "fold1", "fold2")]
        assert max(counts) - min(counts) <= 2
    report = verify.verify(str(output))
    assert report.faults == []
    assert sorted(report.groups) == ["fold0", "fold1", "fold2"]
    assert "fold1" in (output / "stats.html").read_text()
    assert build(find(built[0]), output, FOLDS) == manifest  # up to date


def test_moments_are_those_of_the_training_folds(built):
    data = dataset_dir.load(str(built[1]), 1)
    pixels = [
        images.decode_stored(records.parse_record(record).encoded, "png", 24, 1)
        for shard in data.split_shards("train")
        for record in tfrecord.read_records(shard.path)
    ]
    assert len(pixels) == data.num_examples("train")
    assert data.mean[0] == pytest.approx(np.mean(pixels), abs=1e-5)
    assert data.std[0] == pytest.approx(np.std(pixels), abs=1e-5)


def test_verify_finds_a_group_that_was_moved_to_another_fold(built, tmp_path):
    output = shutil.copytree(built[1], tmp_path / "out")
    manifest = json.loads((output / "manifest.json").read_text())
    by_fold = {}
    for entry in manifest["shards"]:
        by_fold.setdefault(entry["split"], entry)
    shards = [output / by_fold[fold]["file"] for fold in ("fold0", "fold1")]
    moved, kept = (list(tfrecord.read_records(str(path))) for path in shards)
    copied = dataclasses.replace(records.parse_record(moved[0]), filename="moved.png")
    tfrecord.write_records(str(shards[1]), [*kept, records.serialize_example(copied)])
    faults = verify.verify(str(output)).faults
    assert any("its group is in fold1 and" in fault and "in fold0" in fault for fault in faults)


def test_appended_copies_follow_their_fold(built, tmp_path):
    root, output, manifest = built
    output = shutil.copytree(output, tmp_path / "out")
    new = shutil.copytree(root, tmp_path / "in")
    first = sorted(CLASSES)[0]
    shutil.copy(next((new / first).rglob("*.png")), new / first / "images" / "again.png")
    after = add(find(new), output, FOLDS).manifest
    assert after["config"]["folds"] == 3
    in_groups = collections.defaultdict(set)
    for row in rows(output):
        in_groups[row["group"]].add(row["split"])
    assert max(map(len, in_groups.values())) == 1
    before = sum(part["count"] for part in manifest["pixels"]["by_fold"].values())
    assert sum(p["count"] for p in after["pixels"]["by_fold"].values()) == before + 24 * 24
    assert verify.verify(str(output)).faults == []
    with pytest.raises(UserError, match="--folds: 3 -> 0"):
        add(find(new), output, CONFIG)


def test_a_list_can_give_folds_but_not_splits(built, tmp_path):
    root, _, _ = built
    files = list(find(root).listed)
    table = tmp_path / "list.csv"

    def read(split):
        lines = [f"{f.filename},{sorted(CLASSES)[f.label]},{split}\n" for f in files[:4]]
        table.write_text("path,label,split\n" + "".join(lines) + "x.png,Other,\n")
        names = FOLDS.split_names
        return input_tables.read_input_csv(str(table), str(root), "", split_names=names)

    assert [f.split for f in read("fold2").listed if f.filename != "x.png"] == [2] * 4
    with pytest.raises(UserError, match="'train' is not one of fold0, fold1, fold2"):
        read("train")


def test_settings_that_do_not_fit_folds_are_refused():
    with pytest.raises(UserError, match="--folds=2: at least 3"):
        BuildConfig(folds=2)
    for more in (
        {"test_fraction": 0.3},
        {"validation_fraction": 0.3},
        {"balance_splits": ("test",)},
    ):
        with pytest.raises(UserError, match=f"--{next(iter(more))} .*--folds=3"):
            BuildConfig(folds=3, **more)
    built_before = BuildConfig().to_json()
    del built_before["folds"]
    assert BuildConfig().differences(built_before) == []


def test_a_class_that_is_too_small_for_the_folds_names_the_flag(tmp_path):
    root = write_radiographs(tmp_path / "in", CLASSES)
    with pytest.raises(UserError, match="change --folds or --seed"):
        build(find(root), tmp_path / "out", dataclasses.replace(CONFIG, folds=20))
