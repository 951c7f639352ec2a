"""One rule from a file to the pixels of a model, for a build and for every later use."""

import itertools

import cv2
import numpy as np
import pytest
import tensorflow as tf

from beam_pipelines.inputs.sources import SourceFile
from beam_pipelines.settings.config import BuildConfig
from beam_pipelines.shards.inspection import Work, inspect
from cxr_tfrecords import images, records
from cxr_tfrecords.reading import Reading


@pytest.mark.parametrize(
    ("encoding", "channels", "enhance"),
    [*itertools.product(("png", "raw", "jpeg"), (1, 3), ("none",)), ("png", 1, "clahe")],
)
def test_a_file_gives_the_pixels_that_a_build_stores_of_it(tmp_path, encoding, channels, enhance):
    rng = np.random.default_rng(0)
    colour = cv2.resize(rng.integers(0, 255, (9, 7, 3), np.uint8), (70, 90))
    cv2.imwrite(str(tmp_path / "a.png"), colour)
    config = BuildConfig(image_size=32, encoding=encoding, channels=channels, enhance=enhance)
    row, record, _ = inspect(SourceFile("a.png", 0), Work(str(tmp_path), ("A",), config))
    assert not row["reason"]

    reading = Reading(32, channels, enhance, encoding)
    pixels = reading.stored(images.decode((tmp_path / "a.png").read_bytes()).pixels)
    stored = records.parse_record(record).encoded
    if encoding == "raw":
        seen = np.frombuffer(stored, np.uint8).reshape(32, 32, channels)
    elif encoding == "png":
        seen = tf.io.decode_png(stored, channels=channels).numpy()
    else:
        seen = tf.io.decode_jpeg(stored, channels=channels).numpy()
    np.testing.assert_array_equal(pixels, seen)
