"""Ctrl-C and SIGTERM: one line, an exit code, and everything finished is kept."""

import signal
import sys

import pytest

from cxr_tfrecords import verify
from tests.beam_pipelines import commands
from tests.beam_pipelines.radiographs import write_radiographs
from tests.beam_pipelines.test_build import digests

FLAGS = ("--near_distance=-1", "--image_size=24", "--worker_threads=1", "--nostats")

# Imported by Python at the start of a command: sends it a signal when it opens such a path.
SITE = """
import os, sys
number, part = os.environ["AT_OPEN"].split(":")
def meddle(event, arguments):
    if event == "open" and part in str(arguments[0]):
        os.kill(os.getpid(), int(number))
sys.addaudithook(meddle)
"""
COMMANDS = {
    "build": ("beam_pipelines.build", "Normal-70.png"),  # of the second part of files
    "append": ("beam_pipelines.build", "Normal-70.png"),
    "verify": ("cxr_tfrecords.verify", ".tfrecord-"),
    "stats": ("cxr_tfrecords.stats", "sources.csv"),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code", "line"),
    [
        (signal.SIGINT, 130, "interrupted: "),
        pytest.param(signal.SIGTERM, 75, "SIGTERM: ", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("name", COMMANDS)
def test_a_signal_is_one_line_and_the_same_command_finishes(tmp_path, name, number, code, line):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(SITE)
    first = write_radiographs(tmp_path / "first", {"COVID": 30, "Normal": 30})
    root = write_radiographs(tmp_path / "in", {"COVID": 50, "Normal": 90})
    out = tmp_path / "out"
    build = (f"--output_dir={out}", *FLAGS)
    if name != "build":
        assert commands.build(f"--input_dir={first}", *build).returncode == 0
    before = digests(out) if name != "build" else {}
    module, part = COMMANDS[name]
    arguments = [str(out)]
    if module.endswith("build"):
        arguments = [f"--input_dir={root}", f"--output_dir={out}", "--nostats"]
        arguments += ["--append"] if name == "append" else FLAGS[:3]
    paths = f"{tmp_path / 'site'}:{commands.ROOT}"
    env = commands.environment(PYTHONPATH=paths, AT_OPEN=f"{int(number)}:{part}")
    with commands.process(sys.executable, "-m", module, *arguments, env=env) as started:
        done = commands.finish(started)
    assert done.returncode == code, done.stderr
    (said,) = [text for text in commands.said(done.stderr) if " images" not in text]
    assert said.startswith(line)
    assert said.endswith("run the same command again" + " to go on" * module.endswith("build"))
    if name == "build":
        assert list((out / ".build" / "inspected").glob("*.parquet"))  # the first part of files
    else:
        assert {file: digests(out).get(file) for file in before} == before
    with commands.process(sys.executable, "-m", module, *arguments) as started:
        assert commands.finish(started).returncode == 0
    assert verify.verify(str(out)).faults == []
