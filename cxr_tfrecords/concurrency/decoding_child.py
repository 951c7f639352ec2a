"""What a process of `decoding_process` does: it decodes the files that it is given."""

from __future__ import annotations

import json
import os
import pickle
import signal
import sys
from typing import Any

import numpy as np

from cxr_tfrecords import files, images
from cxr_tfrecords.decoding.result import TOO_MUCH_MEMORY, BadImageError
from cxr_tfrecords.errors import first_line

NO_MEMORY = 74  # exit code of a process that cannot even read a file
LENGTH = 8  # bytes of the kind, and of the length, before each block


def main() -> None:
    """The process: blocks of bytes from standard input, an answer to each to standard output."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the process that waits for this
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # libraries may write there about damaged files
    then, limits = pickle.loads(_read_block()[1])
    if sys.platform != "win32":
        import resource

        most = _allocated() + limits.memory
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    while (block := _read_block())[0]:
        _allow_seconds(limits.cpu_s)
        answer, pixels = _answer(*block, then, limits)
        del block
        output.write(json.dumps(answer).encode() + b"\n")
        if pixels is not None:
            output.write(pixels.data)
        output.flush()
        pixels = None


def _read_block() -> tuple[bytes, bytes]:
    """Kind and content; two empty ones at the end."""
    head = sys.stdin.buffer.read(2 * LENGTH)
    if len(head) < 2 * LENGTH:
        return b"", b""
    # Without a number the content would be in memory twice.
    try:
        block = sys.stdin.buffer.read(int.from_bytes(head[LENGTH:], "little"))
    except MemoryError:
        os._exit(NO_MEMORY)
    return head[:LENGTH].rstrip(), block


def _allocated() -> int:
    """Bytes of this process that count for RLIMIT_DATA; 0 where the system does not tell."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[5]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def _allow_seconds(seconds: int) -> None:
    """Lets the process end by SIGXCPU after so many seconds of processor time from now."""
    if sys.platform != "win32":
        import resource

        used = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
        _, hard = resource.getrlimit(resource.RLIMIT_CPU)
        resource.setrlimit(resource.RLIMIT_CPU, (int(used + seconds) + 1, hard))


def _answer(
    kind: bytes, data: bytes, then: Any, limits: Any
) -> tuple[dict[str, Any], np.ndarray | None]:
    try:
        if kind == b"path":
            data = files.read_regular(os.fsdecode(data))
        facts, pixels = then(images.decode(data, max_pixels=limits.max_pixels))
    except BadImageError as error:
        return {"reason": str(error)}, None
    except MemoryError:
        return {"reason": TOO_MUCH_MEMORY}, None
    except Exception as error:
        return {"reason": f"it cannot be decoded ({first_line(error, 100)})"}, None
    pixels = np.ascontiguousarray(pixels)
    return {"facts": facts, "shape": pixels.shape}, pixels


if __name__ == "__main__":
    main()
