"""The build benchmark measures what it claims to; no test depends on how fast the machine is."""

import json
import os
import subprocess
import sys

import cv2
import numpy as np
import pytest

from benchmarks.build.image_files import list_sources, png_of
from benchmarks.build.inputs import class_counts, distinct_folder, distinct_image
from benchmarks.build.report import Row, make_row, ratio_lines
from benchmarks.build.systems import NEEDS, missing_package
from benchmarks.measure import measure
from cxr_tfrecords import images
from cxr_tfrecords.near_duplicates import near_pairs, perceptual_hash
from cxr_tfrecords.synthetic import render
from tests.shared import ROOT

_BUSY = "import time\nwhile time.process_time() < 0.5: pass"
_KEYS = {"system", "cpu_ms_per_image", "images_per_s", "peak_pss_mb", "bytes_per_image"}
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")


def _python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_cpu_of_the_process_is_counted_and_sleep_is_not():
    measured = measure(_python(f"{_BUSY}\ntime.sleep(0.5)"))
    assert measured.exit_code == 0
    assert measured.cpu_s >= 0.5
    assert measured.wall_s >= 1.0


def test_cpu_of_children_is_counted():
    parent = (
        f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {_BUSY!r}], check=True)"
    )
    assert measure(_python(parent)).cpu_s >= 0.5


@linux_only
def test_memory_of_the_process_and_of_its_children_is_seen():
    hold = "import time\ndata = b'1' * 100_000_000\ntime.sleep(0.4)"
    parent = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {hold!r}], check=True)"
    for code in (hold, parent):
        peak = measure(_python(code)).peak_pss_mb
        assert peak is not None
        assert 100 < peak < 200


def test_a_failure_keeps_the_last_lines_of_its_errors():
    code = "import sys\nsys.stderr.write('first\\n 0%\\r99%\\nlast\\n')\nsys.exit(3)"
    measured = measure(_python(code), error_lines=2)
    assert measured.exit_code == 3
    assert measured.error_lines == ("99%", "last")


def test_counts_are_exact_and_keep_the_class_ratio():
    for wanted in (16, 40, 501, 21165):
        counts = class_counts(wanted)
        assert sum(counts.values()) == wanted
        assert min(counts.values()) >= 1
    assert counts == {"COVID": 3616, "Lung_Opacity": 6012, "Normal": 10192, "Viral Pneumonia": 1345}


def test_images_for_the_memory_measurement_are_no_near_duplicates(tmp_path):
    base, _ = render("Normal", 0)
    small = [cv2.resize(distinct_image(base, i), (224, 224)) for i in range(100)]
    hashes = np.frombuffer(b"".join(map(perceptual_hash, small)), np.uint64).reshape(-1, 4)
    assert len(near_pairs(hashes, max_distance=30)) == 0
    folder = distinct_folder(str(tmp_path), 16, 20)
    assert len(list_sources(folder)) == 16


def test_peers_store_the_very_pixels_that_the_build_stores(tmp_path):
    pixels, _ = render("COVID", 0)
    path = str(tmp_path / "a.png")
    cv2.imwrite(path, pixels)
    stored = images.resize(pixels[:, :, None], 224)
    assert png_of(path, 224) == images.encode(stored, "png")


def test_a_system_without_its_package_names_what_brings_it(monkeypatch):
    assert missing_package("floor-png") == ("", "")
    monkeypatch.setitem(NEEDS, "webdataset", ("no_such_module", "pip install it"))
    assert missing_package("webdataset") == ("no_such_module", "pip install it")


def test_ratios_are_medians_of_the_rounds_own_ratios():
    def row(system: str, cpu: list[float]) -> Row:
        runs = [
            {"cpu_ms_per_image": c, "images_per_s": 1.0, "peak_pss_mb": 100.0, "bytes_per_image": 1}
            for c in cpu
        ]
        return make_row(system, 10, runs)

    # A busy round doubles both sides; the medians of each alone would give 2.
    rows = [row("this-png", [1.0, 2.0, 2.2]), row("floor-png", [1.0, 2.0, 1.0])]
    assert rows[0]["cpu_ms_per_image"] == 2.0
    lines = ratio_lines(rows)
    assert "this-png CPU / floor-png CPU: 1 " in lines[0]
    assert lines[0].endswith(": met")
    assert "not measured" in lines[1]
    assert lines[4].endswith(": missed")  # the same wall clock, where 1.6 times is wanted


def _benchmark(tmp_path, *flags: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "benchmarks.build", f"--work_dir={tmp_path}/work", *flags]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.mark.slow
def test_the_whole_benchmark_writes_rows_and_leaves_only_inputs(tmp_path):
    done = _benchmark(
        tmp_path,
        "--images=40",
        "--rounds=1",
        "--systems=this-raw,floor-raw,floor-png,own-raw,webdataset",
        "--image_size=32",
        f"--json={tmp_path}/rows.json",
    )
    assert done.returncode == 0, done.stderr
    with open(tmp_path / "rows.json") as file:
        rows = {row["system"]: row for row in json.load(file)}
    assert {"this-raw", "floor-raw", "floor-png", "own-raw"} <= set(rows)
    assert "webdataset" in rows or "webdataset is left out" in done.stdout
    for row in rows.values():
        assert set(row) >= _KEYS
        assert (row["images"], row["rounds"], len(row["runs"])) == (40, 1, 1)
        assert row["cpu_ms_per_image"] > 0
        assert row["images_per_s"] > 0
    for system in ("this-raw", "floor-raw", "own-raw"):
        assert rows[system]["bytes_per_image"] > 32 * 32
    assert "this-raw CPU / floor-raw CPU" in done.stdout
    assert all(not name.startswith("run-") for name in os.listdir(tmp_path / "work"))


def test_a_failing_system_is_shown_and_the_others_go_on(tmp_path):
    folder = tmp_path / "work" / "synthetic-16" / "Normal" / "images"
    folder.mkdir(parents=True)
    pixels, _ = render("Normal", 0)
    cv2.imwrite(str(folder / "a.png"), pixels)
    # One class only, which the build refuses and the plain loop does not mind.
    done = _benchmark(tmp_path, "--images=16", "--rounds=2", "--systems=this-raw,floor-raw")
    assert done.returncode == 1
    assert "this-raw failed (exit code 2)" in done.stderr
    assert "at least 2 class" in done.stderr
    assert "round 2 of 2: floor-raw" in done.stdout
    assert "round 1 of 2: this-raw" not in done.stdout
