"""A file that crashes or holds up a decoder costs its process and nothing else."""

import dataclasses
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from cxr_tfrecords import images
from cxr_tfrecords.images import BadImageError
from cxr_tfrecords.reading import Reading
from trainer.deployment.decoders import Decoders


@dataclasses.dataclass(frozen=True)
class Trapped(Reading):
    """What a file does, its first pixel says: it stands for a fault in a decoder."""

    def prepare(self, pixels):
        if pixels[0, 0] == 1:
            os.kill(os.getpid(), signal.SIGSEGV)
        if pixels[0, 0] == 2:
            time.sleep(60)
        if pixels[0, 0] == 3:
            np.ones(6 << 30, np.uint8)
        return super().prepare(pixels)


def file(first):
    return images.encode(np.full((9, 9, 1), first, np.uint8), "png")


def make(**limits):
    return Decoders(Trapped(8, 1), processes=1, show=True, **{"wall_s": 60.0, **limits})


def process(decoders):
    (only,) = decoders._processes._all
    return only


def test_a_crash_or_a_slow_file_costs_its_process_alone(capfd):
    decoders = make()
    try:
        assert decoders.decode(file(9)).pixels.shape == (8, 8, 1)
        assert decoders.decode(file(9)).warning == "all pixels have one value"
        with pytest.raises(BadImageError, match="needs too much memory"):
            decoders.decode(file(3))
        with pytest.raises(BadImageError, match="the decoder ended by SIGSEGV"):
            decoders.decode(file(1))
        assert decoders.decode(file(9)).format == "PNG"
        process(decoders)._wall_s = 0.2
        with pytest.raises(BadImageError, match=r"took more than 0\.2 s and was stopped"):
            decoders.decode(file(2))
        process(decoders)._wall_s = 60.0
        process(decoders)._process.kill()  # as the kernel does when memory is short
        process(decoders)._process.wait()
        assert decoders.decode(file(9)).steps == ()
    finally:
        decoders.close()
    assert process(decoders)._process.poll() is not None
    assert capfd.readouterr().err.count("a decoding process crashed or was too slow") == 2


def test_a_file_in_work_when_the_server_ends_starts_no_new_process():
    decoders = make()
    decoders.decode(file(9))
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(decoders.decode, file(2))
        while decoders._processes._idle:
            time.sleep(0.01)
        decoders.close()
        with pytest.raises(BadImageError, match="is being stopped"):
            answer.result(30)
    assert process(decoders)._process.poll() is not None


def test_a_file_that_comes_after_the_end_starts_no_process():
    decoders = make()
    decoders.close()
    with pytest.raises(BadImageError, match="is being stopped"):
        decoders.decode(file(9))
    assert process(decoders)._process.poll() is not None


def test_processes_start_as_threads_ask_and_end_with_their_owner():
    decoders = Decoders(Trapped(8, 1))
    assert decoders._processes._all == []
    decoders.decode(file(9))
    decoders.decode(file(9))
    (only,) = decoders._processes._all  # one thread, one process
    del decoders
    assert only._process.poll() is not None
