"""Builds on object stores: s3:// against a server on this machine; what a missing package says."""

from __future__ import annotations

import csv
import io
import pathlib
import sys

import pytest

from beam_pipelines import append, job
from beam_pipelines.inputs import input_tables, sources
from beam_pipelines.settings import beam_flags
from beam_pipelines.settings.config import BuildConfig
from beam_pipelines.shards import parts, write_shards
from cxr_tfrecords import dataset_dir, files, tfrecord, verify
from cxr_tfrecords.errors import UserError
from tests.beam_pipelines import commands
from tests.beam_pipelines.radiographs import CLASSES, write_radiographs
from tests.beam_pipelines.test_build import digests

CONFIG = BuildConfig(near_distance=-1, image_size=24)
FLAGS = ("--near_distance=-1", "--image_size=24")
OPTIONS = beam_flags.parse([], [])


@pytest.fixture
def radiographs(tmp_path):
    return write_radiographs(tmp_path / "in")


def upload(fs, folder: pathlib.Path, address: str) -> None:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            fs.pipe_file(f"{address}/{path.relative_to(folder)}", path.read_bytes())


def download(fs, address: str, folder: pathlib.Path) -> pathlib.Path:
    inner = address.partition("://")[2]
    for name in fs.find(inner):
        path = folder / name.removeprefix(f"{inner}/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(fs.cat_file(name))
    return folder


def build(root, output, **settings):
    found = sources.find_sources(str(root))
    how = {"overwrite": False, "resume": True, "max_bad_fraction": 0.5, **settings}
    return job.build(found, str(output), CONFIG, OPTIONS, **how)


def test_a_build_on_s3_leaves_the_bytes_of_a_local_one(s3, radiographs, tmp_path):
    upload(s3, radiographs, "s3://bucket/in")
    build(radiographs, tmp_path / "local")
    done = commands.build("--input_dir=s3://bucket/in", "--output_dir=s3://bucket/out", *FLAGS)
    assert done.returncode == 0, done.stderr
    assert "wrote 9 shards" in done.stdout
    assert commands.said(done.stderr) == []
    assert digests(download(s3, "s3://bucket/out", tmp_path / "s3")) == digests(tmp_path / "local")
    before = s3.info("bucket/out/manifest.json")["LastModified"], s3.find("bucket/out", detail=True)
    again = build("s3://bucket/in", "s3://bucket/out")
    assert (again.inspected, again.written_shards) == (0, 0)
    after = s3.info("bucket/out/manifest.json")["LastModified"], s3.find("bucket/out", detail=True)
    assert after == before


@pytest.mark.slow
def test_what_was_built_on_s3_is_loaded_and_verified_there(s3, radiographs, tmp_path):
    import tensorflow_datasets as tfds

    build(radiographs, "s3://bucket/out")
    data = dataset_dir.load("s3://bucket/out")
    assert sum(map(data.num_examples, ("train", "validation", "test"))) == 40
    assert verify.verify("s3://bucket/out").faults == []
    # TFDS knows no s3://: what lies there is what it needs, once it is copied.
    local = download(s3, "s3://bucket/out", tmp_path / "copy")
    builder = tfds.builder_from_directory(str(local))
    assert builder.info.splits["train_covid"].num_examples == data.counts["train"][0]
    assert len(list(builder.as_dataset(split="train_covid"))) == data.counts["train"][0]

    shard = data.shards[0].path
    damaged = bytearray(s3.cat_file(shard))
    damaged[len(damaged) // 2] ^= 1
    s3.pipe_file(shard, bytes(damaged))
    (fault, *_) = verify.verify("s3://bucket/out").faults
    assert fault.startswith(shard.rpartition("/")[2])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "name"),
    [(parts, "write_part"), pytest.param(tfrecord, "write_records", marks=pytest.mark.slow)],
)
def test_an_interrupted_build_on_s3_goes_on(s3, radiographs, tmp_path, monkeypatch, module, name):
    build(radiographs, tmp_path / "local")
    for label in CLASSES:  # two chunks: the first pass is interrupted between them
        upload(s3, radiographs / label, f"s3://bucket/in/{label}")
    monkeypatch.setattr("beam_pipelines.shards.passes.CHUNK", {0: 25})
    real, calls = getattr(module, name), []

    def fails_the_second_time(*arguments):
        calls.append(arguments[0])
        if len(calls) == 2:
            raise OSError(5, "the connection was lost")
        return real(*arguments)

    monkeypatch.setattr(module, name, fails_the_second_time)
    with pytest.raises(UserError, match="the connection was lost"):
        build("s3://bucket/in", "s3://bucket/out")
    monkeypatch.setattr(module, name, real)
    result = build("s3://bucket/in", "s3://bucket/out")
    if module is parts:
        assert 0 < result.inspected < 40
    else:
        assert (result.inspected, result.written_shards) == (0, 8)
    assert digests(download(s3, "s3://bucket/out", tmp_path / "s3")) == digests(tmp_path / "local")


@pytest.mark.slow
def test_records_are_read_from_s3_in_ranges(s3, radiographs, monkeypatch):
    """Whole parts would be read once for each shard: hundreds of times on a large set."""
    build(radiographs, "s3://bucket/out")
    whole = write_shards.files.read_bytes
    read = []
    monkeypatch.setattr(
        write_shards.files, "read_bytes", lambda path: (read.append(path), whole(path))[1]
    )
    build(radiographs, "s3://bucket/again")
    assert not [path for path in read if path.endswith(parts.RECORDS)]


def test_listings_show_what_other_workers_have_written(s3):
    for name in ("one", "two"):
        s3.pipe_file(f"bucket/folder/{name}", b"x")
        assert name in files.names("s3://bucket/folder")
    assert files.sizes("s3://bucket/folder") == {"one": 1, "two": 1}


@pytest.mark.slow
def test_appending_on_s3_leaves_the_bytes_of_appending_locally(s3, tmp_path):
    write_radiographs(tmp_path / "first")
    write_radiographs(tmp_path / "all", {name: 2 * count for name, count in CLASSES.items()})
    for out in (str(tmp_path / "local"), "s3://bucket/out"):
        build(tmp_path / "first", out)
    upload(s3, tmp_path / "all", "s3://bucket/all")
    for out, root in (
        (str(tmp_path / "local"), str(tmp_path / "all")),
        ("s3://bucket/out", "s3://bucket/all"),
    ):
        found = sources.find_sources(root, known_classes=tuple(sorted(CLASSES)))
        result = append.append(found, out, CONFIG, OPTIONS, max_bad_fraction=0.0)
        assert result.inspected == 40
    assert digests(download(s3, "s3://bucket/out", tmp_path / "s3")) == digests(tmp_path / "local")
    assert verify.verify("s3://bucket/out").faults == []


@pytest.mark.slow
def test_overwriting_on_s3_removes_what_was_there(s3, radiographs):
    build(radiographs, "s3://bucket/out")
    s3.rm("bucket/out/manifest.json")
    s3.pipe_file("bucket/out/cxr-train_old.tfrecord-00000-of-00001", b"old")
    build(radiographs, "s3://bucket/out", overwrite=True)
    assert "cxr-train_old.tfrecord-00000-of-00001" not in files.names("s3://bucket/out")
    assert verify.verify("s3://bucket/out").faults == []


@pytest.mark.slow
def test_lists_and_tables_are_read_from_s3(s3, radiographs, tmp_path):
    upload(s3, radiographs, "s3://bucket/in")
    names = sorted(str(p.relative_to(radiographs)) for p in radiographs.rglob("*.png"))
    lines = ["path,label,group", *(f"{n},{n.split('/')[0]},{i // 2}" for i, n in enumerate(names))]
    s3.pipe_file("bucket/in/list.csv", "\n".join(lines).encode())
    found = input_tables.read_input_csv("s3://bucket/in/list.csv", "", "")
    assert (found.root, len(found)) == ("s3://bucket/in", 40)
    manifest = job.build(
        found,
        "s3://bucket/out",
        CONFIG,
        OPTIONS,
        overwrite=False,
        resume=True,
        max_bad_fraction=0.0,
    ).manifest
    assert manifest["duplicates"]["num_groups"] == 20
    rows = csv.DictReader(io.StringIO(s3.cat_file("bucket/out/sources.csv").decode()))
    assert len({row["group"] for row in rows}) == 20


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ("--input_dir=s3://nowhere/in", "--output_dir=s3://bucket/out"),
            "--input_dir=s3://nowhere/in: The specified bucket does not exist",
        ),
        (
            ("--input_dir=s3://bucket/nothing", "--output_dir=s3://bucket/out"),
            "--input_dir=s3://bucket/nothing: there is no such folder",
        ),
        (
            ("--input_dir=s3://bucket/in", "--output_dir=s3://nowhere/out"),
            "cannot write to --output_dir=s3://nowhere/out: The specified bucket does not exist",
        ),
        (
            ("--input_csv=s3://nowhere/list.csv", "--output_dir=s3://bucket/out"),
            "--input_csv=s3://nowhere/list.csv: The specified bucket does not exist",
        ),
    ],
)
def test_a_missing_bucket_is_one_line(s3, radiographs, flags, message):
    upload(s3, radiographs, "s3://bucket/in")
    done = commands.build(*flags, *FLAGS)
    assert done.returncode == 2
    (line,) = commands.said(done.stderr)
    assert line.startswith(f"error: {message}")
    assert not s3.exists("bucket/out")


def test_refused_keys_are_one_line(s3, radiographs, monkeypatch):
    async def refused(*_, **__):
        raise PermissionError(13, "Access Denied")

    monkeypatch.setattr(type(s3), "_lsdir", refused)
    with pytest.raises(UserError, match=r"^--input_dir=s3://bucket/in: Access Denied"):
        build("s3://bucket/in", "s3://bucket/out")


@pytest.mark.slow
def test_training_from_s3_is_one_line_before_anything_is_read(tmp_path):
    command = (sys.executable, "-m", "trainer.main", "--data_dir=s3://bucket/out", "--run_dir=run")
    with commands.process(*command, cwd=tmp_path) as started:
        done = commands.finish(started)
    assert done.returncode == 2
    (line,) = commands.said(done.stderr)
    message = "TensorFlow cannot read s3://: copy the data set to a"
    assert line.startswith(f"error: --data_dir=s3://bucket/out: {message}")
    assert not list(tmp_path.iterdir())  # as `s3:`, a folder here


@pytest.mark.parametrize(
    ("address", "package", "extra"),
    [("s3://bucket", "s3fs", "aws"), ("gs://bucket", "gcsfs", "gcp")],
)
def test_a_missing_package_names_the_extra(monkeypatch, radiographs, address, package, extra):
    monkeypatch.setitem(sys.modules, package, None)
    loaded = sys.modules["fsspec.registry"]._registry
    for scheme in ("s3", "s3a", "gs", "gcs"):
        monkeypatch.delitem(loaded, scheme, raising=False)
    hint = rf"pip install 'cxr-balance\[{extra}\]'"
    with pytest.raises(UserError, match=f"^{address}/in: .*{hint}"):
        build(f"{address}/in", f"{address}/out")
    with pytest.raises(UserError, match=f"^{address}/out.*{hint}"):
        build(radiographs, f"{address}/out")
    with pytest.raises(UserError, match=hint):
        verify.verify(f"{address}/out")


def test_an_unknown_scheme_is_one_line(radiographs):
    with pytest.raises(UserError, match="no file system is known by ftq://"):
        build(radiographs, "ftq://host/out")


def test_any_file_system_of_fsspec_will_do(radiographs, tmp_path):
    """gs:// takes the same way through fsspec; its own library is not run here."""
    import fsspec

    fs = fsspec.filesystem("memory")
    try:
        upload(fs, radiographs, "memory://store/in")
        build(radiographs, tmp_path / "local")
        build("memory://store/in", "memory://store/out")
        copied = download(fs, "memory:///store/out", tmp_path / "memory")
        assert digests(copied) == digests(tmp_path / "local")
        assert verify.verify("memory://store/out").faults == []
    finally:
        fs.rm("/store", recursive=True)
