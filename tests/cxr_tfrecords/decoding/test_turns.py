"""Large images are decoded one at a time in a process, and memory is counted before it is taken."""

import threading
import tracemalloc

import pytest
from pydicom import uid

from cxr_tfrecords import images
from cxr_tfrecords.decoding import dicom_limits, result, turns
from tests import hostile
from tests.cxr_tfrecords.decoding.files import RAMP, as_file


class Other:
    """A thread that decodes a file of so many bytes as a build does, and then waits."""

    def __init__(self, num_bytes):
        self.started, self.end = threading.Event(), threading.Event()
        self.thread = threading.Thread(target=self._run, args=(num_bytes,), daemon=True)
        self.thread.start()

    def _run(self, num_bytes):
        with result.one_large_at_a_time():
            result.take_turn_if_large(num_bytes)
            self.started.set()
            self.end.wait(60)

    def waits(self):
        return not self.started.wait(0.2)

    def finish(self):
        assert self.started.wait(60)
        self.end.set()
        self.thread.join()


def test_one_large_image_is_decoded_at_a_time_and_small_ones_meanwhile(monkeypatch):
    monkeypatch.setattr(result, "_MIDDLE", 500)
    monkeypatch.setattr(result, "_LARGE", 1000)
    data = as_file(RAMP, "PNG")
    with result.one_large_at_a_time():
        images.decode(data)
        images.decode(data)  # as a mask of the same image
        large, middle = Other(1001), Other(501)
        assert large.waits()
        assert middle.waits()
        Other(500).finish()
    large.finish()
    middle.finish()
    images.decode(data)
    with result.one_large_at_a_time():
        images.check_file_size(20_000, images.DEFAULT_MAX_PIXELS)
        large = Other(1001)
        assert large.waits()
    large.finish()


def test_images_of_middle_size_are_decoded_together_but_not_beside_a_large_one(monkeypatch):
    monkeypatch.setattr(result, "_MIDDLE", 500)
    monkeypatch.setattr(result, "_LARGE", 1000)
    middle = Other(501)
    assert middle.started.wait(60)
    with result.one_large_at_a_time():
        result.take_turn_if_large(1000)  # beside the other
    large = Other(1001)
    assert large.waits()
    later = Other(501)  # lest large ones wait for ever
    assert later.waits()
    middle.finish()
    large.finish()
    later.finish()


def test_two_files_of_middle_size_that_unpack_to_large_images_do_not_wait_for_each_other(
    monkeypatch,
):
    monkeypatch.setattr(result, "_MIDDLE", 500)
    monkeypatch.setattr(result, "_LARGE", 1000)
    both = threading.Barrier(2)

    def decode():
        with result.one_large_at_a_time():
            result.take_turn_if_large(600)
            both.wait(60)
            result.take_turn_if_large(6000)

    threads = [threading.Thread(target=decode, daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()


def test_freed_memory_is_given_back_after_a_large_image(monkeypatch):
    trims = []
    monkeypatch.setattr(turns, "_malloc_trim", lambda: trims.append)
    with result.one_large_at_a_time():
        result.take_turn_if_large(32 << 20)
    assert trims == []
    with result.one_large_at_a_time():
        result.take_turn_if_large((32 << 20) + 1)
        assert trims == []
    assert trims == [0]


def test_what_a_deflated_dicom_unpacks_to_takes_a_turn(monkeypatch):
    asked = []
    monkeypatch.setattr(dicom_limits, "take_turn_if_large", asked.append)
    data = hostile.dicom(bytes(3 << 20), 64, 64, uid.DeflatedExplicitVRLittleEndian)
    with pytest.raises(images.BadImageError):
        images.decode(data)
    assert max(asked) > 3 << 20


def test_chunks_of_text_are_counted_before_the_others_are_copied(monkeypatch):
    data = hostile.with_text(hostile.png(600, 16, 0, packs=False), 1000, 2000)
    tracemalloc.start()
    try:
        with pytest.raises(images.BadImageError, match="bytes of the file, are more than"):
            images.decode(data, max_pixels=360_000)
        assert tracemalloc.get_traced_memory()[1] < 500_000
    finally:
        tracemalloc.stop()
