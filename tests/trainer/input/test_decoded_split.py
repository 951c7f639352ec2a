"""What is decoded into memory is what a graph would decode; damage is told, never drawn."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from cxr_tfrecords import images, records
from tests.helpers import write_dataset
from trainer.input import decoded_split


def one_record(data, mask):
    pixels = np.random.default_rng(0).integers(0, 256, (data.image_size,) * 2 + (1,), np.uint8)
    encoded = images.encode(pixels, data.encoding)
    return records.Record(encoded, 0, "COVID", "a.png", "", "", 9, 9, "PNG", mask)


def mask_of(size):
    return images.encode_mask(np.tri(size, dtype=np.uint8) * 255)


@pytest.mark.parametrize("shown", ["none", "lungs", "outside"])
def test_the_same_pixels_as_in_a_graph(tmp_path, shown):
    data = dataclasses.replace(write_dataset(tmp_path / "set"), mask=shown)
    record = one_record(data, mask_of(data.image_size))
    expected = records.parse_example(records.serialize_example(record), data)["image"].numpy()
    np.testing.assert_array_equal(decoded_split._decoded(record, data), expected)
    assert expected.any()


@pytest.mark.parametrize("mask", [None, b"damaged", mask_of(7), mask_of(1)])
def test_a_damaged_mask_is_an_error_that_names_the_image(tmp_path, mask):
    data = dataclasses.replace(write_dataset(tmp_path / "set"), mask="lungs")
    with pytest.raises(tf.errors.DataLossError, match=r"a\.png"):
        decoded_split._decoded(one_record(data, mask), data)
