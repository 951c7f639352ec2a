"""How a build uses the cores of one machine."""

import os

import pytest
from apache_beam.options.pipeline_options import DirectOptions

from beam_pipelines.running import local_cores
from beam_pipelines.settings import beam_flags

MANY = local_cores.PROCESSES_FROM_FILES
PROCESSES = ["--direct_running_mode=multi_processing"]


def spread(monkeypatch, cores, *, arguments=(), threads=0, num_files=MANY):
    """Mode, workers and threads a worker."""
    monkeypatch.setattr(local_cores, "usable_cores", lambda: cores)
    given = beam_flags.parse(list(arguments), [])
    before = given.get_all_options()
    options, found = local_cores.spread(given, threads, num_files)
    assert given.get_all_options() == before  # they are the caller's
    direct = options.view_as(DirectOptions)
    return direct.direct_running_mode, direct.direct_num_workers, found


@pytest.mark.parametrize(
    ("cores", "num_files", "expected"),
    [
        (16, MANY, ("multi_processing", 16, 1)),
        (4, MANY, ("multi_processing", 4, 1)),
        (4, MANY - 1, ("in_memory", 1, 4)),
        (3, 100 * MANY, ("in_memory", 1, 3)),
        (1, MANY, ("in_memory", 1, 1)),
    ],
)
def test_many_cores_get_processes_where_they_pay(monkeypatch, cores, num_files, expected):
    assert spread(monkeypatch, cores, num_files=num_files) == expected


@pytest.mark.parametrize(
    ("arguments", "threads", "expected"),
    [
        ([], 8, ("in_memory", 1, 8)),
        (PROCESSES, 8, ("multi_processing", 1, 8)),
        ([*PROCESSES, "--direct_num_workers=4"], 0, ("multi_processing", 4, 4)),
        ([*PROCESSES, "--direct_num_workers=0"], 0, ("multi_processing", 0, 1)),
        ([*PROCESSES, "--direct_num_workers=32"], 0, ("multi_processing", 32, 1)),
        (
            ["--direct_running_mode=multi_threading", "--direct_num_workers=2"],
            0,
            ("multi_threading", 2, 8),
        ),
        (["--runner=FlinkRunner", "--flink_master=h:1"], 0, ("in_memory", 1, 1)),
    ],
)
def test_what_the_user_says_is_kept(monkeypatch, arguments, threads, expected):
    assert spread(monkeypatch, 16, arguments=arguments, threads=threads) == expected


def test_the_runner_stays_the_local_one(monkeypatch):
    monkeypatch.setattr(local_cores, "usable_cores", lambda: 8)
    options, _ = local_cores.spread(beam_flags.parse(["--runner=DirectRunner"], []), 0, MANY)
    assert beam_flags.runs_locally(options)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no such call on this system")
def test_cores_that_are_taken_away_do_not_count():
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert local_cores.usable_cores() == 1
    finally:
        os.sched_setaffinity(0, before)
