"""One radiograph as a `tf.train.Example`: its keys, how it is written and how it is read.

Keys follow the TensorFlow convention and are at once what TFDS makes of a nested
`FeaturesDict`, so both `parse_example` here and `tfds.builder_from_directory` read a shard.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING, Any

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
MASK_ENCODED = "image/mask/encoded"

_BYTES_FIELDS = {
    IMAGE_ENCODED: "encoded",
    TEXT: "class_name",
    FILENAME: "filename",
    SHA256: "sha256",
    GROUP: "group",
    SOURCE_FORMAT: "source_format",
    MASK_ENCODED: "mask",
}
_INTEGER_FIELDS = {
    LABEL: "label",
    SOURCE_HEIGHT: "source_height",
    SOURCE_WIDTH: "source_width",
}

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
      mask: the resized lung mask as a PNG of 0 and 255, in data sets built with masks.
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
    mask: bytes | None = None


def serialize_example(record: Record) -> bytes:
    """Returns the deterministic `tf.train.Example` bytes of a record."""
    example = _example_type()()
    feature = example.features.feature
    for key, name in _BYTES_FIELDS.items():
        value = getattr(record, name)
        if value is not None:
            data = value if isinstance(value, bytes) else value.encode()
            feature[key].bytes_list.value.append(data)
    for key, name in _INTEGER_FIELDS.items():
        feature[key].int64_list.value.append(getattr(record, name))
    # Map fields have no order of their own: without this the bytes could differ between workers.
    return example.SerializeToString(deterministic=True)


def set_group(serialized: bytes, group: str) -> bytes:
    """Returns a record's bytes with another group: groups are known later than pixels."""
    example = _example_type().FromString(serialized)
    values = example.features.feature[GROUP].bytes_list.value
    values[:] = [group.encode()]
    return example.SerializeToString(deterministic=True)


def parse_record(serialized: bytes) -> Record:
    """Reads back what `serialize_example` wrote, without TensorFlow.

    Raises:
      ValueError: the bytes are not an Example or lack a key.
    """
    from google.protobuf.message import DecodeError

    try:
        feature = _example_type().FromString(serialized).features.feature
        values: dict[str, Any] = {
            name: feature[key].int64_list.value[0] for key, name in _INTEGER_FIELDS.items()
        }
        for key, name in _BYTES_FIELDS.items():
            if key == MASK_ENCODED and key not in feature:
                continue
            value = feature[key].bytes_list.value[0]
            values[name] = value if key in (IMAGE_ENCODED, MASK_ENCODED) else value.decode()
        return Record(**values)
    except (DecodeError, IndexError, UnicodeDecodeError) as error:
        raise ValueError(f"not a radiograph record ({type(error).__name__}: {error})") from error


@functools.lru_cache(maxsize=1)
def _example_type() -> Any:
    """`tf.train.Example` without TensorFlow, whose import costs a worker 3 s and 400 MB.

    The messages are those of tensorflow/core/example/{example,feature}.proto. They live in a
    descriptor pool of their own: in the default pool they would clash with TensorFlow's.
    """
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    Field = descriptor_pb2.FieldDescriptorProto  # noqa: N806
    file = descriptor_pb2.FileDescriptorProto(
        name="cxr_tfrecords/example.proto", package="cxr", syntax="proto3"
    )

    def add(parent: Any, name: str, *fields: tuple[str, int, int, int, str]) -> Any:
        message = parent.add(name=name)
        for field, number, label, kind, type_name in fields:
            message.field.add(
                name=field, number=number, label=label, type=kind, type_name=type_name or None
            )
        return message

    one, many = Field.LABEL_OPTIONAL, Field.LABEL_REPEATED
    add(file.message_type, "BytesList", ("value", 1, many, Field.TYPE_BYTES, ""))
    add(file.message_type, "FloatList", ("value", 1, many, Field.TYPE_FLOAT, ""))
    add(file.message_type, "Int64List", ("value", 1, many, Field.TYPE_INT64, ""))
    lists = ("bytes_list", "BytesList"), ("float_list", "FloatList"), ("int64_list", "Int64List")
    kinds = [
        (name, number, one, Field.TYPE_MESSAGE, f".cxr.{kind}")
        for number, (name, kind) in enumerate(lists, start=1)
    ]
    feature = add(file.message_type, "Feature", *kinds)
    feature.oneof_decl.add(name="kind")
    for field in feature.field:
        field.oneof_index = 0
    entries = ("feature", 1, many, Field.TYPE_MESSAGE, ".cxr.Features.FeatureEntry")
    features = add(file.message_type, "Features", entries)
    entry = add(
        features.nested_type,
        "FeatureEntry",
        ("key", 1, one, Field.TYPE_STRING, ""),
        ("value", 2, one, Field.TYPE_MESSAGE, ".cxr.Feature"),
    )
    entry.options.map_entry = True
    add(file.message_type, "Example", ("features", 1, one, Field.TYPE_MESSAGE, ".cxr.Features"))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("cxr.Example"))


def parse_example(serialized: tf.Tensor, data: DatasetDir) -> dict[str, tf.Tensor]:
    """Parses and decodes one record inside a `tf.data` graph.

    Args:
      serialized: scalar string, one `tf.train.Example`.
      data: the dataset directory that the record comes from (image size, channels, encoding).

    Returns:
      `image`: uint8 [size, size, channels], black outside what `data.mask` shows; `label`:
      int32 []; `id`: string [], the file name; `group`: string [].
    """
    import tensorflow as tf

    wanted = {
        IMAGE_ENCODED: tf.io.FixedLenFeature([], tf.string),
        LABEL: tf.io.FixedLenFeature([], tf.int64),
        FILENAME: tf.io.FixedLenFeature([], tf.string),
        GROUP: tf.io.FixedLenFeature([], tf.string),
    }
    if data.mask != "none":
        wanted[MASK_ENCODED] = tf.io.FixedLenFeature([], tf.string)
    parsed = tf.io.parse_single_example(serialized, wanted)
    shape = (data.image_size, data.image_size, data.channels)
    encoded = parsed[IMAGE_ENCODED]
    if data.encoding == "raw":
        image = tf.reshape(tf.io.decode_raw(encoded, tf.uint8), shape)
    elif data.encoding == "png":
        image = tf.ensure_shape(tf.io.decode_png(encoded, channels=data.channels), shape)
    else:
        image = tf.ensure_shape(tf.io.decode_jpeg(encoded, channels=data.channels), shape)
    if data.mask != "none":
        lungs = tf.io.decode_png(parsed[MASK_ENCODED], channels=1) > 0
        shown = lungs if data.mask == "lungs" else ~lungs
        image *= tf.ensure_shape(tf.cast(shown, tf.uint8), (*shape[:2], 1))
    label = tf.cast(parsed[LABEL], tf.int32)
    if data.label_map:
        label = tf.gather(tf.constant(data.label_map, tf.int32), label)
    return {
        "image": image,
        "label": label,
        "id": parsed[FILENAME],
        "group": parsed[GROUP],
    }


def parse_label_and_id(serialized: tf.Tensor) -> dict[str, tf.Tensor]:
    """As `parse_example`, without the image and the cost of decoding it."""
    import tensorflow as tf

    parsed = tf.io.parse_single_example(
        serialized,
        {
            LABEL: tf.io.FixedLenFeature([], tf.int64),
            FILENAME: tf.io.FixedLenFeature([], tf.string),
            GROUP: tf.io.FixedLenFeature([], tf.string),
        },
    )
    return {
        "label": tf.cast(parsed[LABEL], tf.int32),
        "id": parsed[FILENAME],
        "group": parsed[GROUP],
    }
