"""A decoder that ends the process: the next run finds the file, and does without it."""

import os

import pytest

from tests import crashing_decoder
from tests.beam_pipelines import commands
from tests.beam_pipelines.radiographs import write_radiographs
from tests.beam_pipelines.test_build import digests
from tests.beam_pipelines.test_faults import FLAGS, build, read_sources

ALLOWED = (*FLAGS[:3], "--nostats", "--max_bad_fraction=0.5")
DEADLY = "COVID/images/COVID-3x.png"
REASON = "the decoder ended by SIGSEGV: the file is damaged or made to do harm"


@pytest.mark.parametrize(
    "how",
    [
        ("--worker_threads=1",),
        pytest.param(
            ("--direct_running_mode=multi_processing", "--direct_num_workers=2"),
            marks=pytest.mark.slow,
        ),
    ],
    ids=["in_memory", "multi_processing"],
)
def test_a_file_that_kills_the_build_is_set_aside_by_the_next_run(tmp_path, how):
    root = write_radiographs(tmp_path / "in", {"COVID": 12, "Normal": 18})
    site = crashing_decoder.site(tmp_path / "site")
    env = commands.environment(PYTHONPATH=os.pathsep.join([site, str(commands.ROOT)]))

    out, without = tmp_path / "out", tmp_path / "without"

    def run():
        arguments = (f"--input_dir={root}", f"--output_dir={out}", *ALLOWED, *how)
        if len(how) == 1:
            return commands.build(*arguments, env=env)
        with commands.process(*commands.BUILD, *arguments, env=env) as started:
            return commands.finish(started)

    build(root, without, page=False)
    (root / DEADLY).write_bytes(crashing_decoder.deadly_png())
    died = run()
    if len(how) == 1:
        assert died.returncode == -11
    else:  # the build itself is not killed
        assert died.returncode == 75
        (line,) = commands.said(died.stderr)
        assert line.startswith("a worker process ended while it decoded ")
        assert DEADLY in line
        assert line.endswith(": run the same command again to go on")
    done = run()
    assert done.returncode == 0, done.stderr
    assert "an earlier run ended, or was stopped, while it decoded " in done.stdout
    assert "nothing need be wrong with them" in done.stdout  # most often it was Ctrl-C
    assert read_sources(out)[DEADLY]["reason"] == REASON
    shards = {name: digest for name, digest in digests(out).items() if name.startswith("cxr-")}
    assert len(shards) == 12
    assert shards.items() <= digests(without).items()
