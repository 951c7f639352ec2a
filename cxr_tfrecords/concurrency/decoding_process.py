"""Decodes files in processes of their own, which may crash or be stopped without harm.

Starting a process takes about half a second; it then decodes one file after another.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any, cast

import numpy as np

from cxr_tfrecords import images
from cxr_tfrecords.concurrency.decoding_child import LENGTH, NO_MEMORY
from cxr_tfrecords.decoding import jpeg, png
from cxr_tfrecords.decoding.result import TOO_MUCH_MEMORY
from cxr_tfrecords.images import BadImageError, Decoded

_LARGE_FILE = 50 << 20  # bytes
_MEMORY = 265_000_000  # bytes for one file of a build
# From a decoded image to what is wanted of it: facts that JSON can hold, and uint8 pixels.
Then = Callable[[Decoded], tuple[dict[str, Any], np.ndarray]]


class DecoderEndedError(BadImageError):
    """The file ended its process, or had to be stopped with it."""


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a file may cost.

    Attributes:
      cpu_s: seconds of processor time, so that a busy machine refuses no file that a quiet one
        takes.
      wall_s: seconds in all, for a decoder that waits instead of working; the start of a new
        process included.
      memory: bytes that the process may allocate, besides those that it starts with.
      max_pixels: see `images.decode`.
    """

    cpu_s: int = 5
    wall_s: float = 60.0
    memory: int = 3 << 30
    max_pixels: int = images.DEFAULT_MAX_PIXELS


def is_for_a_process(data: bytes) -> bool:
    """Whether a file is above 50 MiB and neither PNG nor JPEG, of which one call reads each."""
    return len(data) > _LARGE_FILE and not data.startswith((png.SIGNATURE, jpeg.START))


def decode(source: bytes | str, *, max_pixels: int = images.DEFAULT_MAX_PIXELS) -> Decoded:
    """As `images.decode`, in a process for this file alone.

    Args:
      source: the file's bytes, or its path, so that they need not be in both processes.

    Raises:
      BadImageError: the file cannot be used, ended the process, or took too long.
    """
    process = DecodingProcess(whole, Limits(memory=_MEMORY, max_pixels=max_pixels))
    try:
        facts, pixels = process.decode(source)
    finally:
        process.end()
    return Decoded(pixels, **{**facts, "steps": tuple(facts["steps"])})


def whole(decoded: Decoded) -> tuple[dict[str, Any], np.ndarray]:
    """A `Then` for all of a decoded image."""
    facts = {field.name: getattr(decoded, field.name) for field in dataclasses.fields(decoded)}
    return facts, facts.pop("pixels")


class DecodingProcess:
    """A process that decodes one file after another, and is started again after its end; for one
    thread at a time.

    Args:
      then: a function that can be pickled; it runs in the process.
    """

    def __init__(self, then: Then, limits: Limits) -> None:
        self._start_with = pickle.dumps((then, limits))
        self._wall_s, self._cpu_s = limits.wall_s, limits.cpu_s
        self._ended = False
        self._lock = threading.Lock()  # so that no process starts after `end`
        self._start()

    def _start(self) -> None:
        paths = os.pathsep.join(one or os.getcwd() for one in sys.path)
        # Not a fork, which would copy the memory and the locks of other threads, nor spawned by
        # multiprocessing, which would run the user's script once more.
        self._process = subprocess.Popen(
            [sys.executable, "-m", "cxr_tfrecords.concurrency.decoding_child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # libraries write there about damaged files
            env={**os.environ, "PYTHONPATH": paths},
        )
        self._is_new = True

    def decode(self, source: bytes | str) -> tuple[dict[str, Any], np.ndarray]:
        """What `then` gives for a file, of which these are the bytes or the path.

        Raises:
          BadImageError: the file cannot be used.
          DecoderEndedError: it ended the process, or took too long.
        """
        with self._lock:
            # Of one that ended while it had nothing to do, as when memory is short.
            if not self._ended and self._process.poll() is not None:
                self._close()
                self._start()
        waits = False

        def stop() -> None:
            nonlocal waits
            waits = True
            self._process.kill()

        watch = threading.Timer(self._wall_s, stop)
        watch.daemon = True
        watch.start()
        try:
            answer, pixels = self._ask(source)
        except BaseException:  # Ctrl-C: nobody will read the answer that is on its way
            self._process.kill()
            self._process.wait()
            raise
        finally:
            watch.cancel()
            watch.join()
            if waits:  # so that the next file finds that it has ended
                self._process.wait()
        if pixels is not None:
            return answer, pixels
        if answer:
            raise BadImageError(answer["reason"])
        raise DecoderEndedError(self._death(waits))

    def _ask(self, source: bytes | str) -> tuple[dict[str, Any], np.ndarray | None]:
        """Facts and pixels; or a reason; or nothing, where the process has ended."""
        into, out = cast(io.BufferedWriter, self._process.stdin), self._process.stdout
        try:
            if self._is_new:
                _write_block(into, b"start", self._start_with)
            if isinstance(source, str):
                _write_block(into, b"path", os.fsencode(source))
            else:
                _write_block(into, b"bytes", source)
            into.flush()
            self._is_new = False
            answer = json.loads(cast(io.BufferedReader, out).readline())
            if "shape" not in answer:
                return answer, None
            pixels = np.empty(answer["shape"], np.uint8)
            buffer = pixels.reshape(-1).data
            if cast(io.BufferedReader, out).readinto(buffer) == len(buffer):
                return answer["facts"], pixels
        except (OSError, ValueError):  # the pipe is closed, an answer that was cut off
            pass
        return {}, None

    def _death(self, waits: bool) -> str:
        code = self._process.wait()
        if code == NO_MEMORY:
            return TOO_MUCH_MEMORY
        name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        if waits or name == "SIGXCPU":
            seconds = self._wall_s if waits else self._cpu_s
            return f"decoding took more than {seconds:g} s and was stopped"
        return f"the decoder ended by {name}: the file is damaged or made to do harm"

    def end(self) -> None:
        """Ends the process; a thread that waits for its answer gets the error of a dead one."""
        with self._lock:
            self._ended = True
            self._process.kill()
            self._process.wait()
            self._close()

    def _close(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                with contextlib.suppress(OSError):  # what could not be written any more
                    pipe.close()


class DecodingProcesses:
    """As many processes as threads that ask at the same time; each decodes file after file.

    They end with this object, or with this process.

    Args:
      then, limits: see `DecodingProcess`.
      start: processes to start at once; others start when they are needed.
    """

    def __init__(self, then: Then, limits: Limits, start: int = 0) -> None:
        self._then, self._limits = then, limits
        self._lock = threading.Lock()
        self._all = [DecodingProcess(then, limits) for _ in range(start)]
        # The last one used comes first, so that one that nobody needs does not wake up.
        self._idle = list(self._all)
        self.closed = False
        self._finalizer = weakref.finalize(self, _end_all, self._all)

    def decode(self, source: bytes | str) -> tuple[dict[str, Any], np.ndarray]:
        """As `DecodingProcess.decode`; for several threads at once."""
        with self._lock:
            if self.closed:
                raise DecoderEndedError("the decoders have ended")
            if not self._idle:
                self._all.append(DecodingProcess(self._then, self._limits))
                self._idle.append(self._all[-1])
            process = self._idle.pop()
        try:
            return process.decode(source)
        finally:
            with self._lock:
                self._idle.append(process)

    def close(self) -> None:
        """Ends the processes, those too that decode."""
        with self._lock:
            self.closed = True
        self._finalizer()


def _end_all(processes: list[DecodingProcess]) -> None:
    for process in processes:
        process.end()


def _write_block(into: io.BufferedWriter, kind: bytes, block: bytes) -> None:
    into.write(kind.ljust(LENGTH) + len(block).to_bytes(LENGTH, "little"))
    into.write(block)
