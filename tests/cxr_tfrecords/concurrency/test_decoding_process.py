"""A process for one file: the same answer as here, and no harm from a decoder that crashes."""

import numpy as np
import pytest

from cxr_tfrecords import images
from cxr_tfrecords.concurrency import decoding_process
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
        ("wait", "decoding took more than 5 s and was stopped"),
        pytest.param("work", "decoding took more than 5 s and was stopped", marks=pytest.mark.slow),
    ],
)
def test_a_decoder_that_crashes_or_does_not_end_is_the_reason(
    tmp_path, monkeypatch, action, reason
):
    monkeypatch.syspath_prepend(crashing_decoder.site(tmp_path / "site"))
    monkeypatch.setenv("AT_DECODE", action)
    if action == "wait":
        monkeypatch.setattr(decoding_process, "_WAIT_SECONDS", 2)
    with pytest.raises(images.BadImageError, match=reason):
        decoding_process.decode(crashing_decoder.deadly_png())
