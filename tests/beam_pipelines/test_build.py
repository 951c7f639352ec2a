"""The build through its library call: what is written, kept, refused and resumed."""

import csv
import dataclasses
import hashlib
import json
import os
import pathlib
import shutil

import pytest
import tensorflow as tf

from beam_pipelines import job
from beam_pipelines.inputs import sources
from beam_pipelines.settings import beam_flags
from beam_pipelines.settings.config import BuildConfig
from cxr_tfrecords import dataset_dir, records, verify
from cxr_tfrecords.errors import UserError
from tests.beam_pipelines.radiographs import add_bad_files, add_copies, write_radiographs

CONFIG = BuildConfig(near_distance=-1, image_size=24, num_shards=2, max_pixels=100_000)
LOCAL = ["--runner=DirectRunner"]


def build(root, output, config=CONFIG, beam=(), **options):
    settings = {"overwrite": False, "resume": True, "max_bad_fraction": 0.5, "threads": 1}
    settings["page"] = False  # drawing it takes longer than these builds: test_statistics.py
    return job.build(
        sources.find_sources(str(root)),
        str(output),
        config,
        beam_flags.parse([*LOCAL, *beam], []),
        **{**settings, **options},
    )


def digests(folder: pathlib.Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def radiographs(tmp_path):
    return write_radiographs(tmp_path / "in")


def test_every_file_is_accounted_for(radiographs, tmp_path):
    add_copies(radiographs)
    expected = add_bad_files(radiographs / "Normal" / "images")
    manifest = build(radiographs, tmp_path / "out").manifest
    found = {os.path.basename(one["file"]): one["reason"] for one in manifest["rejected"]}
    assert found.keys() == expected.keys()
    for name, reason in expected.items():
        assert reason in found[name]
    assert manifest["sources"]["found"] == 50
    assert manifest["sources"]["written"] == 43
    assert sum(sum(c.values()) for c in manifest["counts"].values()) == 43
    with open(tmp_path / "out" / dataset_dir.SOURCES) as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 50
    assert all(bool(row["split"]) != bool(row["reason"]) for row in rows)
    assert verify.verify(str(tmp_path / "out")).faults == []


def test_copies_share_a_split_and_conflicts_are_named(radiographs, tmp_path):
    add_copies(radiographs)
    for seed in range(2):
        config = BuildConfig(near_distance=-1, image_size=24, seed=seed)
        manifest = build(radiographs, tmp_path / f"out{seed}", config).manifest
        groups = manifest["duplicates"]["groups"]
        assert sorted(len(own) for own in groups.values()) == [2, 2, 2]
        conflicts = [groups[key] for key in manifest["duplicates"]["label_conflicts"]]
        assert conflicts == [["COVID/images/COVID-2.png", "Normal/images/conflict.png"]]
        with open(tmp_path / f"out{seed}" / dataset_dir.SOURCES) as file:
            split = {row["filename"]: row["split"] for row in csv.DictReader(file)}
        for own in groups.values():
            assert len({split[name] for name in own}) == 1
        assert manifest["split_proof"]["groups_in_two_splits"] == 0


def test_pixels_and_labels_are_those_of_the_source(radiographs, tmp_path):
    from cxr_tfrecords import images

    build(radiographs, tmp_path / "out")
    data = dataset_dir.load(str(tmp_path / "out"))
    assert data.class_names == ("COVID", "Normal", "Viral Pneumonia")
    seen = 0
    for shard in data.shards:
        for serialized in tf.data.TFRecordDataset(shard.path):
            record = records.parse_record(serialized.numpy())
            source = (radiographs / record.filename).read_bytes()
            assert record.filename.split("/")[0] == data.class_names[shard.label]
            assert record.sha256 == hashlib.sha256(source).hexdigest()
            pixels = images.resize(images.to_channels(images.decode(source).pixels, 1), 24)
            stored = images.decode_stored(record.encoded, "png", 24, 1)
            assert (stored == pixels).all()
            seen += 1
    assert seen == 40


def test_mean_and_deviation_are_those_of_the_training_pixels(radiographs, tmp_path):
    import numpy as np

    build(
        radiographs,
        tmp_path / "out",
        BuildConfig(near_distance=-1, image_size=24, channels=3, encoding="raw"),
    )
    data = dataset_dir.load(str(tmp_path / "out"))
    pixels = np.stack(
        [
            records.parse_example(serialized, data)["image"].numpy()
            for shard in data.split_shards("train")
            for serialized in tf.data.TFRecordDataset(shard.path)
        ]
    ).astype(np.float64)
    np.testing.assert_allclose(data.mean, pixels.mean((0, 1, 2)), atol=1e-5)
    np.testing.assert_allclose(data.std, pixels.std((0, 1, 2)), atol=1e-5)


def test_same_bytes_whatever_threads_runner_mode_and_folder(radiographs, tmp_path):
    add_copies(radiographs)
    build(radiographs, tmp_path / "one")
    first = digests(tmp_path / "one")
    assert first
    build(radiographs, tmp_path / "two", threads=4)
    assert digests(tmp_path / "two") == first
    moved = radiographs.rename(tmp_path / "elsewhere")
    beam = ("--direct_running_mode=multi_threading", "--direct_num_workers=2")
    build(moved, tmp_path / "three", beam=beam)
    assert digests(tmp_path / "three") == first


def test_a_second_run_writes_nothing(radiographs, tmp_path):
    build(radiographs, tmp_path / "out")
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*")}
    again = build(radiographs, tmp_path / "out")
    assert (again.inspected, again.written_shards) == (0, 0)
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*")} == before


def test_only_missing_and_damaged_shards_are_written_again(radiographs, tmp_path):
    first = build(radiographs, tmp_path / "out")
    before = digests(tmp_path / "out")
    shards = sorted((tmp_path / "out").glob("*.tfrecord-*"))
    shards[0].unlink()
    os.truncate(shards[1], 10)
    untouched = {p: p.stat().st_mtime_ns for p in shards[2:]}
    again = build(radiographs, tmp_path / "out")
    assert again.written_shards == 2
    assert {p: p.stat().st_mtime_ns for p in shards[2:]} == untouched
    assert digests(tmp_path / "out") == before
    assert again.manifest == first.manifest


def test_an_interrupted_build_goes_on(radiographs, tmp_path, monkeypatch):
    from beam_pipelines.shards import write_shards

    build(radiographs, tmp_path / "whole")
    written = []
    real = write_shards.tfrecord.write_records

    def fails_on_the_fifth(path, serialized):
        if len(written) == 4:
            raise OSError(28, "No space left on device")
        written.append(path)
        return real(path, serialized)

    monkeypatch.setattr(write_shards.tfrecord, "write_records", fails_on_the_fifth)
    with pytest.raises(UserError, match="No space left on device"):
        build(radiographs, tmp_path / "out")
    monkeypatch.undo()
    assert not (tmp_path / "out" / "manifest.json").exists()
    result = build(radiographs, tmp_path / "out")
    assert (result.inspected, result.written_shards) == (0, 18 - 4)
    assert digests(tmp_path / "out") == digests(tmp_path / "whole")


def test_what_a_killed_build_left_half_written_is_removed(radiographs, tmp_path):
    half = tmp_path / "out" / "cxr-train_covid.tfrecord-00000-of-00002.tmp-99"
    for _ in range(2):  # before a first build, and beside a finished one
        half.parent.mkdir(exist_ok=True)
        half.write_bytes(b"half a shard")
        build(radiographs, tmp_path / "out")
        assert not half.exists()
        assert verify.verify(str(tmp_path / "out")).faults == []


def test_a_full_disk_in_any_process_is_one_line(radiographs, tmp_path, monkeypatch):
    from beam_pipelines import job
    from beam_pipelines.shards import parts

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    for module, name in ((parts, "write_part"), (job, "write_metadata")):
        monkeypatch.setattr(module, name, full)
        with pytest.raises(UserError, match=r"cannot write .*No space left on device"):
            build(radiographs, tmp_path / "out")
        monkeypatch.undo()
    assert build(radiographs, tmp_path / "out").written_shards == 0


def test_another_configuration_is_refused_with_the_difference(radiographs, tmp_path):
    build(radiographs, tmp_path / "out")
    before = digests(tmp_path / "out")
    other = BuildConfig(near_distance=-1, image_size=32, num_shards=2, max_pixels=100_000)
    with pytest.raises(UserError, match="--image_size: 24 -> 32"):
        build(radiographs, tmp_path / "out", other)
    with pytest.raises(UserError, match="--resume goes on"):
        build(radiographs, tmp_path / "out", resume=False)
    assert digests(tmp_path / "out") == before
    replaced = build(radiographs, tmp_path / "out", other, overwrite=True)
    assert replaced.manifest["image"]["size"] == 32
    assert verify.verify(str(tmp_path / "out")).faults == []


def test_a_failed_overwrite_keeps_the_old_build(radiographs, tmp_path):
    build(radiographs, tmp_path / "out")
    before = digests(tmp_path / "out")
    add_bad_files(radiographs / "COVID" / "images")
    with pytest.raises(UserError, match="more than --max_bad_fraction"):
        build(radiographs, tmp_path / "out", overwrite=True, max_bad_fraction=0.01)
    after = {k: v for k, v in digests(tmp_path / "out").items() if not k.startswith(".build")}
    assert after == before


def test_changed_sources_are_refused(radiographs, tmp_path):
    build(radiographs, tmp_path / "out")
    image = radiographs / "COVID" / "images" / "COVID-3.png"
    kept = image.read_bytes()
    image.unlink()
    with pytest.raises(UserError, match="are not those it was made of"):
        build(radiographs, tmp_path / "out")
    swapped = bytearray(kept)
    swapped[-1] ^= 1  # same size, other bytes
    image.write_bytes(bytes(swapped))
    with pytest.raises(UserError, match="have changed since"):
        build(radiographs, tmp_path / "out")
    image.write_bytes(kept)  # newer, but the same
    assert build(radiographs, tmp_path / "out").written_shards == 0


def test_foreign_files_are_never_mixed_with(radiographs, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.docx").write_text("precious")
    for overwrite in (False, True):
        with pytest.raises(UserError, match=r"thesis\.docx"):
            build(radiographs, tmp_path / "out", overwrite=overwrite)
    assert os.listdir(tmp_path / "out") == ["thesis.docx"]


def test_a_class_without_an_image_in_a_split_is_an_error(tmp_path):
    root = write_radiographs(tmp_path / "in", {"COVID": 10, "Normal": 10, "Rare": 1})
    with pytest.raises(UserError, match=r"class 'Rare' has no image in the \w+ split"):
        build(root, tmp_path / "out")
    assert not list((tmp_path / "out").glob("*.tfrecord*"))


def test_a_class_of_copies_says_that_they_are_one_group(tmp_path):
    root = write_radiographs(tmp_path / "in", {"COVID": 10, "Normal": 10, "Same": 1})
    (first,) = (root / "Same" / "images").iterdir()
    for number in range(4):
        shutil.copy(first, first.with_name(f"copy-{number}.png"))
    words = (
        r"\(5 usable of 5 files; its 5 images form 1 group of copies\): .*; no shard was written"
    )
    with pytest.raises(UserError, match=words):
        build(root, tmp_path / "out")


def test_a_class_without_a_usable_file_names_a_reason(tmp_path):
    root = write_radiographs(tmp_path / "in", {"COVID": 6, "Normal": 6})
    bad = [f"{name}/images/{name}-{n}.png" for name in ("COVID", "Normal") for n in range(6)]
    for name in bad[:6]:
        (root / name).write_bytes(b"")
    with pytest.raises(UserError, match=r"leave them out with --max_bad_fraction=0\.5; no shard"):
        build(root, tmp_path / "out", max_bad_fraction=0.4)
    words = r"'COVID': none of its 6 files can be used, such as COVID/images/COVID-0.png \(empty"
    with pytest.raises(UserError, match=words) as caught:
        build(root, tmp_path / "out", max_bad_fraction=1.0)
    assert "--splits" not in str(caught.value)  # no split was given
    for name in bad[6:]:
        (root / name).write_bytes(b"")
    with pytest.raises(UserError, match=r"correct or remove them; no shard was written$"):
        build(root, tmp_path / "out", max_bad_fraction=0.5)
    with pytest.raises(UserError, match="none of its 6 files can be used"):
        build(root, tmp_path / "out", max_bad_fraction=1.0)


def test_other_settings_may_follow_a_build_that_stopped_before_its_first_shard(tmp_path, capsys):
    root = write_radiographs(tmp_path / "in")
    add_bad_files(root / "Normal" / "images")
    out = tmp_path / "out"
    for config, told in (
        (CONFIG, ""),
        (CONFIG, ""),
        (dataclasses.replace(CONFIG, seed=1), "(--seed: 0 -> 1): what it has read is used"),
        (
            dataclasses.replace(CONFIG, seed=1, image_size=32),
            "(--image_size: 24 -> 32): its work is not used",
        ),
    ):
        with pytest.raises(UserError, match="max_bad_fraction"):
            build(root, out, config, max_bad_fraction=0.0)
        line = f"the unfinished build in {out} had other settings {told}\n" if told else ""
        assert capsys.readouterr().out == line
    assert build(root, out, dataclasses.replace(CONFIG, seed=2)).written_shards


def test_layouts_and_what_is_passed_over(tmp_path):
    root = write_radiographs(tmp_path / "in")
    (root / "COVID" / "masks").mkdir()
    (root / "COVID" / "images" / ".DS_Store").write_text("x")
    (root / ".git").mkdir()
    (root / "README.txt").write_text("x")
    nested = sources.find_sources(str(root))
    assert len(nested) == 40
    assert nested.ignored == (".git", "COVID/images/.DS_Store", "COVID/masks")
    for name in ("Thumbs.db", "desktop.ini", "._COVID-0.png", "Icon\r"):
        (root / "Normal" / "images" / name).write_text("x")
    for folder in ("__MACOSX/COVID", ".ipynb_checkpoints", "@eaDir", "$RECYCLE.BIN"):
        (root / folder).mkdir(parents=True)
    (root / "Normal" / "images" / ".ipynb_checkpoints").mkdir()
    assert sources.find_sources(str(root)).listed.digest == nested.listed.digest
    flat = sources.find_sources(str(write_radiographs(tmp_path / "flat", nested=False)))
    assert len(flat) == 40
    assert next(iter(flat.listed)).filename == "COVID/COVID-0.png"


def test_a_data_set_among_the_class_folders_is_no_class(tmp_path):
    root = write_radiographs(tmp_path / "in")
    digest = sources.find_sources(str(root)).listed.digest
    build(root, tmp_path / "out")
    (tmp_path / "out").rename(root / "out")
    (root / "begun" / ".build").mkdir(parents=True)
    again = sources.find_sources(str(root))
    assert again.class_names == ("COVID", "Normal", "Viral Pneumonia")
    assert again.listed.digest == digest
    assert [text.split(" ")[0] for text in again.ignored] == ["begun", "out"]
    with pytest.raises(UserError, match=r"is a data set that a build has made.*trainer\.main"):
        sources.find_sources(str(root / "out"))


def test_an_output_directory_in_the_input_folder_is_refused(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "in")
    for root, inside in [
        (tmp_path / "in", tmp_path / "in" / "out"),
        (tmp_path / "in", tmp_path / "in"),
        (tmp_path / "in", tmp_path / "link" / "out"),
        ("s3://bucket/in", "s3://bucket/in/out"),
    ]:
        with pytest.raises(UserError, match=r"lies in --input_dir=.*: name a folder outside"):
            sources.check_outside(str(root), str(inside))
    sources.check_outside(str(tmp_path / "in"), str(tmp_path / "in-tfrecords"))
    sources.check_outside("s3://bucket/in", "in/out")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: None, "is not a folder"),
        (lambda root: root.mkdir(), "holds no class folder"),
        (lambda root: (root / "COVID").mkdir(parents=True), "holds COVID: at least 2"),
        (
            lambda root: [(root / n).mkdir(parents=True) for n in "ab"],
            "holds no file",
        ),
    ],
)
def test_hopeless_inputs(tmp_path, make, message):
    make(tmp_path / "in")
    with pytest.raises(UserError, match=message):
        sources.find_sources(str(tmp_path / "in"))


def test_manifest_holds_no_path_and_its_versions(radiographs, tmp_path):
    build(radiographs, tmp_path / "out")
    text = (tmp_path / "out" / "manifest.json").read_text()
    assert str(tmp_path) not in text
    versions = json.loads(text)["versions"]
    assert {"cxr_tfrecords", "opencv-python-headless", "pillow"} <= versions.keys()


def test_bad_settings_name_their_flag():
    for settings, flag in (({"test_fraction": 1.0}, "--test_fraction=1.0"),):
        with pytest.raises(UserError, match=flag):
            BuildConfig(**settings)
    with pytest.raises(UserError, match="did you mean --direct_num_workers"):
        beam_flags.parse([*LOCAL, "--direct_num_worker=2"], [])
    assert beam_flags.runs_locally(beam_flags.parse([], []))
    remote = beam_flags.parse(["--runner=FlinkRunner", "--parallelism=7"], [])
    assert not beam_flags.runs_locally(remote)
