"""The real commands in processes of their own, none of which outlives its test."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from tests.shared import ROOT
from tests.trainer import processes

BUILD = (sys.executable, "-m", "beam_pipelines.build")
SECONDS = 90  # a runner that cannot start its workers waits for ever

# Python imports this by itself at the start of every process: it notes who renames what.
_SITE = """
import os, sys
log = os.open(os.environ["RENAMES"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
def note(event, arguments):
    if event == "os.rename":
        os.write(log, f"{os.getpid()} {arguments[1]}\\n".encode(errors="replace"))
sys.addaudithook(note)
"""


def environment(**more: str) -> dict[str, str]:
    """This process's environment, in which the project can be imported from any folder."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **more}


class Renames:
    """Which process gave each file its final name, of all that run in `environment`."""

    def __init__(self, folder: pathlib.Path) -> None:
        (folder / "site").mkdir(parents=True)
        (folder / "site" / "sitecustomize.py").write_text(_SITE)
        self._log = folder / "renames.txt"
        paths = os.pathsep.join([str(folder / "site"), str(ROOT)])
        self.environment = environment(PYTHONPATH=paths, RENAMES=str(self._log))

    def processes(self, folder: pathlib.Path, part: str) -> set[int]:
        """Ids of those that renamed files right in a folder whose names hold `part`."""
        lines = [line.split(" ", 1) for line in self._log.read_text().splitlines()]
        return {
            int(pid)
            for pid, path in lines
            if os.path.dirname(path) == str(folder) and part in os.path.basename(path)
        }


@contextlib.contextmanager
def process(*command: str, **how: Any) -> Iterator[subprocess.Popen[str]]:
    """Starts a command in a session of its own; kills it with all that it has started.

    Args:
      how: as for `subprocess.Popen`; by default output is piped and `environment()` given.
    """
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": environment()}
    settings: dict[str, Any] = {**pipes, **how}
    started = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, text=True, start_new_session=True, **settings
    )
    try:
        yield started
    finally:
        kill(started)


def kill(started: subprocess.Popen[str]) -> None:
    """SIGKILL to a process and to all that it has started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(started.pid, signal.SIGKILL)
    started.wait()


@contextlib.contextmanager
def forked_build(*arguments: str, env: Mapping[str, str] | None = None) -> Iterator[Any]:
    """The build in a process of its own that need not import Beam; it must start no other.

    Yields what `process` does.
    """
    started = processes.Process("beam_pipelines.build", *arguments, env=env or environment())
    try:
        yield started
    finally:
        started.kill()
        started.communicate()


def finish(started: Any, seconds: float = SECONDS) -> subprocess.CompletedProcess[str]:
    output, errors = started.communicate(timeout=seconds)
    return subprocess.CompletedProcess(started.args, started.returncode, output, errors)


def build(
    *arguments: str, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs the build to its end, as `forked_build` does."""
    with forked_build(*arguments, env=env) as started:
        return finish(started)


def said(errors: str) -> list[str]:
    """Lines of standard error but those of progress bars."""
    lines = errors.replace("\r", "\n").split("\n")
    return [line for line in lines if line and " images/s" not in line and "?it/s" not in line]
