"""Decodes a file in a process of its own, which may crash or be stopped without harm.

Starting the process takes about half a second: this is for files under suspicion, and for those
that are larger than radiographs are and are read by more than one call of a library.
"""

from __future__ import annotations

import dataclasses
import io
import json
import os
import signal
import subprocess
import sys
import threading
from typing import cast

import numpy as np

from cxr_tfrecords import images
from cxr_tfrecords.decoding import jpeg, png
from cxr_tfrecords.errors import first_line
from cxr_tfrecords.images import BadImageError, Decoded

# Of processor time, so that a busy machine refuses no file that a quiet one takes.
SECONDS = 5
_WAIT_SECONDS = 60  # for a decoder that waits instead of working
_MEMORY = 3 << 30  # bytes that the process may allocate
_LARGE_FILE = 50 << 20  # bytes


def is_for_a_process(data: bytes) -> bool:
    """Whether a file is above 50 MiB and neither PNG nor JPEG, of which one call reads each."""
    return len(data) > _LARGE_FILE and not data.startswith((png.SIGNATURE, jpeg.START))


def decode(data: bytes, *, max_pixels: int = images.DEFAULT_MAX_PIXELS) -> Decoded:
    """As `images.decode`.

    Raises:
      BadImageError: the file cannot be used, ended the process, or took longer than `SECONDS`.
    """
    waits = False

    def stop() -> None:
        nonlocal waits
        waits = True
        process.kill()

    with _start(max_pixels, len(data)) as process:
        assert process.stdin
        assert process.stdout
        watch = threading.Timer(_WAIT_SECONDS, stop)
        watch.start()
        try:
            process.stdin.write(data)
            process.stdin.close()
            answer = json.loads(process.stdout.readline() or b"{}")
            if "shape" in answer:
                pixels = np.empty(answer.pop("shape"), np.uint8)
                into = pixels.data.cast("B")
                if cast(io.BufferedReader, process.stdout).readinto(into) == len(into):
                    return Decoded(pixels, **{**answer, "steps": tuple(answer["steps"])})
        except (BrokenPipeError, ValueError):
            answer = {}
        finally:
            watch.cancel()
    if "reason" in answer:
        raise BadImageError(answer["reason"])
    code = process.returncode
    name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    if waits or name == "SIGXCPU":
        raise BadImageError(f"decoding took more than {SECONDS} s and was stopped")
    raise BadImageError(f"the decoder ended by {name}: the file is damaged or made to do harm")


def _start(max_pixels: int, num_bytes: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "cxr_tfrecords.concurrency.decoding_process"),
            *(str(max_pixels), str(num_bytes)),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(one or os.getcwd() for one in sys.path)},
    )


def main() -> None:
    """The process: a file's bytes from standard input, an answer to standard output."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the process that waits for this
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # libraries may write there about damaged files
    data = sys.stdin.buffer.read(int(sys.argv[2]))  # without a number it would be kept twice
    if sys.platform != "win32":
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY, _MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        used = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
        limit = int(used + SECONDS) + 1
        resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 1))
    try:
        decoded = images.decode(data, max_pixels=int(sys.argv[1]))
    except BadImageError as error:
        answer: dict[str, object] = {"reason": str(error)}
    except MemoryError:
        answer = {"reason": "decoding it needs too much memory"}
    except Exception as error:
        answer = {"reason": f"it cannot be decoded ({first_line(error, 100)})"}
    else:
        pixels = np.ascontiguousarray(decoded.pixels)
        answer = {field.name: getattr(decoded, field.name) for field in dataclasses.fields(decoded)}
        del answer["pixels"]
        output.write(json.dumps({**answer, "shape": pixels.shape}).encode() + b"\n")
        output.write(pixels.data)
        output.close()
        return
    output.write(json.dumps(answer).encode() + b"\n")
    output.close()


if __name__ == "__main__":
    main()
