"""How a build uses the cores of one machine."""

import dataclasses

import pytest
from apache_beam.options.pipeline_options import DirectOptions

from beam_pipelines import append, job
from beam_pipelines.inputs import sources
from beam_pipelines.running import local_cores
from beam_pipelines.settings import beam_flags
from beam_pipelines.settings.config import BuildConfig
from beam_pipelines.shards import passes
from tests.beam_pipelines.radiographs import write_radiographs

CONFIG = BuildConfig(near_distance=-1, image_size=24)
MANY = local_cores.PROCESSES_FROM_FILES
LARGE = local_cores.PROCESSES_FROM_BYTES
PROCESSES = ["--direct_running_mode=multi_processing"]


@dataclasses.dataclass
class Listed:
    """What is asked of a list of files."""

    num_files: int
    num_bytes: int = 0

    def __len__(self):
        return self.num_files


def spread(monkeypatch, cores, *, arguments=(), threads=0, num_files=MANY, num_bytes=0, of_pass=0):
    """Mode and workers of a pass, and threads a worker."""
    monkeypatch.setattr(local_cores, "usable_cores", lambda: cores)
    given = beam_flags.parse(list(arguments), [])
    before = given.get_all_options()
    *passes, found = local_cores.spread(given, threads, Listed(num_files, num_bytes))
    assert given.get_all_options() == before  # they are the caller's
    direct = passes[of_pass].view_as(DirectOptions)
    return direct.direct_running_mode, direct.direct_num_workers, found


@pytest.mark.parametrize(
    ("cores", "num_files", "num_bytes", "expected"),
    [
        (16, MANY, 0, ("multi_processing", 16, 1)),
        (3, MANY, 0, ("multi_processing", 3, 1)),
        (3, 8, LARGE, ("multi_processing", 3, 1)),
        (3, MANY - 1, LARGE - 1, ("in_memory", 1, 3)),
        (2, 100 * MANY, 100 * LARGE, ("in_memory", 1, 2)),
        (1, MANY, LARGE, ("in_memory", 1, 1)),
    ],
)
def test_many_cores_get_processes_where_they_pay(
    monkeypatch, cores, num_files, num_bytes, expected
):
    found = spread(monkeypatch, cores, num_files=num_files, num_bytes=num_bytes)
    assert found == expected


def test_the_bytes_of_all_files_are_counted():
    files = [sources.SourceFile(f"{n}.png", 0, num_bytes=n) for n in range(10_000)]
    assert sources.FileList(files).num_bytes == sum(range(10_000))


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
    for number in range(2):
        found = spread(monkeypatch, 16, arguments=arguments, threads=threads, of_pass=number)
        assert found == expected


def test_the_second_pass_starts_processes_for_more_files_than_the_first(monkeypatch):
    many = local_cores.PROCESSES_WRITE_FROM_FILES
    few = spread(monkeypatch, 4, num_files=many - 1, of_pass=1)
    assert few == ("in_memory", 1, 1)
    assert spread(monkeypatch, 4, num_files=many, of_pass=1) == ("multi_processing", 4, 1)


@pytest.mark.parametrize("is_appended", [False, True])
def test_each_pass_gets_its_options(monkeypatch, tmp_path, is_appended):
    given, first, seen = beam_flags.parse([], []), beam_flags.parse([], []), []
    run_pass = passes.run_pass

    def noted(title, items, work, options, **how):
        seen.append((title, options))
        run_pass(title, items, work, options, **how)

    def run(count):
        folder = write_radiographs(tmp_path / f"in{count}", {"A": count, "B": count})
        call = sources.find_sources(str(folder)), str(tmp_path / "out"), CONFIG, given
        if count > 6:
            append.append(*call, max_bad_fraction=0.5)
        else:
            job.build(*call, overwrite=False, resume=True, max_bad_fraction=0.5, page=False)

    if is_appended:
        run(6)
    monkeypatch.setattr(local_cores, "spread", lambda *_: (first, given, 1))
    monkeypatch.setattr(passes, "run_pass", noted)
    run(9 if is_appended else 6)
    assert [title for title, _ in seen] == ["Inspect", "Write"]
    assert seen[0][1] is first
    assert seen[1][1] is given


def test_the_runner_stays_the_local_one(monkeypatch):
    monkeypatch.setattr(local_cores, "usable_cores", lambda: 8)
    given = beam_flags.parse(["--runner=DirectRunner"], [])
    options, _, _ = local_cores.spread(given, 0, Listed(MANY))
    assert beam_flags.runs_locally(options)
