"""One process at a time writes a folder; the lock of a process that is gone holds nobody up."""

import errno
import os
import signal
import socket
import subprocess
import sys

import pytest

from cxr_tfrecords import files
from cxr_tfrecords.concurrency import locks
from cxr_tfrecords.errors import TemporaryError, UserError
from tests.shared import ROOT

HOLD = """
import sys
from cxr_tfrecords.concurrency import locks
with locks.held(sys.argv[1], "--run_dir"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def other(tmp_path):
    """Another process, which holds the folder until its input ends."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    command = [sys.executable, "-c", HOLD, str(tmp_path / "run")]
    with subprocess.Popen(command, cwd=ROOT, **pipes) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def is_free(folder):
    with locks.held(str(folder), "--run_dir"):
        return True


def test_the_second_is_told_who_has_the_folder(other, tmp_path):
    folder = tmp_path / "run"
    with pytest.raises(TemporaryError) as raised:
        is_free(folder)
    who = f"process {other.pid} on {socket.gethostname()}"
    assert str(raised.value) == f"{who} is writing to --run_dir, wait for its end or name another"
    assert files.names(str(folder)) == set()  # what counts the files of a folder sees no lock
    other.communicate("")
    assert not folder.exists()  # it was empty and had been made for the lock
    assert is_free(folder)


def test_a_killed_process_holds_nothing(other, tmp_path):
    other.send_signal(signal.SIGKILL)
    other.wait()
    assert (tmp_path / "run" / ".lock").exists()
    assert is_free(tmp_path / "run")
    assert os.listdir(tmp_path / "run") == []


def test_a_lock_that_its_process_removes_meanwhile_is_not_taken(tmp_path, monkeypatch):
    take, taken = locks.take, []

    def slow_take(path):
        descriptor = take(path)
        if not taken:  # the other one ends between our opening the file and our locking it
            os.remove(path)
        if descriptor is not None:
            taken.append(os.fstat(descriptor).st_ino)
        return descriptor

    monkeypatch.setattr(locks, "take", slow_take)
    with locks.held(str(tmp_path), "--run_dir"):
        assert len(taken) == 2
        assert os.stat(tmp_path / ".lock").st_ino == taken[1]
        with pytest.raises(TemporaryError, match=f"process {os.getpid()} on "):
            is_free(tmp_path)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_without_locks_all_goes_on(tmp_path, monkeypatch, number):
    def no_locks(descriptor, operation):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", no_locks)
    with locks.held(str(tmp_path / "run"), "--run_dir"):
        assert is_free(tmp_path / "run")
    assert locks.held("gs://bucket/run", "--run_dir").__enter__() is None


def test_a_folder_that_cannot_be_made_is_a_users_mistake(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write to --run_dir=x: "):
        locks.held(str(tmp_path / "file" / "run"), "--run_dir=x").__enter__()


def test_a_file_is_written_by_one_process_and_rests_of_killed_ones_go(tmp_path):
    path = tmp_path / "out.csv"
    for name in ("out.csv.tmp-1", "out.csv.json.tmp-1", "other.csv.tmp-1"):
        (tmp_path / name).touch()
    with locks.held_file(str(path), "--output=out.csv"):
        with (
            pytest.raises(
                TemporaryError, match=r"is writing to --output=out\.csv, wait for its end"
            ),
            locks.held_file(str(path), "--output=out.csv"),
        ):
            pass
        with locks.held_file(str(tmp_path / "another.csv"), "--output"):
            path.touch()
    assert sorted(os.listdir(tmp_path)) == ["other.csv.tmp-1", "out.csv"]
