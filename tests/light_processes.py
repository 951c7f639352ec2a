"""`python -m MODULE ARGUMENTS…` without the time that importing NumPy and the like takes.

A server imports what every command imports and nothing slow; each command is a fork of it, a
process of its own in which chosen modules cannot be imported.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import pathlib
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Iterable

from tests.shared import ROOT


def run(
    module: str, *arguments: str, hidden: Iterable[str] = (), cwd: str | os.PathLike[str] = ROOT
) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end; to import a `hidden` module raises ModuleNotFoundError in it."""
    server = _server()
    with tempfile.TemporaryDirectory() as output:
        command = [module, *arguments]
        job = {"command": command, "hidden": [*hidden], "cwd": os.fspath(cwd), "output": output}
        assert server.stdin
        assert server.stdout
        server.stdin.write(json.dumps(job, default=str) + "\n")
        server.stdin.flush()
        code = int(server.stdout.readline())
        out, err = (pathlib.Path(output, name).read_text() for name in ("stdout", "stderr"))
    return subprocess.CompletedProcess(command, code, out, err)


@functools.cache
def _server() -> subprocess.Popen[str]:
    bytecode = tempfile.TemporaryDirectory()
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.light_processes", bytecode.name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    atexit.register(bytecode.cleanup)
    atexit.register(server.communicate)  # its standard input ends, and so does it
    return server


def _serve() -> None:
    before = set(sys.modules)
    import cxr_tfrecords.dataset_dir
    import cxr_tfrecords.settings  # noqa: F401

    preloaded = set(sys.modules) - before
    # What one command has compiled, the next one reads, also where the environment forbids files.
    sys.pycache_prefix, sys.dont_write_bytecode = sys.argv[1], False
    for line in sys.stdin:
        job = json.loads(line)
        child = os.fork()
        if not child:
            _become(preloaded=preloaded, **job)
            return
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def _become(command: list[str], hidden: list[str], cwd: str, output: str, preloaded: set) -> None:
    """In the fork: runs the command."""
    for number, name in enumerate(("stdout", "stderr"), start=1):
        file = os.open(os.path.join(output, name), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.chdir(cwd)
    assert not preloaded.intersection(hidden), preloaded.intersection(hidden)
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None: cannot be imported
    sys.argv = command
    runpy.run_module(command[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _serve()
