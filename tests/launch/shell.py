"""A shell whose programs are stand-ins that note how they were called."""

from __future__ import annotations

import pathlib
import shutil
import subprocess
import sys

from tests.shared import ROOT

LAUNCH = ROOT / "launch"

# Notes its name and arguments, one a line; fails where $FAILS is a part of them. Connections are
# tried for real.
STAND_IN = """#!/usr/bin/env bash
name="${0##*/}"
if [[ "$*" == *create_connection* ]]; then exec "$REAL_PYTHON" -I -S "$@"; fi
printf '%s\\n' "> $name" "$@" >>"$CALLS"
if [[ -n "$FAILS" && "$name $*" == *"$FAILS"* ]]; then exit 7; fi
"""
PROGRAMS = ("gcloud", "docker", "curl", "java", "python3")


class Shell:
    """Runs scripts in a folder of its own, where no other programs can be found."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.bin = folder / "bin"
        self.bin.mkdir()
        for name in ("bash", "env", "sed", "dirname"):
            (self.bin / name).symlink_to(shutil.which(name))
        for name in PROGRAMS:
            (self.bin / name).write_text(STAND_IN)
            (self.bin / name).chmod(0o755)

    def run(
        self, *command: str, fails: str = "", without: str = ""
    ) -> subprocess.CompletedProcess[str]:
        (self.folder / "calls").unlink(missing_ok=True)
        if without:
            (self.bin / without).unlink()
        environment = {
            "PATH": str(self.bin),
            "CALLS": str(self.folder / "calls"),
            "FAILS": fails,
            "REAL_PYTHON": sys.executable,
            "LC_ALL": "C.UTF-8",
        }
        return subprocess.run(
            ["bash", *command],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=30,
        )

    def script(self, name: str, *arguments: str, **how: str) -> subprocess.CompletedProcess[str]:
        return self.run(str(LAUNCH / name), *arguments, **how)

    def calls(self) -> list[list[str]]:
        """Every call of a stand-in: its name, then its arguments."""
        noted = self.folder / "calls"
        found: list[list[str]] = []
        for line in noted.read_text().splitlines() if noted.exists() else []:
            if line.startswith("> "):
                found.append([line[2:]])
            else:
                found[-1].append(line)
        return found

    def build_arguments(self) -> list[str]:
        """What reached the one call of beam_pipelines.build."""
        start = ["python3", "-m", "beam_pipelines.build"]
        (found,) = (call[3:] for call in self.calls() if call[:3] == start)
        return found


def assert_refused(done: subprocess.CompletedProcess[str], *parts: str) -> None:
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    for part in parts:
        assert part in done.stderr
