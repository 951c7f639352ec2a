"""The benchmark of precisions, as a command on a few images."""

import subprocess
import sys

import pytest

from tests import helpers

COUNTS = {"train": (8, 8, 8, 8), "validation": (2, 2, 2, 2), "test": (2, 2, 2, 2)}


@pytest.mark.slow
def test_both_precisions_are_trained_drawn_and_told_apart(tmp_path):
    data = helpers.write_dataset(tmp_path / "data", COUNTS)
    picture = tmp_path / "curves.png"
    settings = ["--backbone=tiny", "--epochs=2", "--seeds=0", f"--work_dir={tmp_path}/runs"]
    command = [sys.executable, "-m", "benchmarks.precision", f"--data_dir={data.path}", *settings]
    run = subprocess.run([*command, f"--picture={picture}"], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    rows = [line.split("|")[1:-1] for line in run.stdout.splitlines() if line.startswith("|")]
    (float32, bfloat16) = ([cell.strip() for cell in row] for row in rows[2:])
    assert (float32[:2], bfloat16[:2]) == (["float32", "0"], ["bfloat16", "0"])
    assert float32[2] != bfloat16[2], "both runs computed in the same precision"
    assert abs(float(float32[2]) - float(bfloat16[2])) < 0.5
    assert picture.stat().st_size > 10_000
