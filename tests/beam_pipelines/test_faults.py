"""What goes wrong outside: killed processes, vanished files, odd names. The rerun mends it."""

from __future__ import annotations

import csv
import os
import socket
import struct
import time
import zlib

import pytest

from beam_pipelines import job
from beam_pipelines.inputs import sources
from beam_pipelines.planning import plan_checks
from beam_pipelines.settings import beam_flags
from beam_pipelines.settings.config import BuildConfig
from beam_pipelines.shards import passes
from cxr_tfrecords import dataset_dir, files, records, tfrecord, verify
from cxr_tfrecords.errors import UserError
from tests.beam_pipelines import commands
from tests.beam_pipelines.radiographs import write_radiographs
from tests.beam_pipelines.test_build import digests

CONFIG = BuildConfig(near_distance=-1, image_size=24, num_shards=2)
FLAGS = ("--near_distance=-1", "--image_size=24", "--num_shards=2", "--worker_threads=1")
FLAGS += ("--nostats",)  # drawing the page takes longer than these builds

# Imported by Python at the start of the build: what happens at its n-th rename to such a path.
SITE = """
import os, signal, sys, time
action, part, count = os.environ["AT_RENAME"].split(":")
left = [int(count)]
def meddle(event, arguments):
    if event == "os.rename" and part in str(arguments[1]):
        left[0] -= 1
        if action == "kill" and left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        while action == "hold" and left[0] == 0 and not os.path.exists(os.environ["GO_ON"]):
            time.sleep(0.05)
sys.addaudithook(meddle)
"""


@pytest.fixture
def meddling(tmp_path):
    """Makes an environment for the build, which at its n-th rename to a path is to be killed
    (`kill`), or waits there until the file `go-on` exists (`hold`)."""

    def make(action: str, part: str, count: int) -> dict[str, str]:
        site = tmp_path / "site"
        site.mkdir(exist_ok=True)
        (site / "sitecustomize.py").write_text(SITE)
        paths = os.pathsep.join([str(site), str(commands.ROOT)])
        return commands.environment(
            PYTHONPATH=paths,
            AT_RENAME=f"{action}:{part}:{count}",
            GO_ON=str(tmp_path / "go-on"),
        )

    return make


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Four chunks of radiographs, and the digests of an untroubled build of them."""
    root = tmp_path_factory.mktemp("many")
    write_radiographs(root / "in", {"COVID": 90, "Normal": 110})
    build(root / "in", root / "out")
    return root / "in", digests(root / "out")


@pytest.fixture
def radiographs(tmp_path):
    return write_radiographs(tmp_path / "in")


def build(root, output, found=None, **settings):
    how = {"overwrite": False, "resume": True, "max_bad_fraction": 0.5, "threads": 1}
    # As the command builds images that name nobody, with --nostats.
    how |= {"salt": None, "page": False, **settings}
    found = found or sources.find_sources(str(root))
    return job.build(found, str(output), CONFIG, beam_flags.parse([], []), **how)


def read_sources(output):
    with open(output / dataset_dir.SOURCES, newline="", encoding="utf-8") as file:
        return {row["filename"]: row for row in csv.DictReader(file)}


# Killed


@pytest.mark.parametrize(
    ("part", "count", "inspected", "shards"),
    [
        ("/inspected/", 4, 136, 12),  # the second part's rows: 64 images are finished
        pytest.param("/parts.json", 1, 0, 12, marks=pytest.mark.slow),
        ("/plans/", 5, 0, 12),
        pytest.param("/out/cxr-", 6, 0, 7, marks=pytest.mark.slow),
        ("/written/", 6, 0, 7),  # a shard that is whole, but not noted
        pytest.param("/sources.csv", 1, 0, 0, marks=pytest.mark.slow),
        ("/manifest.json", 1, 0, 0),
    ],
)
def test_a_killed_build_goes_on_to_the_same_bytes(
    many, meddling, tmp_path, part, count, inspected, shards
):
    root, expected = many
    out = tmp_path / "out"
    arguments = [f"--input_dir={root}", f"--output_dir={out}", *FLAGS]
    done = commands.build(*arguments, env=meddling("kill", part, count))
    assert done.returncode == -9
    assert digests(out) != expected
    assert not (out / "manifest.json").exists()
    if part == "/out/cxr-":  # the rest by the command too; elsewhere without its start
        done = commands.build(*arguments)
        assert done.returncode == 0, done.stderr
        assert f"wrote {shards} shards" in done.stdout
    else:
        result = build(root, out)
        assert (result.inspected, result.written_shards) == (inspected, shards)
    assert digests(out) == expected
    assert verify.verify(str(out)).faults == []


def test_a_second_build_at_the_same_time_is_refused_and_does_no_harm(many, meddling, tmp_path):
    root, expected = many
    out = tmp_path / "out"
    arguments = [f"--input_dir={root}", f"--output_dir={out}", *FLAGS]
    held = meddling("hold", "/out/cxr-", 3)
    with commands.forked_build(*arguments, env=held) as first:
        end = time.monotonic() + 60
        while not any(name.startswith("cxr-") for name in files.names(str(out))):
            assert first.poll() is None
            assert time.monotonic() < end
            time.sleep(0.02)
        second = commands.build(*arguments)
        assert first.poll() is None
        assert second.returncode == 75
        assert commands.said(second.stderr) == [
            f"process {first.pid} on {socket.gethostname()} is writing to --output_dir={out}, wait "
            "for its end or name another: run the same command again to go on"
        ]
        (tmp_path / "go-on").touch()
        done = commands.finish(first)
    assert done.returncode == 0, done.stderr
    assert digests(out) == expected


def test_a_shard_that_cannot_be_renamed_is_one_line_and_the_rerun_mends_it(
    radiographs, tmp_path, monkeypatch
):
    build(radiographs, tmp_path / "whole")
    real, renamed = files.rename, []

    def refused(source, target):
        if ".build" not in target:
            renamed.append(target)
            if len(renamed) == 3:
                raise PermissionError(13, "Permission denied")
        real(source, target)

    monkeypatch.setattr(files, "rename", refused)
    out = tmp_path / "out"
    with pytest.raises(UserError, match=r"^cannot write .*Permission denied") as caught:
        build(radiographs, out)
    assert "\n" not in str(caught.value)
    monkeypatch.undo()
    assert not [name for name in os.listdir(out) if ".tmp-" in name]
    assert build(radiographs, out).written_shards == 16
    assert digests(out) == digests(tmp_path / "whole")


def test_the_scratch_folder_of_a_build_killed_at_its_end_is_removed(radiographs, tmp_path):
    out = tmp_path / "out"
    build(radiographs, out)
    (out / ".build" / "inspected").mkdir(parents=True)  # killed after the manifest was written
    assert build(radiographs, out).inspected == 0
    assert not (out / ".build").exists()


# Bad input


def test_a_file_that_vanishes_before_it_is_read_is_recorded(radiographs, tmp_path):
    found = sources.find_sources(str(radiographs))
    (radiographs / "COVID" / "images" / "COVID-3.png").unlink()
    manifest = build(radiographs, tmp_path / "out", found).manifest
    (rejected,) = manifest["rejected"]
    assert rejected["file"] == "COVID/images/COVID-3.png"
    assert rejected["reason"] == "unreadable (No such file or directory)"
    assert read_sources(tmp_path / "out")[rejected["file"]]["reason"] == rejected["reason"]
    assert manifest["sources"]["written"] == 39
    assert verify.verify(str(tmp_path / "out")).faults == []


def test_a_folder_that_vanishes_is_one_line_and_no_data_set(radiographs, tmp_path):
    found = sources.find_sources(str(radiographs))
    radiographs.rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="max_bad_fraction"):
        build(radiographs, tmp_path / "out", found, max_bad_fraction=0.01)
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_a_picture_that_unpacks_to_gigabytes_is_rejected_by_its_header(radiographs, tmp_path):
    def chunk(kind: bytes, data: bytes) -> bytes:
        check = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    rows = zlib.compress(bytes(1 << 20), 9)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows)
    (radiographs / "COVID" / "images" / "bomb.png").write_bytes(bomb + chunk(b"IEND", b""))
    (rejected,) = build(radiographs, tmp_path / "out").manifest["rejected"]
    assert "60000 x 60000 pixels are more than --max_pixels" in rejected["reason"]


# Names

NAMES = ("новый 日本.png", "two  spaces.png", 'it\'s "quoted".png', "line\nbreak.png")
NAMES += (
    "comma,semi;.png",
    "<b>&amp;.png",
    "tab\tand\rreturn.png",
    "back\\slash.png",
    "100%25?#.png",
)


def test_odd_names_of_files_and_classes_survive(radiographs, tmp_path):
    import tensorflow_datasets as tfds

    odd = 'Vi&ral, "P\'" <b> é'
    (radiographs / "Viral Pneumonia").rename(radiographs / odd)
    (radiographs / "Normal").rename(radiographs / "正常")
    folder = radiographs / odd / "images"
    for number, name in enumerate(NAMES):
        (folder / f"Viral Pneumonia-{number}.png").rename(folder / name)
    out = tmp_path / "out"
    build(radiographs, out)
    assert verify.verify(str(out)).faults == []
    paths = {f"{odd}/images/{name}" for name in NAMES}
    rows = read_sources(out)
    assert len(rows) == 40
    assert paths <= rows.keys()
    assert all(rows[path]["class"] == odd and not rows[path]["reason"] for path in paths)
    data = dataset_dir.load(str(out))
    stored = {
        record.filename: record.class_name
        for shard in data.shards
        for record in map(records.parse_record, tfrecord.read_records(shard.path))
    }
    assert {path: stored.get(path) for path in paths} == dict.fromkeys(paths, odd)
    builder = tfds.builder_from_directory(str(out))
    assert builder.info.features["image"]["class"]["label"].names == list(data.class_names)
    assert data.class_names == ("COVID", odd, "正常")
    assert {"train_covid", "train_vi_ral_p_b", "train_class_2"} <= set(builder.info.splits)
    read = set()
    for split in builder.info.splits:
        for example in builder.as_dataset(split=split):
            read.add(example["image"]["filename"].numpy().decode())
    assert paths <= read


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("covid", "classes 'COVID' and 'covid' differ only in case"),
        ("a\nb", r"class 'a\\nb' has unprintable characters in its name"),
    ],
)
def test_class_names_that_cannot_be_kept_apart_are_refused_before_any_work(
    radiographs, tmp_path, monkeypatch, name, message
):
    monkeypatch.setattr(passes, "inspect_sources", None)
    (radiographs / "Normal").rename(radiographs / name)
    with pytest.raises(UserError, match=message):
        build(radiographs, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_name_that_is_no_text_is_one_line(radiographs, tmp_path):
    folder = os.fsencode(radiographs / "COVID" / "images")
    try:
        os.rename(os.path.join(folder, b"COVID-1.png"), os.path.join(folder, b"\xff.png"))
    except OSError:
        pytest.skip("this file system takes only text as names")
    with pytest.raises(UserError, match=r"the name of '.*\\udcff\.png' is not UTF-8 text"):
        build(radiographs, tmp_path / "out")


def test_the_fraction_that_the_refusal_names_is_enough_and_not_more_than_needed():
    for count in (1, 3, 40, 214, 1762):
        for rejected in range(1, count + 1):
            fraction = plan_checks.sufficient_fraction(rejected, count)
            assert rejected <= fraction * count
            less = (round(100 * fraction) - 1) / 100
            assert rejected > less * count
