"""Temporary folders of killed processes go, those of living ones stay."""

import os
import signal
import subprocess
import sys
import tempfile

from cxr_tfrecords.concurrency import locks, temporary
from tests.shared import ROOT

HOLD = """
from cxr_tfrecords.concurrency import temporary
with temporary.folder("test") as path:
    open(f"{path}/file", "w").close()
    print(path, flush=True)
    input()
"""


def test_the_folder_of_a_killed_process_is_removed_by_the_next_one(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "cxr-of-somebody-else").mkdir()
    env = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", HOLD], env=env, **pipes) as process:
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
