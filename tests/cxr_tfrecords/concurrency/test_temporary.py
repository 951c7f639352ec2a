"""Temporary folders of killed processes go, those of living ones stay."""

import os
import signal
import subprocess
import sys
import tempfile

import pytest

from cxr_tfrecords.concurrency import locks, temporary
from cxr_tfrecords.errors import UserError
from tests.shared import ROOT

HOLD = """
from cxr_tfrecords.concurrency import temporary
with temporary.{made} as path:
    open(path + "/file", "w").close()
    print(path, flush=True)
    input()
"""


def test_the_folder_of_a_killed_process_is_removed_by_the_next_one(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "cxr-of-somebody-else").mkdir()
    env = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(
        [sys.executable, "-c", HOLD.format(made='folder("test")')], env=env, **pipes
    ) as process:
        held = process.stdout.readline().decode().strip()
        with temporary.folder("test"):
            assert os.listdir(held) == ["file"], "its process lives"
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert os.path.exists(held)
    with temporary.folder("test") as own:
        assert os.path.isdir(own)
        assert not os.path.exists(os.path.dirname(held))
    assert os.listdir(tmp_path) == ["cxr-of-somebody-else"]


def test_who_takes_a_folder_removes_what_was_left_half_written(tmp_path):
    (tmp_path / "model.keras.tmp-99.keras").touch()
    (tmp_path / "metrics.json").touch()
    with locks.held(str(tmp_path), "--run_dir=run"):
        assert sorted(os.listdir(tmp_path)) == [".lock", "metrics.json"]


def test_the_half_of_a_folder_whose_process_was_killed_goes_with_the_next_one(tmp_path):
    target = str(tmp_path / "out")
    script = HOLD.format(made=f"replacing_folder({target!r})")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "cwd": ROOT}
    with subprocess.Popen([sys.executable, "-c", script], **pipes) as process:
        held = process.stdout.readline().decode().strip()
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert os.path.exists(held)
    with temporary.replacing_folder(target) as folder:
        open(os.path.join(folder, "model"), "w").close()
    assert [name for _, _, names in os.walk(tmp_path) for name in names] == ["model"]
    assert os.listdir(tmp_path) == ["out"]


def test_of_two_writers_of_one_folder_the_second_is_told(tmp_path):
    target = str(tmp_path / "out")

    def write_while_another_does():
        with temporary.replacing_folder(target) as folder:
            (tmp_path / "first").mkdir()
            (tmp_path / "first" / "model").write_text("first")
            os.rename(tmp_path / "first", target)
            with open(os.path.join(folder, "model"), "w") as file:
                file.write("second")

    with pytest.raises(UserError, match=r"/out: another process has written there meanwhile"):
        write_while_another_does()
    assert (tmp_path / "out" / "model").read_text() == "first"
    assert os.listdir(tmp_path) == ["out"]


def test_temporary_files_of_libraries_are_in_one_folder_of_ours(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with temporary.of_libraries("export"):
        (name,) = os.listdir(tmp_path)
        assert name.startswith("cxr-export-")
        inside = tempfile.mkdtemp()
        assert os.path.dirname(inside) == str(tmp_path / name / "files")
    assert (tempfile.tempdir, os.listdir(tmp_path)) == (str(tmp_path), [])
