"""A slice of `make fuzz`, and that it finds what it looks for."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

# In a process of its own, because a copy of one that has threads may stop for ever.
_RUN = """
import json, os, signal, sys
import numpy as np
from cxr_tfrecords import images
from tests.fuzz import checks, workers

def no_progress(done, faults): pass

faults, accepted = workers.run(int(sys.argv[2]), int(sys.argv[1]), 2, no_progress)
lines, reasons = [f"{fault.number} {fault.name} {fault.reason}" for fault in faults], []
if sys.argv[3] == "broken":
    hoard = []

    def decode(data, max_pixels):
        number = next(calls)
        if number == 2: os.kill(os.getpid(), signal.SIGSEGV)
        if number == 4: raise KeyError("lost")
        if number == 6: hoard.append(np.ones(1 << 27, np.uint8))
        if number == 8: return images.Decoded(np.zeros((4, 4), np.float32), "", "")
        if number == 10: return images.Decoded(np.empty((99, 99), np.uint8), "", "")
        while number == 12: pass
        return images.Decoded(np.zeros((4, 4), np.uint8), "", "")

    images.decode, checks.SECONDS = decode, 0.5
    workers.mutators.mutated = lambda seed, number: (f"png:{number}", b"x")
    for number in (0, 2, 4, 6, 8, 10, 12):
        calls = iter([number, 0])
        reasons += [fault.reason for fault in workers.run(0, 1, 1, no_progress)[0]]
print(json.dumps([accepted, lines, reasons]))
"""


def run(files: int, seed: int, kind: str = "") -> tuple[int, list[str], list[str]]:
    done = subprocess.run(
        [sys.executable, "-c", _RUN, str(files), str(seed), kind], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return tuple(json.loads(done.stdout))


def test_damaged_files_and_one_broken_promise_of_each_kind():
    accepted, faults, broken = run(250, 1, "broken")
    assert faults == []
    assert 50 < accepted < 200  # neither all refused nor all as before
    words = "SIGSEGV", "KeyError: 'lost'", " MB for a file", "float32", "two answers", "over 0.5 s"
    assert len(broken) == len(words)
    for reason, word in zip(broken, words, strict=True):
        assert word in reason


@pytest.mark.slow
def test_thousands_of_damaged_files():
    assert run(5000, 2)[1] == []
