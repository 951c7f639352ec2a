"""Runs a command in a process of its own and measures what it costs.

CPU is user and system time of the command and of all children that it waited for. Peak memory is
the PSS of its whole process tree, seen every 50 ms: pages that processes share count once, which
a sum of resident sizes would not do. (Pages shared with processes outside the tree, such as
libraries that another Python has loaded too, count in part: measure on an idle machine.) Looking
costs this process CPU, not the measured one.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence

_SAMPLE_SECONDS = 0.05
_TAIL_BYTES = 1 << 16


@dataclasses.dataclass(frozen=True)
class Measurement:
    """What one run of a command cost.

    Attributes:
      exit_code: negative: the signal that ended it.
      wall_s, cpu_s: seconds.
      peak_pss_mb: 10^6 bytes; None where the system does not tell (only Linux does).
      error_lines: the last lines of its standard error.
      output: the last of its standard output.
    """

    exit_code: int
    wall_s: float
    cpu_s: float
    peak_pss_mb: float | None
    error_lines: tuple[str, ...]
    output: str = ""


def measure(
    command: Sequence[str],
    *,
    cwd: str | None = None,
    env: Mapping[str, str] | None = None,
    error_lines: int = 8,
) -> Measurement:
    """Runs a command to its end; its output is not shown.

    Args:
      env: added to this process's environment.
      error_lines: how many lines of standard error to keep.
    """
    with tempfile.TemporaryFile() as errors, tempfile.TemporaryFile() as output:
        started = time.monotonic()
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            start_new_session=True,  # so that an interrupt can end its children as well
        )
        sampler = _PeakSampler(process.pid)
        try:
            # Unlike getrusage(RUSAGE_CHILDREN) this is of one child, not of all so far.
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
        finally:
            sampler.stop()
        wall = time.monotonic() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        return Measurement(
            exit_code=process.returncode,
            wall_s=wall,
            cpu_s=usage.ru_utime + usage.ru_stime,
            peak_pss_mb=sampler.peak_bytes / 1e6 if sampler.peak_bytes else None,
            error_lines=_last_lines(errors.fileno(), error_lines),
            output=_tail(output.fileno()),
        )


class _PeakSampler:
    """Watches a process tree's memory from a thread until it is stopped."""

    def __init__(self, pid: int) -> None:
        self.peak_bytes = 0
        self._pid = pid
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            pss = sum(map(_pss_bytes, process_tree(self._pid)))
            self.peak_bytes = max(self.peak_bytes, pss)
            if self._stop.wait(_SAMPLE_SECONDS):
                return


def process_tree(pid: int) -> Iterator[int]:
    """A process and all below it that run now."""
    yield pid
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return
    for thread in threads:
        try:
            with open(f"/proc/{pid}/task/{thread}/children") as file:
                children = file.read().split()
        except OSError:  # the thread has ended since
            continue
        for child in children:
            yield from process_tree(int(child))


def _pss_bytes(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/smaps_rollup") as file:
            for line in file:
                if line.startswith("Pss:"):
                    return int(line.split()[1]) * 1024
    except OSError:  # it has ended since
        pass
    return 0


def _tail(descriptor: int) -> str:
    size = os.fstat(descriptor).st_size
    start = max(0, size - _TAIL_BYTES)
    return os.pread(descriptor, size - start, start).decode(errors="replace")


def _last_lines(descriptor: int, count: int) -> tuple[str, ...]:
    text = _tail(descriptor)
    # Progress bars draw one state over the other with carriage returns: only the last one counts.
    lines = [line.rstrip().rpartition("\r")[2] for line in text.split("\n")]
    return tuple(line for line in lines if line.strip())[-count:]
