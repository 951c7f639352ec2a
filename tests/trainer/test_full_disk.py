"""A disk that is really too small ends a command in one line, and no file is half."""

import subprocess
import sys

import pytest

from tests import helpers
from tests.shared import ROOT

COUNTS = {"train": (12, 18, 30, 6), "validation": (6, 8, 10, 4), "test": (6, 7, 10, 4)}
FLAGS = ("--batch_size=8", "--epochs=2", "--backbone=tiny")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return helpers.write_dataset(tmp_path_factory.mktemp("data"), COUNTS)


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("runs") / "whole"
    done = _run("trainer.main", f"--data_dir={data.path}", f"--run_dir={run_dir}", *FLAGS)
    assert done.returncode == 0, done.stderr
    return run_dir


@pytest.fixture
def small_disk(tmp_path):
    """Makes a folder that is a disk of so many kB of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(kilobytes):
        command = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "none", str(folder)]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("only root may mount a disk")
        return folder

    yield mount
    subprocess.run(["umount", "-l", str(folder)], capture_output=True, check=False)


def _run(module, *flags):
    return subprocess.run(
        [sys.executable, "-m", module, *flags],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
        cwd=ROOT,
    )


def _assert_one_line(done, *words):
    assert done.returncode == 2, done.stderr[-3000:]
    assert "Traceback" not in done.stderr, done.stderr[-3000:]
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: "), done.stderr[-3000:]
    for word in words:
        assert word in last.lower(), last


@pytest.mark.slow
@pytest.mark.parametrize("kilobytes", [8, 100, 400, 700, 1000])
def test_a_full_disk_ends_a_training_in_one_line(data, small_disk, kilobytes):
    run_dir = small_disk(kilobytes) / "run"
    done = _run("trainer.main", f"--data_dir={data.path}", f"--run_dir={run_dir}", *FLAGS)
    _assert_one_line(done, f"--run_dir={run_dir}", "no space left")
    assert not (run_dir / "report.md").exists()


@pytest.mark.slow
@pytest.mark.parametrize("kilobytes", [4, 20])
def test_a_full_disk_ends_an_evaluation_in_one_line(finished, small_disk, tmp_path, kilobytes):
    other = helpers.write_dataset(tmp_path / "other", COUNTS, seed=1)
    output = small_disk(kilobytes) / "out"
    done = _run(
        "trainer.evaluate",
        f"--model={finished}",
        f"--data_dir={other.path}",
        f"--output_dir={output}",
    )
    _assert_one_line(done, "no space left")
    assert not output.exists()


@pytest.mark.slow
@pytest.mark.parametrize("kilobytes", [8, 60, 200])
def test_a_full_disk_ends_an_export_in_one_line(finished, small_disk, kilobytes):
    output = small_disk(kilobytes) / "out"
    done = _run(
        "trainer.export", f"--run_dir={finished}", f"--output_dir={output}", "--format=keras"
    )
    _assert_one_line(done, f"--output_dir={output}", "no space left")
    assert not output.exists()
