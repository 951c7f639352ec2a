"""One radiograph as a `tf.train.Example`: its keys, how it is written and how it is read.

Keys follow the TensorFlow convention and are at once what TFDS makes of a nested
`FeaturesDict`, so both `parse_example` here and `tfds.builder_from_directory` read a shard.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import tensorflow as tf

    from cxr_tfrecords.dataset_dir import DatasetDir

IMAGE_ENCODED = "image/encoded"
LABEL = "image/class/label"
TEXT = "image/class/text"
FILENAME = "image/filename"
SHA256 = "image/key/sha256"
GROUP = "image/group"
SOURCE_HEIGHT = "image/source/height"
SOURCE_WIDTH = "image/source/width"
SOURCE_FORMAT = "image/source/format"

ENCODINGS = ("png", "raw", "jpeg")


@dataclasses.dataclass(frozen=True)
class Record:
    """What a shard holds of one radiograph.

    Attributes:
      encoded: the resized image: a PNG or JPEG file, or height x width x channels bytes (raw).
      label: class index, 0-based, in the order of the dataset's class names.
      class_name: the true (unslugged) class name.
      filename: path of the source relative to the input directory; unique in a dataset.
      sha256: hex digest of the source file's bytes.
      group: id of the group of identical sources; a group never spans two splits.
      source_height, source_width: pixels of the source.
      source_format: PNG, JPEG, ... as found in the file, whatever its extension.
    """

    encoded: bytes
    label: int
    class_name: str
    filename: str
    sha256: str
    group: str
    source_height: int
    source_width: int
    source_format: str


def serialize_example(record: Record) -> bytes:
    """Returns the deterministic `tf.train.Example` bytes of a record."""
    import tensorflow as tf

    def text(value: str) -> tf.train.Feature:
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value.encode()]))

    def integer(value: int) -> tf.train.Feature:
        return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))

    feature = {
        IMAGE_ENCODED: tf.train.Feature(bytes_list=tf.train.BytesList(value=[record.encoded])),
        LABEL: integer(record.label),
        TEXT: text(record.class_name),
        FILENAME: text(record.filename),
        SHA256: text(record.sha256),
        GROUP: text(record.group),
        SOURCE_HEIGHT: integer(record.source_height),
        SOURCE_WIDTH: integer(record.source_width),
        SOURCE_FORMAT: text(record.source_format),
    }
    example = tf.train.Example(features=tf.train.Features(feature=feature))
    # Map fields have no order of their own: without this the bytes could differ between workers.
    return example.SerializeToString(deterministic=True)


def parse_record(serialized: bytes) -> Record:
    """Reads back what `serialize_example` wrote, without TensorFlow graph operations.

    Raises:
      ValueError: the bytes are not an Example or lack a key.
    """
    import tensorflow as tf
    from google.protobuf.message import DecodeError

    example = tf.train.Example()
    try:
        example.ParseFromString(serialized)
        feature = example.features.feature

        def text(key: str) -> str:
            return feature[key].bytes_list.value[0].decode()

        return Record(
            encoded=feature[IMAGE_ENCODED].bytes_list.value[0],
            label=feature[LABEL].int64_list.value[0],
            class_name=text(TEXT),
            filename=text(FILENAME),
            sha256=text(SHA256),
            group=text(GROUP),
            source_height=feature[SOURCE_HEIGHT].int64_list.value[0],
            source_width=feature[SOURCE_WIDTH].int64_list.value[0],
            source_format=text(SOURCE_FORMAT),
        )
    except (DecodeError, IndexError, UnicodeDecodeError) as error:
        raise ValueError(f"not a radiograph record ({type(error).__name__}: {error})") from error


def write_shard(path: str, serialized: Iterable[bytes]) -> int:
    """Writes a TFRecord file under a temporary name and renames it once it is whole.

    Returns:
      The number of records. After an error no file of the final name exists, and the
      temporary one is removed.
    """
    import tensorflow as tf

    temporary = f"{path}.tmp-{os.getpid()}"
    count = 0
    try:
        with tf.io.TFRecordWriter(temporary) as writer:
            for item in serialized:
                writer.write(item)
                count += 1
        tf.io.gfile.rename(temporary, path, overwrite=True)
    except BaseException:
        if tf.io.gfile.exists(temporary):
            tf.io.gfile.remove(temporary)
        raise
    return count


def parse_example(serialized: tf.Tensor, data: DatasetDir) -> dict[str, tf.Tensor]:
    """Parses and decodes one record inside a `tf.data` graph.

    Args:
      serialized: scalar string, one `tf.train.Example`.
      data: the dataset directory that the record comes from (image size, channels, encoding).

    Returns:
      `image`: uint8 [size, size, channels]; `label`: int32 []; `id`: string [], the file name.
    """
    import tensorflow as tf

    parsed = tf.io.parse_single_example(
        serialized,
        {
            IMAGE_ENCODED: tf.io.FixedLenFeature([], tf.string),
            LABEL: tf.io.FixedLenFeature([], tf.int64),
            FILENAME: tf.io.FixedLenFeature([], tf.string),
        },
    )
    shape = (data.image_size, data.image_size, data.channels)
    encoded = parsed[IMAGE_ENCODED]
    if data.encoding == "raw":
        image = tf.reshape(tf.io.decode_raw(encoded, tf.uint8), shape)
    elif data.encoding == "png":
        image = tf.ensure_shape(tf.io.decode_png(encoded, channels=data.channels), shape)
    else:
        image = tf.ensure_shape(tf.io.decode_jpeg(encoded, channels=data.channels), shape)
    return {"image": image, "label": tf.cast(parsed[LABEL], tf.int32), "id": parsed[FILENAME]}


def parse_label_and_id(serialized: tf.Tensor) -> dict[str, tf.Tensor]:
    """As `parse_example`, without the cost of decoding: `label` int32 [], `id` string []."""
    import tensorflow as tf

    parsed = tf.io.parse_single_example(
        serialized,
        {
            LABEL: tf.io.FixedLenFeature([], tf.int64),
            FILENAME: tf.io.FixedLenFeature([], tf.string),
        },
    )
    return {"label": tf.cast(parsed[LABEL], tf.int32), "id": parsed[FILENAME]}
