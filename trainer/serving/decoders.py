"""Processes that decode uploads: a file that crashes or holds up a decoder does not end the server.

A process imports the reading of images alone, no TensorFlow. `concurrent.futures` is not used: its
pool loses all files in work when one process dies, and cannot end a process that is too slow.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import queue
import signal
import sys
import threading
from multiprocessing.connection import Connection

import numpy as np

from cxr_tfrecords import images
from cxr_tfrecords.errors import first_line
from cxr_tfrecords.images import BadImageError
from cxr_tfrecords.reading import Reading
from trainer.deployment.colour import check_gray

# Bytes that a process may allocate. An image of `images.DEFAULT_MAX_PIXELS` needs less; a DICOM
# file that is compressed as a whole may unpack to any size.
MEMORY = 4 << 30


@dataclasses.dataclass(frozen=True)
class Radiograph:
    """A decoded upload.

    Attributes:
      pixels: uint8 [size, size, channels], as `Reading.prepare` gives them.
      format: of the file, by its content.
      steps: what was done to the stored values, in words.
      warning: why somebody should look at the image, or ''.
    """

    pixels: np.ndarray
    format: str
    steps: tuple[str, ...]
    warning: str


class Decoders:
    """A fixed number of decoding processes.

    Args:
      reading: of the model.
      processes: how many files are decoded at once.
      timeout_s: seconds that a file may take, the start of a new process included.
    """

    def __init__(self, reading: Reading, processes: int, timeout_s: float) -> None:
        # The last one used comes first, so that a process that nobody needs does not wake up.
        self._idle: queue.LifoQueue[_Worker] = queue.LifoQueue()
        self._workers = [_Worker(reading, timeout_s) for _ in range(processes)]
        for worker in self._workers:
            self._idle.put(worker)

    def decode(self, data: bytes) -> Radiograph:
        """Decodes a file as soon as a process is free; for several threads at once.

        Raises:
          BadImageError: it cannot be used, took too long, or ended the process.
        """
        worker = self._idle.get()
        try:
            answer = worker.decode(data)
        finally:
            self._idle.put(worker)
        if isinstance(answer, str):
            raise BadImageError(answer)
        return answer

    def close(self) -> None:
        """Ends the processes."""
        for worker in self._workers:
            worker.end()


class _Worker:
    def __init__(self, reading: Reading, timeout_s: float) -> None:
        self._reading = reading
        self._timeout_s = timeout_s
        self._ended = False
        self._lock = threading.Lock()  # so that no process starts after `end`
        self._start()

    def _start(self) -> None:
        # Not fork: it would copy the memory and the locks of TensorFlow's threads.
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs, self._reading), daemon=True)
        self._process.start()
        theirs.close()

    def decode(self, data: bytes) -> Radiograph | str:
        if not self._process.is_alive():  # ended while it had nothing to do
            self._replace()
        try:
            self._pipe.send_bytes(data)
            if self._pipe.poll(self._timeout_s):
                return self._pipe.recv()
            reason = f"decoding took more than {self._timeout_s:g} s and was stopped"
        except (EOFError, OSError):
            reason = "decoding it crashed: the file is damaged or made to do harm"
        if self._ended:
            return "the server is being stopped"
        print("a decoding process crashed or was too slow: replaced", file=sys.stderr, flush=True)
        self._replace()
        return reason

    def _replace(self) -> None:
        with self._lock:
            if not self._ended:
                self._kill()
                self._pipe.close()
                self._start()

    def end(self) -> None:
        with self._lock:
            self._ended = True
            self._kill()  # a thread that waits for its answer reads the end of the pipe

    def _kill(self) -> None:
        self._process.kill()
        self._process.join()


def _work(pipe: Connection, reading: Reading) -> None:
    """What a process does until the other end of the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the server, which ends this
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libraries write there about damaged files
    if sys.platform != "win32":
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    while True:
        try:
            data = pipe.recv_bytes()
        except EOFError:
            return
        pipe.send(_decode(data, reading))


def _decode(data: bytes, reading: Reading) -> Radiograph | str:
    try:
        decoded = images.decode(data)
        check_gray(decoded.pixels)
        pixels = reading.prepare(decoded.pixels)
    except BadImageError as error:
        return str(error)
    except MemoryError:
        return "decoding it needs too much memory"
    except Exception as error:
        return f"it cannot be decoded ({first_line(error, 100)})"
    return Radiograph(pixels, decoded.format, decoded.steps, images.warning_of(decoded))
