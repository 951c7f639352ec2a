"""The statistics page: true to the data set, the same each time, and it warns of shortcuts."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from beam_pipelines import append, job
from beam_pipelines.inputs import sources
from beam_pipelines.settings import beam_flags
from beam_pipelines.settings.config import BuildConfig
from cxr_tfrecords import dataset_dir, files, stats, tfrecord, verify
from cxr_tfrecords.errors import UserError
from cxr_tfrecords.statistics import shortcut
from tests.beam_pipelines.radiographs import (
    CLASSES,
    add_bad_files,
    add_copies,
    write_radiographs,
)
from tests.helpers import write_dataset

CONFIG = BuildConfig(near_distance=-1, image_size=24, shard_size=5, max_pixels=100_000)
OPTIONS = beam_flags.parse([], [])
SIZES = {name: 2 * count for name, count in CLASSES.items()}


def build(root, out, config=CONFIG, classes=()):
    found = sources.find_sources(str(root), known_classes=classes)
    settings = {"overwrite": False, "resume": True, "max_bad_fraction": 0.5}
    return job.build(found, str(out), config, OPTIONS, **settings).manifest


def pages(out):
    return [(out / name).read_bytes() for name in (stats.NUMBERS, stats.PAGE)]


def again(out):
    stats.write(str(out), stats.make(str(out), dataset_dir.read_manifest(str(out))))


def read_numbers(out):
    return json.loads((out / stats.NUMBERS).read_text())


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A data set with copies, a label conflict and rejected files; not to be changed."""
    folder = tmp_path_factory.mktemp("stats")
    root = write_radiographs(folder / "in", SIZES)
    add_copies(root)
    add_bad_files(root / "Normal" / "images")
    build(root, folder / "out")
    return folder / "out"


@pytest.fixture
def out(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "out")


def test_figures_are_those_of_the_manifest(finished):
    manifest, numbers = dataset_dir.read_manifest(str(finished)), read_numbers(finished)
    for key in ("counts", "class_names", "fingerprint", "prevalence", "split_proof"):
        assert numbers[key] == manifest[key]
    assert numbers["rejected"]["files"] == manifest["sources"]["rejected"] == 7
    assert len(numbers["rejected"]["first"]) == 7
    for name in CLASSES:
        written = sum(manifest["counts"][split][name] for split in manifest["counts"])
        one = numbers["files"][name]
        assert written == one["images"] == sum(one["formats"].values())
        assert sum(one["modes"].values()) == sum(count for *_, count in one["sizes"]) == written
        assert (
            numbers["intensity"][name]["histogram"]
            == (manifest["statistics"]["intensity_histograms"][name])
        )
        assert len(numbers["samples"][name]) == 6
    assert sum(numbers["shares"]["train"].values()) == pytest.approx(1, abs=1e-3)


def test_copies_are_shown_and_label_conflicts_come_first(finished):
    found, page = read_numbers(finished)["duplicates"], (finished / stats.PAGE).read_text()
    assert [group["label_conflict"] for group in found["shown"]] == [True, False, False]
    conflict = {(one["class"], one["filename"]) for one in found["shown"][0]["shown"]}
    assert conflict == {
        ("COVID", "COVID/images/COVID-2.png"),
        ("Normal", "Normal/images/conflict.png"),
    }
    for group in found["shown"]:
        assert len({one["split"] for one in group["shown"]}) == 1
        for one in group["shown"]:
            assert f'alt="{one["filename"]}"' in page
    assert page.index("Label conflict") < page.index("COVID/images/copy.png")


def test_the_page_is_whole_and_the_same_each_time(out):
    first = pages(out)
    again(out)
    assert pages(out) == first
    assert verify.verify(str(out)).faults == []
    page = first[1].decode()
    assert "<script" not in page
    assert "http" not in page  # nothing from outside
    assert str(out.parent) not in page + first[0].decode()


@pytest.mark.slow
def test_an_append_and_a_rebuild_replace_the_page(tmp_path):
    root = write_radiographs(tmp_path / "in", CLASSES)
    build(root, tmp_path / "out")
    before = pages(tmp_path / "out")
    more = write_radiographs(tmp_path / "more", SIZES)
    found = sources.find_sources(str(more), known_classes=tuple(sorted(CLASSES)))
    append.append(found, str(tmp_path / "out"), CONFIG, OPTIONS, max_bad_fraction=0.5)
    after = pages(tmp_path / "out")
    assert after[0] != before[0]
    assert sum(read_numbers(tmp_path / "out")["counts"]["train"].values()) > 30
    again(tmp_path / "out")
    assert pages(tmp_path / "out") == after
    (tmp_path / "out" / stats.PAGE).write_text("of long ago")
    again(tmp_path / "out")
    assert pages(tmp_path / "out") == after


def test_a_planted_shortcut_is_warned_of(tmp_path, finished):
    assert read_numbers(finished)["shortcut"]["verdict"] == shortcut.NONE
    assert 'class="box green"' in (finished / stats.PAGE).read_text()
    assert len(stats.describe(str(finished))) == 1
    root = write_radiographs(tmp_path / "in", SIZES)
    for path in (root / "COVID" / "images").glob("*.png"):
        Image.open(path).save(path.with_suffix(".jpg"))
        path.unlink()
    out = tmp_path / "out"
    build(root, out)
    found = read_numbers(out)["shortcut"]
    assert found["verdict"] == shortcut.SHORTCUT
    # COVID is known by its format; the other two remain a guess.
    assert found["single_features"]["format"]["balanced_accuracy"] == pytest.approx(2 / 3, abs=0.05)
    assert not found["single_features"]["height"]["above_chance"]
    assert not found["file_size_only"]
    page = (out / stats.PAGE).read_text()
    assert 'class="box red"' in page
    assert "A model can learn the scanner instead of the disease" in page
    warning, where = stats.describe(str(out))
    assert warning.startswith("warning: file format and size alone predict the class")
    assert where.endswith(f"{out}/stats.html")


def test_file_size_alone_is_a_weaker_warning(tmp_path):
    root = write_radiographs(tmp_path / "in", SIZES)
    for path in (root / "COVID" / "images").glob("*.png"):
        Image.open(path).save(path, compress_level=0)
    build(root, tmp_path / "out")
    assert read_numbers(tmp_path / "out")["shortcut"]["file_size_only"]
    assert stats.describe(str(tmp_path / "out"))[0].startswith("warning: file size alone predicts")
    assert 'class="box amber"' in (tmp_path / "out" / stats.PAGE).read_text()


def plain_features(rows, seed):
    generator = np.random.default_rng(seed)
    features = {name: generator.integers(0, 50, rows) for name in shortcut.FEATURES}
    return features, generator.integers(0, 3, rows)


@pytest.mark.slow
def test_luck_is_no_shortcut():
    verdicts = []
    for seed in range(25):
        features, labels = plain_features(60, seed)
        verdicts.append(shortcut.measure(features, labels, np.arange(60), "abc")["verdict"])
    assert verdicts.count(shortcut.SHORTCUT) <= 1


def test_images_of_one_patient_are_not_told_apart_by_heart():
    features, labels = plain_features(40, 0)
    features["file_size"] = np.random.default_rng(1).random(40)  # tells the patient
    rows = np.repeat(np.arange(40), 8)
    many = {name: values[rows] for name, values in features.items()}
    alone = shortcut.measure(many, labels[rows], np.arange(320), "abc")
    united = shortcut.measure(many, labels[rows], rows, "abc")
    assert (alone["verdict"], united["verdict"]) == (shortcut.SHORTCUT, shortcut.NONE)


def test_what_cannot_be_tested_is_said():
    features, labels = plain_features(30, 0)
    same = {name: np.ones(30) for name in features}
    groups = np.arange(30)
    assert shortcut.measure(same, labels, groups, "abc")["verdict"] == shortcut.ALIKE
    few = shortcut.measure(features, labels, np.minimum(groups, 6), "abc")
    assert few["verdict"] == shortcut.NOT_TESTED
    assert "independent images" in few["reason"]
    assert shortcut.measure(features, labels * 0, groups, "a")["verdict"] == shortcut.NOT_TESTED


def test_rows_are_drawn_evenly_and_no_more_than_allowed():
    labels = np.repeat([0, 1, -1], [50_000, 300, 1000])
    rows = shortcut.choose_rows(labels, 2)
    assert np.bincount(labels[rows]).tolist() == [shortcut.MAX_ROWS // 2, 300]
    assert (np.diff(rows) > 0).all()


def test_names_are_escaped(tmp_path):
    evil = "<script>alert('x')&"
    root = write_radiographs(tmp_path / "in", {evil: 12, "$a_b$": 12, "_hidden": 12})
    shutil.copy(next((root / evil / "images").iterdir()), root / "$a_b$" / "images" / "<b>.png")
    (root / evil / "images" / '"><img src=x>.png').write_bytes(b"no image")
    build(root, tmp_path / "out")
    page = (tmp_path / "out" / stats.PAGE).read_text()
    for part in ("<script", "<b>", "src=x>", 'alt=""'):
        assert part not in page
    assert "&lt;script&gt;alert(&#x27;x&#x27;)&amp;" in page
    assert "&lt;b&gt;.png" in page


def test_only_what_is_shown_is_read(out, monkeypatch):
    read, real = {}, tfrecord.read_records

    def counting(path):
        for record in real(path):
            read[path] = read.get(path, 0) + 1
            yield record

    monkeypatch.setattr(tfrecord, "read_records", counting)
    manifest = dataset_dir.read_manifest(str(out))
    stats.make(str(out), manifest)
    assert len(read) < len(manifest["shards"])
    numbers = read_numbers(out)
    shown = {one["shard"] for group in numbers["duplicates"]["shown"] for one in group["shown"]}
    for path, count in read.items():
        whole = next(e for e in manifest["shards"] if e["file"] == files.base_name(path))
        assert files.base_name(path) in shown or count <= 6
        assert count <= whole["num_examples"]


def replacing(old, new):
    return lambda file: file.write_text(file.read_text().replace(old, new))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda file: file.unlink(), r"sources\.csv is missing: build again"),
        (lambda file: file.write_bytes(b""), r"sources\.csv cannot be read \(Empty CSV"),
        (lambda file: file.write_bytes(file.read_bytes()[:3000]), r"sources\.csv"),
        (
            lambda file: file.write_text("\n".join(file.read_text().split("\n")[:-3]) + "\n"),
            "does not list the images that manifest.json counts",
        ),
        (replacing("tied_by", "tied"), "cannot be read .*tied_by"),
        (replacing(",pixels", ",pixel"), "changed: tied_by has 'pixel.*', not one of pixels, near"),
    ],
)
def test_a_damaged_source_list_is_one_line(out, damage, message):
    damage(out / dataset_dir.SOURCES)
    with pytest.raises(UserError, match=message) as caught:
        again(out)
    assert "\n" not in str(caught.value)


def test_other_hopeless_directories(out, tmp_path):
    old = write_dataset(tmp_path / "old")
    with pytest.raises(UserError, match=r"sources\.csv is missing"):
        again(tmp_path / "old")
    shard = out / dataset_dir.read_manifest(str(out))["shards"][0]["file"]
    shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(UserError, match=r"cannot be read .*ends inside"):
        again(out)
    assert stats.describe(old.path)[0].startswith("no stats.html: `python -m cxr_tfrecords.stats")


def test_the_command(out):
    first = pages(out)
    stats.remove(str(out))
    command = [sys.executable, "-m", "cxr_tfrecords.stats"]
    good = subprocess.run([*command, str(out)], capture_output=True, text=True, check=False)
    assert good.returncode == 0, good.stderr
    assert good.stdout.splitlines()[-1].endswith("stats.html")
    assert pages(out) == first
    stats.remove(str(out))
    named = [*command, f"--data_dir={out}"]
    subprocess.run(named, capture_output=True, check=True)
    assert pages(out) == first
    (out / dataset_dir.SOURCES).unlink()
    for path, message in [(str(out), "sources.csv is missing"), ("nowhere", "does not exist")]:
        bad = subprocess.run([*command, path], capture_output=True, text=True, check=False)
        assert bad.returncode == 2
        assert bad.stderr.startswith("error: ")
        assert message in bad.stderr


def test_a_store_gets_the_same_page(out):
    import fsspec

    store = fsspec.filesystem("memory")
    store.put(str(out), "/stats-bucket/set", recursive=True)
    first, path = pages(out), "memory://stats-bucket/set"
    store.rm(f"/stats-bucket/set/{stats.PAGE}")
    stats.refresh(path, dataset_dir.read_manifest(path))
    assert files.read_bytes(f"{path}/{stats.PAGE}") == first[1]
    assert stats.describe(path)[-1].endswith(f"{path}/stats.html")
    store.rm("/stats-bucket", recursive=True)
