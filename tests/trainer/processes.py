"""`python -m MODULE FLAGS…` without the seconds that importing TensorFlow or Beam takes.

A server imports them and the project once and starts nothing of theirs; each command is a fork of
it: a process of its own, with its own flags, environment, signals and exit code.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pathlib
import runpy
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from multiprocessing import forkserver

from tests.shared import ROOT

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.trainer.preloaded"])


def _start_server() -> None:
    """In the project's folder, where the server finds `tests`: elsewhere it would import a package
    of that name that others have installed."""
    here = os.getcwd()
    os.chdir(ROOT)
    try:
        forkserver.ensure_running()
    finally:
        os.chdir(here)


class Process:
    """A running command; the methods and attributes are those of `subprocess.Popen`.

    Args:
      module: its name, or `-c` with Python code as the first of the flags.
    """

    def __init__(self, module: str, *flags: str, env: Mapping[str, str] | None = None):
        self.args = [module, *flags]
        self.returncode: int | None = None
        self._output = tempfile.TemporaryDirectory()
        environment = dict(os.environ if env is None else env)
        arguments = (self.args, environment, os.getcwd(), self._output.name)
        self._process = _CONTEXT.Process(target=_run, args=arguments)
        _start_server()
        self._process.start()
        self.pid = self._process.pid

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Standard output and error, once the process has ended."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        self.returncode = self._process.exitcode
        out, err = (
            (pathlib.Path(self._output.name) / name).read_text() for name in ("stdout", "stderr")
        )
        return out, err

    def read_output(self) -> str:
        """Standard output so far."""
        path = pathlib.Path(self._output.name) / "stdout"
        return path.read_text() if path.exists() else ""

    def poll(self) -> int | None:
        self.returncode = self._process.exitcode
        return self.returncode

    def kill(self) -> None:
        self._process.kill()


def run(
    module: str, *flags: str, env: Mapping[str, str] | None = None, timeout: float = 900
) -> subprocess.CompletedProcess[str]:
    """Runs the command to its end; after `timeout` seconds it is killed, and that is an error."""
    process = Process(module, *flags, env=env)
    try:
        out, err = process.communicate(timeout)
    finally:
        process.kill()
    assert process.returncode is not None
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def _run(command: list[str], env: dict[str, str], cwd: str, output: str) -> None:
    """In the fork: becomes the command."""
    for number, name in ((1, "stdout"), (2, "stderr")):
        file = os.open(os.path.join(output, name), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if env.get("PYTHONPATH"):  # as at the start of Python
        sys.path[:0] = env["PYTHONPATH"].split(os.pathsep)
        with contextlib.suppress(ImportError):
            import sitecustomize  # noqa: F401
    if command[0] == "-c":
        sys.argv = ["-c", *command[2:]]
        exec(compile(command[1], "<string>", "exec"), {"__name__": "__main__"})
        return
    sys.argv = list(command)
    runpy.run_module(command[0], run_name="__main__", alter_sys=True)
