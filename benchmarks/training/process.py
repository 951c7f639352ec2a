"""The processes of `benchmarks.training`, one for each system, which measure when asked.

  python -m benchmarks.training.process '{"system": "bare", "config": {…}}'

makes the system, prints its facts as a line of JSON, and answers each line of its standard input,
a measurement's keyword arguments, with a line. It ends with its input. `torch_step.py` does the
same.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

from cxr_tfrecords.console.quiet import quiet_tensorflow
from cxr_tfrecords.errors import UserError
from trainer.settings.config import TrainConfig


def command(system: str, config: TrainConfig, **options: Any) -> list[str]:
    """Runs one of `systems.SYSTEMS`."""
    settings = {"system": system, "config": config.to_json(), **options}
    return [sys.executable, "-m", "benchmarks.training.process", json.dumps(settings)]


class Process:
    """A command that prints its facts when it is ready and then answers lines of JSON.

    Attributes:
      facts: what it said of itself; empty before `wait`.
    """

    def __init__(self, command: Sequence[str], env: Mapping[str, str] | None = None) -> None:
        self.facts: dict[str, Any] = {}
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=env,
        )

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        """Ends it; an answer that is still to come is lost."""
        self._process.kill()
        self._process.communicate()
        self._errors.close()

    def wait(self) -> None:
        """Returns when it is ready to be asked."""
        self.facts = self.facts or self.answer()

    def ask(self, arguments: Mapping[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(arguments) + "\n")
        self._process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        """The figures that the process measured.

        Raises:
          UserError: the process ended without an answer.
        """
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if line:
            return json.loads(line)
        code = self._process.wait()
        self._errors.seek(0)
        said = self._errors.read().decode(errors="replace").strip().splitlines()
        raise UserError(f"a system ended with exit code {code}: {' | '.join(said[-3:])}")


def run_together(processes: Sequence[Process], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Asks all at the same time, the workers of one training; the slowest one counts."""
    for process in processes:
        process.ask(arguments)
    answers = [process.answer() for process in processes]
    return max(answers, key=lambda answer: answer.get("seconds", 0.0))


def main() -> None:
    # Whatever the trainer says goes to standard error: the answers stand alone.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    quiet_tensorflow()
    from benchmarks.training.systems import SYSTEMS, VERSIONS

    settings = json.loads(sys.argv[1])
    config = TrainConfig.from_json(settings.pop("config"))
    system = SYSTEMS[settings.pop("system")](config, **settings)
    facts = {name: value for name, value in vars(system).items() if not name.startswith("_")}
    print(json.dumps(VERSIONS | facts), file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(system.measure(**json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main()
