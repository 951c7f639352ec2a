"""A shell for the training launchers: real coreutils, a stand-in for the trainer.

The stand-in notes its TF_CONFIG, cores, folder and flags, then does what $BEHAVIOUR says: a piece
of shell that sees $index, the worker's, and $attempt, from 1.
"""

from __future__ import annotations

import json
import pathlib
import shutil
import signal
import subprocess
import sys
import time
from typing import Any

from tests.launch.shell import Shell

TRAINER = """#!/usr/bin/env bash
if [[ "$1" == -c ]]; then exec "$REAL_PYTHON" -I -S "$@"; fi
if [[ "$1 $2" != "-m trainer.main" ]]; then echo "python $*" >>"$NOTES/other"; exit; fi
index="${TF_CONFIG##*\\"index\\":}"
index="${index%%\\}*}"
echo >>"$NOTES/attempts-$index"
attempt=$(($(wc -l <"$NOTES/attempts-$index")))
note="$NOTES/worker-$index-$attempt"
printf '%s\\n' "$TF_CONFIG" "${CUDA_VISIBLE_DEVICES-}" "$PWD" "${PYTHONPATH-}" "$@" >"$note.part"
mv "$note.part" "$note"
echo "worker $index says hello"
# Short sleeps, so that none outlives its worker for long.
pause() { for ((i = 0; i < 10 * $1; i++)); do sleep 0.1; done; }
eval "$BEHAVIOUR"
"""
TOOLS = (
    *("cat", "cp", "date", "getconf", "grep", "ls", "mkdir", "mv", "rm", "seq", "sleep", "tail"),
    *("tee", "wc"),
)


def replace(path: pathlib.Path, text: str) -> None:
    """Makes a program. A link to a real one goes first: written through, that one would be lost."""
    path.unlink(missing_ok=True)
    path.write_text(text)
    path.chmod(0o755)


class TrainShell(Shell):
    """Runs launchers that start trainers; `notes` has what each worker saw at each attempt."""

    def __init__(self, folder: pathlib.Path) -> None:
        super().__init__(folder)
        for name in TOOLS:
            (self.bin / name).symlink_to(shutil.which(name))
        replace(self.bin / "python3", TRAINER)
        self.notes = folder / "notes"
        self.notes.mkdir()

    def stand_in(self, name: str, text: str) -> None:
        replace(self.bin / name, "#!/usr/bin/env bash\n" + text)

    def environment(self, behaviour: str) -> dict[str, str]:
        return {
            "PATH": str(self.bin),
            "CALLS": str(self.folder / "calls"),
            "FAILS": "",
            "REAL_PYTHON": sys.executable,
            "LC_ALL": "C.UTF-8",
            "NOTES": str(self.notes),
            "BEHAVIOUR": behaviour,
            "GRACE": "3",
        }

    def start(self, *command: str, behaviour: str = "") -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["bash", *command],
            cwd=self.folder,
            env=self.environment(behaviour),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def train(
        self, *command: str, behaviour: str = "", interrupt_after: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Runs to the end. With `interrupt_after`, ends it by SIGTERM once that note is there."""
        process = self.start(*command, behaviour=behaviour)
        try:
            if interrupt_after:
                self.wait_for(interrupt_after)
                process.send_signal(signal.SIGTERM)
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
        return subprocess.CompletedProcess(command, process.returncode, out, err)

    def wait_for(self, note: str) -> None:
        deadline = time.monotonic() + 30
        while not (self.notes / note).exists():
            assert time.monotonic() < deadline, f"{note} did not come"
            time.sleep(0.05)

    def worker(self, index: int, attempt: int = 1) -> dict[str, Any]:
        lines = (self.notes / f"worker-{index}-{attempt}").read_text().splitlines()
        return {
            "tf_config": json.loads(lines[0]),
            "gpus": lines[1],
            "folder": lines[2],
            "pythonpath": lines[3],
            "arguments": lines[4:],
        }

    def attempts(self, index: int) -> int:
        path = self.notes / f"attempts-{index}"
        return len(path.read_text()) if path.exists() else 0
