"""--append: what is there stays, new images join, copies and patients follow, kills do no harm."""

import collections
import csv
import dataclasses
import shutil

import pytest

from beam_pipelines import append, job
from beam_pipelines.dataset import commit
from beam_pipelines.inputs import input_tables, sources
from beam_pipelines.settings import beam_flags
from beam_pipelines.settings.config import BuildConfig
from cxr_tfrecords import dataset_dir, files, records, stats, tfrecord, verify
from cxr_tfrecords.errors import UserError
from cxr_tfrecords.statistics import pictures
from tests.beam_pipelines.radiographs import CLASSES, write_radiographs
from tests.beam_pipelines.test_build import digests

CONFIG = BuildConfig(near_distance=-1, image_size=24, shard_size=3)
OPTIONS = beam_flags.parse([], [])


@pytest.fixture
def first(tmp_path):
    """Half of the radiographs, and all of them in `all`."""
    root = write_radiographs(tmp_path / "all", {name: 2 * n for name, n in CLASSES.items()})
    for path in root.rglob("*.png"):
        if int(path.stem.rpartition("-")[2]) % 2:
            half = tmp_path / "first" / path.relative_to(root)
            half.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, half)
    return tmp_path / "first"


def build(found, output, config=CONFIG):
    return job.build(
        found, str(output), config, OPTIONS, overwrite=False, resume=True, max_bad_fraction=0.5
    ).manifest


def find(root):
    return sources.find_sources(str(root), known_classes=tuple(sorted(CLASSES)))


def add(found, output, config=CONFIG, **how):
    return append.append(found, str(output), config, OPTIONS, max_bad_fraction=0.5, **how)


@pytest.fixture
def no_page(monkeypatch):
    """Drawing the statistics page takes longer than these builds."""
    monkeypatch.setattr(stats, "refresh", lambda *_: None)


def read_sources(output):
    with open(output / dataset_dir.SOURCES, newline="") as file:
        return {row["filename"]: row for row in csv.DictReader(file)}


def record_bytes(output):
    """File name of each image -> its record, whatever its shard is called."""
    return {
        records.parse_record(record).filename: record
        for shard in dataset_dir.load(str(output)).shards
        for record in tfrecord.read_records(shard.path)
    }


@pytest.mark.usefixtures("no_page")
@pytest.mark.parametrize("method", ["stratified", pytest.param("hash", marks=pytest.mark.slow)])
def test_old_images_stay_and_new_ones_join(first, tmp_path, method):
    config = dataclasses.replace(CONFIG, split=method)
    out = tmp_path / "out"
    before = build(find(first), out, config)
    old_rows, old_records = read_sources(out), record_bytes(out)
    result = add(find(tmp_path / "all"), out, config)
    assert result.inspected == 40
    rows, own = read_sources(out), record_bytes(out)
    assert len(rows) == len(own) == 80
    for name, row in old_rows.items():
        assert (rows[name]["split"], rows[name]["group"]) == (row["split"], row["group"])
        assert own[name] == old_records[name]
    assert verify.verify(str(out)).faults == []
    manifest = dataset_dir.read_manifest(str(out))
    assert manifest["fingerprint"] != before["fingerprint"]
    assert manifest["sources"]["found"] == manifest["sources"]["written"] == 80
    whole = build(find(tmp_path / "all"), tmp_path / "whole", config)
    for key in ("pixels", "statistics"):
        if key == "statistics" or method == "hash":  # the mean is of the training split
            assert manifest[key] == whole[key]
    if method == "stratified":
        assert manifest["counts"]["test"] == whole["counts"]["test"]
    else:  # adding images moves none
        again = read_sources(tmp_path / "whole")
        assert {n: r["split"] for n, r in again.items()} == {n: r["split"] for n, r in rows.items()}


@pytest.mark.slow
def test_the_page_shows_dropped_copies_of_before_and_now(first, tmp_path):
    config = dataclasses.replace(CONFIG, dedup="drop")
    out, copies = tmp_path / "out", ("COVID/images/COVID-41.png", "COVID/images/COVID-43.png")
    shutil.copy(first / "COVID/images/COVID-1.png", first / copies[0])
    build(find(first), out, config)
    assert f'alt="{copies[0]}"' in (out / "stats.html").read_text()
    for name in copies:
        shutil.copy(first / "COVID/images/COVID-1.png", tmp_path / "all" / name)
    add(find(tmp_path / "all"), out, config)
    rows, page = read_sources(out), (out / "stats.html").read_text()
    for name in copies:
        assert not rows[name]["shard"]
        assert f'alt="{name}"' in page
    assert "no image" not in page
    made = stats.make(str(out), dataset_dir.read_manifest(str(out)))
    assert made.page == page  # the data set alone is enough to make it again


@pytest.mark.slow
def test_damaged_pictures_of_dropped_copies_stop_no_append(first, tmp_path):
    config = dataclasses.replace(CONFIG, dedup="drop")
    out, name = tmp_path / "out", "COVID/images/COVID-41.png"
    for root in (first, tmp_path / "all"):
        shutil.copy(first / "COVID/images/COVID-1.png", root / name)
    build(find(first), out, config)
    (out / dataset_dir.LEFT_OUT).write_bytes(b"damaged")
    with pytest.raises(UserError, match=r"left_out\.tfrecord cannot be read .*: remove it"):
        stats.make(str(out), dataset_dir.read_manifest(str(out)))
    assert add(find(tmp_path / "all"), out, config).manifest["sources"]["found"] == 81
    assert verify.verify(str(out)).faults == []


@pytest.mark.usefixtures("no_page")
def test_tfds_reads_what_was_appended(first, tmp_path):
    import tensorflow_datasets as tfds

    build(find(first), tmp_path / "out")
    (tmp_path / "out" / stats.PAGE).write_text("of fewer images")
    add(find(tmp_path / "all"), tmp_path / "out", page=False)
    assert not (tmp_path / "out" / stats.PAGE).exists()
    data = dataset_dir.load(str(tmp_path / "out"))
    builder = tfds.builder_from_directory(data.path)
    for label, slug in enumerate(data.class_slugs):
        read = builder.as_dataset(split=f"train_{slug}")
        assert len(list(read)) == data.counts["train"][label]


@pytest.mark.usefixtures("no_page")
def test_known_files_are_passed_over_and_changed_ones_refused(first, tmp_path):
    out = tmp_path / "out"
    bad = first / "COVID" / "images" / "bad.png"
    bad.write_bytes(b"no image")
    build(find(first), out)
    before = digests(out)
    assert add(find(first), out).inspected == 0
    assert digests(out) == before
    image = first / "COVID" / "images" / "COVID-1.png"
    shutil.copy(first / "COVID" / "images" / "COVID-3.png", bad)  # mended
    assert add(find(first), out).inspected == 1
    assert read_sources(out)["COVID/images/bad.png"]["reason"] == ""
    assert dataset_dir.read_manifest(str(out))["rejected"] == []
    image.write_bytes(image.read_bytes() + b" ")
    before = digests(out)
    with pytest.raises(UserError, match=r"COVID-1\.png is in the data set already, with other"):
        add(find(first), out)
    assert digests(out) == before


@pytest.mark.usefixtures("no_page")
def test_copies_and_patients_follow_the_old_image(first, tmp_path):
    out, new = tmp_path / "out", tmp_path / "new" / "COVID" / "images"
    old = sorted(str(p.relative_to(first)) for p in first.rglob("*.png"))
    patients = tmp_path / "patients.csv"
    lines = [f"{name},p{number}" for number, name in enumerate(old)]
    patients.write_text("\n".join(["path,patient_id", *lines]))
    build(input_tables.group_by_csv(find(first), str(patients), "patient_id", ""), out)
    rows = read_sources(out)
    by_split = collections.defaultdict(list)
    for name, row in rows.items():
        by_split[row["split"]].append(name)
    new.mkdir(parents=True)
    train, test = by_split["train"][0], by_split["test"][0]
    shutil.copy(first / test, new / "copy.png")
    spare = sorted(set((tmp_path / "all").rglob("*.png")) - {tmp_path / "all" / n for n in old})
    shutil.copy(spare[0], new / "visit.png")  # another image of the test image's patient
    shutil.copy(first / train, new / "torn.png")  # … a train image, of the test image's patient
    lines = [f"COVID/images/{name}.png,p{old.index(test)}" for name in ("visit", "torn")]
    patients.write_text("\n".join(["path,patient_id", *lines]))
    add(input_tables.group_by_csv(find(tmp_path / "new"), str(patients), "patient_id", ""), out)
    after = read_sources(out)
    for name in ("copy", "visit", "torn"):  # what ties two splits takes its neighbours along
        assert after[f"COVID/images/{name}.png"]["reason"].startswith("it ties images of two")
    for name, row in rows.items():
        assert after[name]["split"] == row["split"]
    assert verify.verify(str(out)).faults == []
    assert dataset_dir.read_manifest(str(out))["split_proof"]["groups_in_two_splits"] == 0


@pytest.mark.usefixtures("no_page")
def test_a_copy_of_a_test_image_goes_to_the_test_split(first, tmp_path):
    out, new = tmp_path / "out", tmp_path / "new" / "COVID" / "images"
    build(find(first), out)
    new.mkdir(parents=True)
    rows = read_sources(out)
    test = [name for name, row in rows.items() if row["split"] == "test"]
    for number, name in enumerate(test):
        shutil.copy(first / name, new / f"copy{number}.png")
    add(find(tmp_path / "new"), out)
    after = read_sources(out)
    for number, name in enumerate(test):
        copy = after[f"COVID/images/copy{number}.png"]
        assert (copy["split"], copy["group"]) == ("test", rows[name]["group"])
        assert after[name]["tied_by"] == copy["tied_by"] == "pixels"


class Killed(BaseException):
    pass


@pytest.mark.slow
def test_a_commit_killed_anywhere_is_finished_by_the_next_build(first, tmp_path, monkeypatch):
    # Plots would be drawn a hundred times here.
    monkeypatch.setattr(pictures, "draw", lambda *_: {"bytes": b"", "intensity": b""})
    config = dataclasses.replace(CONFIG, shard_size=100)
    build(find(first), tmp_path / "old", config)
    untroubled = tmp_path / "untroubled"
    shutil.copytree(tmp_path / "old", untroubled)
    add(find(tmp_path / "all"), untroubled, config)
    expected, real = digests(untroubled), files.rename

    def killing(after):
        left = [after]

        def rename(source, target):
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            real(source, target)

        return rename

    moments, out = 0, tmp_path / "out"
    while True:
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(tmp_path / "old", out)
        monkeypatch.setattr(files, "rename", killing(moments))
        try:
            add(find(tmp_path / "all"), out, config)
            break
        except (Killed, RuntimeError):  # Beam wraps what a worker raises
            moments += 5
        monkeypatch.setattr(files, "rename", real)
        decided = (out / ".build" / "commit.json").exists()
        if not decided:  # nothing has changed yet
            assert verify.verify(str(out)).faults == []
        add(find(tmp_path / "all"), out, config)
        assert digests(out) == expected, moments
    assert moments > 30


@pytest.mark.usefixtures("no_page")
def test_a_plain_build_finishes_a_killed_commit_before_it_refuses(first, tmp_path, monkeypatch):
    out = tmp_path / "out"
    build(find(first), out)
    monkeypatch.setattr(commit, "finish_interrupted", lambda *_: None)
    add(find(tmp_path / "all"), out)
    monkeypatch.undo()
    assert len(read_sources(out)) == 40
    with pytest.raises(UserError, match="images were appended since: --append adds more"):
        build(find(first), out)
    assert len(read_sources(out)) == 80
    assert verify.verify(str(out)).faults == []


@pytest.mark.usefixtures("no_page")
def test_other_settings_classes_and_balanced_splits_are_refused(first, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(UserError, match=r"is not a data set .*--output_dir of a build$"):
        add(find(first), out)
    build(find(first), out)
    with pytest.raises(UserError, match="--image_size: 24 -> 32"):
        add(find(first), out, dataclasses.replace(CONFIG, image_size=32))
    write_radiographs(tmp_path / "other", {"Fracture": 3})
    with pytest.raises(UserError, match="class 'Fracture' is not one of the data set's"):
        find(tmp_path / "other")
    balanced = dataclasses.replace(CONFIG, balance_splits=("test",))
    build(find(first), tmp_path / "balanced", balanced)
    with pytest.raises(UserError, match="cannot keep splits balanced"):
        add(find(tmp_path / "all"), tmp_path / "balanced", balanced)
