"""Files whose decoders need much time or memory are decoded in a process with limits of both."""

import numpy as np
import pytest
from pydicom import uid

from beam_pipelines.inputs.sources import SourceFile
from beam_pipelines.settings.config import BuildConfig
from beam_pipelines.shards import inspection
from cxr_tfrecords import images
from cxr_tfrecords.concurrency import decoding_process
from cxr_tfrecords.concurrency.decoding_process import DecodingProcess, Limits
from cxr_tfrecords.decoding import dicom_limits, result
from tests import hostile
from tests.cxr_tfrecords.decoding.files import RAMP, as_file
from tests.dicom_files import dicom_file
from tests.fuzz.corpus import corpus


@pytest.fixture
def inspect(tmp_path):
    """Inspects one file as a worker does: its row and its record."""

    def run(data, name="a.dcm"):
        (tmp_path / name).write_bytes(data)
        work = inspection.Work(str(tmp_path), ("A", "B"), BuildConfig(image_size=16))
        with result.one_large_at_a_time():
            return inspection.inspect(SourceFile(name, 0, num_bytes=len(data)), work)[:2]

    return run


def test_a_large_compressed_dicom_has_the_same_row_and_record_from_a_process(inspect, monkeypatch):
    asked = []
    decode = decoding_process.decode

    def noted(source, **how):
        asked.append(source)
        return decode(source, **how)

    monkeypatch.setattr(decoding_process, "decode", noted)
    data = corpus()["dicom:JPEG-LS"]
    here = inspect(data)
    assert asked == []
    monkeypatch.setattr(result, "_COSTLY", 99)
    assert inspect(data) == here
    assert len(asked) == 1
    inspect(dicom_file(RAMP.astype(np.uint16)))  # not compressed: what it costs is known
    inspect(as_file(RAMP, "PNG"), "a.png")
    assert len(asked) == 1
    assert images.decode(data).format == "DICOM"  # outside of a build's block


def test_a_file_that_is_refused_in_a_process_keeps_the_facts_of_its_bytes(inspect, monkeypatch):
    monkeypatch.setattr(result, "_COSTLY", 99)
    data = corpus()["dicom:JPEG-LS"]
    row, record = inspect(data.replace(b"\xff\xd8", b"\xff\0"))
    assert "do not decode as JPEG-LS" in row["reason"]
    assert (row["num_bytes"], len(row["sha256"]), record) == (len(data), 64, b"")


def test_a_process_allocates_no_more_than_its_limit():
    process = DecodingProcess(decoding_process.whole, Limits(memory=45_000_000))
    try:
        small, large = (dicom_file(np.ones((side, 4000), np.uint16)) for side in (500, 4000))
        assert process.decode(small)[1].shape == (500, 4000)
        for kind in (large, dicom_file(np.ones((5000, 5000), np.uint16))):  # the file fits; no
            with pytest.raises(images.BadImageError, match="it needs too much memory"):
                process.decode(kind)
        assert process.decode(small)[1].shape == (500, 4000)
    finally:
        process.end()


@pytest.mark.parametrize("name", [one for one in corpus() if one.startswith("dicom:")])
def test_a_large_element_is_read_without_a_copy_and_gives_the_same_pixels(name, monkeypatch):
    data = corpus()[name]
    expected = images.decode(data)
    monkeypatch.setattr(dicom_limits, "_LARGE_READ", 600)  # more than a table of colours
    decoded = images.decode(data)
    np.testing.assert_array_equal(decoded.pixels, expected.pixels)
    assert {**vars(decoded), "pixels": 0} == {**vars(expected), "pixels": 0}


def test_a_png_counts_the_bytes_of_its_file_too():
    data = hostile.png(600, 16, 0, packs=False)
    assert images.decode(data, max_pixels=500_000).pixels.shape == (600, 600)
    with pytest.raises(images.BadImageError, match="bytes of the file, are more than"):
        images.decode(hostile.with_text(data, 1000, 2000), max_pixels=360_000)


def test_an_image_and_its_file_have_four_and_a_half_bytes_for_each_of_max_pixels():
    """So a build with the worst of files stays below 600 MB, as docs/faults.md says."""
    result.check_size(8000, 8000, 64_000_000, 2, 160_000_000)
    with pytest.raises(images.BadImageError, match="160,000,000 bytes of the file, are more than"):
        result.check_size(8000, 8000, 64_000_000, 3, 160_000_000)
    assert decoding_process._MEMORY <= 265_000_000


def test_pixels_of_16_bits_become_8_in_their_own_place():
    values = np.random.default_rng(0).integers(0, 1 << 14, (1300, 900)).astype(np.uint16)
    decoded = images.decode(as_file(values, "PNG"))
    top = (1 << 14) - 1
    np.testing.assert_array_equal(decoded.pixels, (values.astype(int) * 255 + top // 2) // top)
    assert decoded.steps == ("scaled from 14 of 16 bits",)


def test_a_compressed_dicom_that_needs_too_much_memory_says_so():
    large = {"width": 6400, "height": 6400}
    runs = hostile.dicom(hostile.run_lengths(6400 * 6400, 2), syntax=uid.RLELossless, **large)
    process = DecodingProcess(decoding_process.whole, Limits(memory=70_000_000))
    try:
        with pytest.raises(images.BadImageError, match=r"RLE Lossless: .* too much memory"):
            process.decode(runs)
    finally:
        process.end()
