"""What the statistics page may cost a build: nothing but room on the disk."""

import errno
import subprocess
import sys

import pytest

from beam_pipelines import job, summary
from beam_pipelines.inputs import sources
from beam_pipelines.settings import beam_flags
from beam_pipelines.settings.config import BuildConfig
from cxr_tfrecords import dataset_dir, files, stats, verify
from cxr_tfrecords.errors import UserError
from tests.beam_pipelines.radiographs import write_radiographs


def build(root, out, *, overwrite=False):
    return job.build(
        sources.find_sources(str(root)),
        str(out),
        BuildConfig(near_distance=-1, image_size=24),
        beam_flags.parse([], []),
        overwrite=overwrite,
        resume=True,
        max_bad_fraction=0.5,
    )


def test_the_summary_names_the_page(tmp_path):
    result = build(write_radiographs(tmp_path / "in"), tmp_path / "out")
    lines = summary.describe_build(result, str(tmp_path / "out"), 1.0).splitlines()
    assert f"statistics, samples and copies: {tmp_path}/out/stats.html" in lines
    stats.remove(str(tmp_path / "out"))
    assert "no stats.html" in summary.describe_build(result, str(tmp_path / "out"), 1.0)


def test_a_page_that_cannot_be_made_costs_no_build(tmp_path, monkeypatch):
    root = write_radiographs(tmp_path / "in")
    build(root, tmp_path / "out")

    def broken(*_):
        raise ValueError("a fault of the page's own")

    monkeypatch.setattr(stats, "make", broken)
    files.remove(str(tmp_path / "out" / dataset_dir.MANIFEST))
    build(root, tmp_path / "out")
    assert verify.verify(str(tmp_path / "out")).faults == []
    # An earlier page does not stay beside other shards.
    assert not {stats.PAGE, stats.NUMBERS} & files.names(str(tmp_path / "out"))


def test_a_full_disk_stops_before_the_manifest(tmp_path, monkeypatch):
    root = write_radiographs(tmp_path / "in")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(stats, "write", full)
    with pytest.raises(UserError, match="No space left on device"):
        build(root, tmp_path / "out")
    assert dataset_dir.MANIFEST not in files.names(str(tmp_path / "out"))
    monkeypatch.undo()
    build(root, tmp_path / "out")
    assert {stats.PAGE, dataset_dir.MANIFEST} <= files.names(str(tmp_path / "out"))


@pytest.mark.slow
def test_workers_start_without_what_only_the_page_needs():
    heavy = ("sklearn", "matplotlib", "tensorflow")
    code = (
        "import sys, beam_pipelines.shards.passes, beam_pipelines.dataset.manifest\n"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
