"""Checks of many files in processes that may die: the next one goes on after the file at fault."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import resource
import signal
import time
import traceback
from collections.abc import Callable

from tests.fuzz import checks, corpus, mutators

_ROOM = 2 << 30  # bytes of address space above what a worker starts with
_WALL_SECONDS = 300  # without a new file: a worker that waits for something
_STEP = 500  # files that a worker gets at once


@dataclasses.dataclass(frozen=True)
class Fault:
    """A file that broke a promise: its number, what it was made from and the reason."""

    number: int
    name: str
    reason: str


class _Worker:
    """A process that checks files, and what it says while it does."""

    def __init__(self, seed: int, start: int, stop: int) -> None:
        self.stop = stop
        self.current = _CONTEXT.RawValue("q", start)
        self.accepted = _CONTEXT.RawValue("q", 0)
        self.seen = start, time.monotonic()
        self.receiver, sender = _CONTEXT.Pipe(duplex=False)
        self.process = _CONTEXT.Process(
            target=_work, args=(seed, start, stop, self.current, self.accepted, sender), daemon=True
        )
        self.process.start()
        sender.close()

    def hangs(self) -> bool:
        if self.current.value != self.seen[0]:
            self.seen = self.current.value, time.monotonic()
        return time.monotonic() - self.seen[1] > _WALL_SECONDS


# Copies of this process: it has one thread, and its imports need not be done again.
_CONTEXT = multiprocessing.get_context("fork")


def run(
    seed: int, files: int, processes: int, progress: Callable[[int, int], None]
) -> tuple[list[Fault], int]:
    """Checks files 0 to `files` - 1 of a seed.

    Args:
      progress: is told the files that are done and the faults, after every few hundred.

    Returns:
      The faults, by number, and how many files were accepted as images or shards.
    """
    corpus.corpus()
    waiting = [(start, min(start + _STEP, files)) for start in range(0, files, _STEP)][::-1]
    running: list[_Worker] = []
    faults: list[Fault] = []
    accepted = done = 0
    while waiting or running:
        while waiting and len(running) < processes:
            running.append(_Worker(seed, *waiting.pop()))
        for worker in list(running):
            while worker.receiver.poll():
                try:
                    faults.append(Fault(*worker.receiver.recv()))
                except EOFError:
                    break
            if worker.hangs():
                worker.process.kill()
                worker.process.join()
            if worker.process.is_alive():
                continue
            running.remove(worker)
            accepted += worker.accepted.value
            at = worker.current.value
            if at < worker.stop:  # it died
                name, _ = mutators.mutated(seed, at)
                faults.append(Fault(at, name, _death(worker.process.exitcode or 0)))
                waiting.append((at + 1, worker.stop))
            done = files - sum(stop - start for start, stop in waiting)
            progress(done - sum(one.stop - one.current.value for one in running), len(faults))
        time.sleep(0.02)
    return sorted(faults, key=lambda fault: fault.number), accepted


def _death(code: int) -> str:
    if code == -signal.SIGPROF:
        return f"over {checks.SECONDS} s of processor time"
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def _work(seed: int, start: int, stop: int, current, accepted, sender) -> None:
    with open("/dev/null", "w") as nowhere:  # decoders print what they think of a file
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    with open("/proc/self/statm") as file:
        size = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + _ROOM, size + _ROOM))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)  # ends the process, in C code too
    for number in range(start, stop):
        current.value = number
        name, data = mutators.mutated(seed, number)
        signal.setitimer(signal.ITIMER_PROF, checks.SECONDS)
        try:
            accepted.value += checks.check(name.partition(":")[0], data)
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{os.path.basename(where.filename)}:{where.lineno}"
            sender.send((number, name, f"{type(error).__name__}: {error} ({place})"))
    signal.setitimer(signal.ITIMER_PROF, 0)
    current.value = stop
