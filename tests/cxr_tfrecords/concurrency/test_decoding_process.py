"""A process for one file: the same answer as here, and no harm from a decoder that crashes."""

import numpy as np
import pytest

from cxr_tfrecords import images
from cxr_tfrecords.concurrency import decoding_process
from cxr_tfrecords.concurrency.decoding_process import DecodingProcess, Limits
from tests import crashing_decoder
from tests.cxr_tfrecords.decoding.files import RAMP, as_file
from tests.dicom_files import dicom_file


def test_a_file_is_decoded_as_in_this_process():
    data = dicom_file(RAMP.astype(np.uint16), PatientID="17", IssuerOfPatientID="A")
    expected, decoded = images.decode(data), decoding_process.decode(data)
    np.testing.assert_array_equal(decoded.pixels, expected.pixels)
    assert {**vars(decoded), "pixels": 0} == {**vars(expected), "pixels": 0}
    with pytest.raises(images.BadImageError, match="more than --max_pixels=5"):
        decoding_process.decode(data, max_pixels=5)


def test_large_files_other_than_png_and_jpeg_are_for_a_process(monkeypatch):
    files = {kind: as_file(RAMP, kind) for kind in ("PNG", "JPEG", "BMP", "TIFF", "GIF")}
    assert not any(decoding_process.is_for_a_process(data) for data in files.values())
    monkeypatch.setattr(decoding_process, "_LARGE_FILE", 10)
    apart = [kind for kind, data in files.items() if decoding_process.is_for_a_process(data)]
    assert apart == ["BMP", "TIFF", "GIF"]


@pytest.mark.parametrize(
    ("action", "reason"),
    [
        ("crash", "the decoder ended by SIGSEGV"),
        ("wait", "decoding took more than 2 s and was stopped"),
        pytest.param("work", "decoding took more than 5 s and was stopped", marks=pytest.mark.slow),
    ],
)
def test_a_decoder_that_crashes_or_does_not_end_is_the_reason(
    tmp_path, monkeypatch, action, reason
):
    monkeypatch.syspath_prepend(crashing_decoder.site(tmp_path / "site"))
    monkeypatch.setenv("AT_DECODE", action)
    limits = Limits(wall_s=2 if action == "wait" else 60)
    process = DecodingProcess(decoding_process.whole, limits)
    try:
        with pytest.raises(decoding_process.DecoderEndedError, match=reason):
            process.decode(crashing_decoder.deadly_png())
        _, pixels = process.decode(as_file(RAMP, "PNG"))  # a new one
        np.testing.assert_array_equal(pixels, RAMP)
    finally:
        process.end()
