"""The training benchmark measures every system it names, and judges given numbers right."""

import json
import os
import subprocess
import sys

import pytest

from benchmarks.training import process as training_process
from benchmarks.training import workers as training_workers
from benchmarks.training.frozen import Run, measure
from benchmarks.training.report import (
    BARE,
    CPU_CORE,
    FIT,
    FIT_LOOP,
    LOOP,
    LOOP_COMPARISONS,
    ONE_WORKER,
    STRONG,
    WAITING,
    WEAK,
    WEAK_LOCAL,
    WORKER_COMPARISONS,
    check_frozen,
    check_speeds,
    describe,
    frozen_rows,
    of_loops,
    speed_rows,
)
from benchmarks.training.systems import SYSTEMS
from cxr_tfrecords.errors import UserError
from tests import helpers
from trainer.settings.config import TrainConfig

COUNTS = {"train": (8, 12, 20, 4), "validation": (2, 2, 2, 2), "test": (3, 5, 7, 2)}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return helpers.write_dataset(tmp_path_factory.mktemp("data"), COUNTS)


@pytest.fixture
def config(data, tmp_path):
    return TrainConfig(
        data_dir=data.path, run_dir=str(tmp_path / "run"), batch_size=4, cache="memory"
    )


def _benchmark(data, path, *flags):
    command = [sys.executable, "-m", "benchmarks.training", f"--data_dir={data.path}"]
    command += [f"--json={path}", "--backbone=tiny", "--rounds=1", "--steps=4", "--batch_size=4"]
    return subprocess.run([*command, *flags], capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_our_loop_is_measured_against_its_peers(data, tmp_path):
    path = tmp_path / "rows.json"
    result = _benchmark(data, path, "--parts=loop")
    assert (result.returncode, result.stderr) == (0, "")
    content = json.loads(path.read_text())
    speeds = {row["system"]: row["images_per_s"] for row in content["rows"]}
    assert list(speeds) == [
        LOOP,
        BARE,
        FIT,
        FIT_LOOP,
    ]
    assert min(speeds.values()) > 0
    checks = {check["what"]: check for check in content["checks"]}
    ratio = checks[f"{LOOP}, against {BARE}"]
    assert ratio["value"] == pytest.approx(speeds[LOOP] / speeds[BARE], rel=0.01)
    waiting = [check["value"] for what, check in checks.items() if what.startswith("share")]
    assert len(waiting) == 2
    assert all(0 < share < 1 for share in waiting)
    assert "torch: skipped" in result.stdout
    assert "jit_compile" in result.stdout
    assert "cores, load" in result.stdout


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="processes are pinned with taskset")
def test_workers_and_loops_are_measured(data, tmp_path):
    path = tmp_path / "rows.json"
    result = _benchmark(data, path, "--parts=workers,steps_per_loop")
    assert (result.returncode, result.stderr) == (0, "")
    names = [row["system"] for row in json.loads(path.read_text())["rows"]]
    loops = [of_loops("tiny", count) for count in (1, 10, 100)]
    workers = [
        CPU_CORE,
        ONE_WORKER,
        WEAK,
        STRONG,
        WEAK_LOCAL,
    ]
    if len(os.sched_getaffinity(0)) < 2:
        assert "workers: skipped" in result.stdout
        workers = []
    assert names == loops + workers


@pytest.mark.slow
def test_every_system_trains_on_as_many_images_as_it_is_asked_for(config):
    systems = [kind(config) for kind in SYSTEMS.values()]
    for system in systems:
        # 13 steps: an epoch that is longer than the data goes on with the next one.
        for steps in (2, 13):
            answer = system.measure(steps)
            assert answer["images"] == steps * 4
            assert answer["seconds"] > 0
    loop, bare, fit = systems
    assert loop.measure(5, steps_per_loop=2)["images"] == 20
    assert 0 < loop.measure(3, waiting=True)["share"] < 1
    assert 0 <= loop.measure(3, traced=True)["share"] < 1
    assert bare.parameters == 61_040 - 352 + 260  # without moving statistics, with the head
    assert fit.jit_compile in (True, False)


@pytest.mark.slow
def test_a_process_answers_what_it_is_asked(config):
    with training_process.Process(training_process.command("bare", config)) as process:
        process.wait()
        assert process.facts["parameters"] > 0
        answer = training_process.run_together([process], {"steps": 2})
        assert answer["images"] == 2 * 4


def test_a_system_that_ends_is_reported_with_its_last_words(config):
    with (
        training_process.Process(
            [sys.executable, "-c", "import sys; sys.exit('no such kernel')"]
        ) as process,
        pytest.raises(UserError, match="exit code 1: no such kernel"),
    ):
        process.wait()


def test_without_two_cores_workers_are_skipped_and_it_is_said(config, monkeypatch, capsys):
    monkeypatch.setattr(training_workers, "_cores", lambda: [3])
    assert training_workers.measure(config, steps=1, rounds=1) == []
    assert "workers: skipped, there are 1 cores" in capsys.readouterr().out
    assert speed_rows("workers", [], 32) == []
    assert check_speeds([], WORKER_COMPARISONS) == []


@pytest.mark.slow
def test_a_whole_run_is_timed_from_its_own_lines(data, config, tmp_path):
    runs = measure(data, config, str(tmp_path), epochs=2, more=["--noflip"])
    assert list(runs) == ["memory", "features"]
    for run in runs.values():
        assert 0 < run.epochs_s <= run.training_s + 0.1
        assert run.setup_s + run.training_s < run.command_s
        assert run.test_accuracy * 17 == pytest.approx(round(run.test_accuracy * 17))
    settings = json.loads((tmp_path / "features" / "config.json").read_text())["config"]
    assert (settings["cache"], settings["flip"]) == ("features", False)


@pytest.mark.slow
def test_a_run_that_fails_is_reported_with_its_last_words(data, tmp_path):
    bad = TrainConfig(data_dir=data.path, weights="nothing")
    with pytest.raises(UserError, match=r"exit code 2.*--weights=nothing"):
        measure(data, bad, str(tmp_path), epochs=1)


def test_ratios_are_taken_within_a_round_and_judged_by_their_median():
    measured = []
    for load, loop in ((1, 97.0), (10, 99.0), (4, 90.0)):  # busier in some rounds than in others
        measured.append(
            {
                LOOP: loop / load,
                BARE: 100.0 / load,
                FIT: 98.0 / load,
                WAITING: 0.01 * load,
            }
        )
    rows = speed_rows("loop", measured, 32)
    assert [row["system"] for row in rows] == [
        LOOP,
        BARE,
        FIT,
    ]
    assert rows[1] == {"part": "loop", "system": rows[1]["system"], "images_per_s": 25, "ms": 1280}
    checks = check_speeds(measured, LOOP_COMPARISONS)
    assert [(check["value"], check["met"]) for check in checks] == [
        (pytest.approx(0.97), True),
        (pytest.approx(97 / 98), False),
        (0.04, False),
    ]
    assert (checks[0]["least"], checks[0]["most"]) == (0.9, 0.99)
    text = describe(rows, checks, 32)
    assert text.count("MISSED") == 2
    assert text.count(" met |") == 1


def test_what_features_cost_counts_as_training():
    def run(setup, training, accuracy):
        return Run(setup + training + 9, setup, training, training, accuracy)

    runs = {"memory": run(5.0, 200.0, 0.5), "features": run(15.0, 8.0, 0.51)}
    rows = frozen_rows(runs)
    assert [row["training_s"] for row in rows] == [200.0, 18.0]  # 10 s longer until the model
    ratio, epochs, whole, accuracy = check_frozen(rows, test_images=100)
    assert (ratio["value"], ratio["met"]) == (pytest.approx(200 / 18), True)
    assert epochs["value"] == 25
    assert whole["value"] == pytest.approx(214 / 32)
    assert (accuracy["value"], accuracy["met"]) == (1.0, True)
    assert not check_frozen(rows, test_images=300)[-1]["met"]
    assert describe(rows, [ratio], 32).count("\n| --cache=") == 2
