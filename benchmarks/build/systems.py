"""The systems that the build benchmark compares, each a function of a folder.

  python -m benchmarks.build.systems SYSTEM IN OUT SIZE

Every one reads IN/<Class>/images/*, decodes, resizes to SIZE x SIZE gray, encodes, and stores the
image with its label and name in OUT. They are written the way their own documentation shows;
where decoding and resizing are free to choose, OpenCV does them. What a system does not need is
not imported: its start is measured as well.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from benchmarks.build.image_files import Source, class_names, gray_of, list_sources, png_of

if TYPE_CHECKING:
    import numpy as np

_SHARD_SIZE = 1024


def floor_png(folder: str, out: str, size: int) -> None:
    """The plainest of loops: OpenCV decodes, resizes and encodes."""
    _loop(folder, out, size, "png", gray_of)


def floor_raw(folder: str, out: str, size: int) -> None:
    _loop(folder, out, size, "raw", gray_of)


def own_png(folder: str, out: str, size: int) -> None:
    """The same loop with this project's decoder: a build takes longer by what it does besides."""
    _loop(folder, out, size, "png", _by_this_project)


def own_raw(folder: str, out: str, size: int) -> None:
    _loop(folder, out, size, "raw", _by_this_project)


def _by_this_project(path: str) -> np.ndarray:
    from cxr_tfrecords import images

    with open(path, "rb") as file:
        return images.decode(file.read()).pixels


def _loop(
    folder: str, out: str, size: int, encoding: str, decode: Callable[[str], np.ndarray]
) -> None:
    from cxr_tfrecords import tfrecord

    sources = list_sources(folder)
    os.makedirs(out)
    for start in range(0, len(sources), _SHARD_SIZE):
        shard = _records(sources[start : start + _SHARD_SIZE], size, encoding, decode)
        path = os.path.join(out, f"{start // _SHARD_SIZE:05d}.tfrecord")
        tfrecord.write_records(path, shard)


def _records(
    sources: list[Source], size: int, encoding: str, decode: Callable[[str], np.ndarray]
) -> Iterator[bytes]:
    from cxr_tfrecords import images, records

    for source in sources:
        decoded = decode(source.path)
        pixels = images.resize(images.to_channels(decoded, 1), size)
        yield records.serialize_example(
            records.Record(
                encoded=images.encode(pixels, encoding),
                label=source.label,
                class_name=source.class_name,
                filename=source.name,
                sha256="",
                group="",
                source_height=decoded.shape[0],
                source_width=decoded.shape[1],
                source_format="PNG",
            )
        )


def webdataset(folder: str, out: str, size: int) -> None:
    import webdataset as wds

    os.makedirs(out)
    pattern = os.path.join(out, "shard-%06d.tar")
    with wds.ShardWriter(pattern, maxcount=_SHARD_SIZE, verbose=0) as sink:
        for source in list_sources(folder):
            key = os.path.splitext(source.name)[0].replace(".", "_")
            sink.write({"__key__": key, "png": png_of(source.path, size), "cls": source.label})


def hf_parquet(folder: str, out: str, size: int) -> None:
    import datasets

    def generate() -> Iterator[dict[str, Any]]:
        for source in list_sources(folder):
            image = {"path": None, "bytes": png_of(source.path, size)}
            yield {"image": image, "label": source.label, "name": source.name}

    features = datasets.Features(
        {
            "image": datasets.Image(),
            "label": datasets.ClassLabel(names=class_names(folder)),
            "name": datasets.Value("string"),
        }
    )
    os.makedirs(out)
    # It prepares Arrow files in a cache first; that cache is no part of the result.
    with tempfile.TemporaryDirectory(dir=os.path.dirname(out)) as cache:
        dataset = datasets.Dataset.from_generator(generate, features=features, cache_dir=cache)
        dataset.to_parquet(os.path.join(out, "train.parquet"))


def tfds_generator(folder: str, out: str, size: int) -> None:
    _tfds(folder, out, size, use_beam=False)


def tfds_beam(folder: str, out: str, size: int) -> None:
    # The class behind DirectRunner: asked for by name, Beam would first download its Prism runner.
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner

    _tfds(
        folder,
        out,
        size,
        use_beam=True,
        beam_runner=FnApiRunner(),
        beam_options=PipelineOptions([]),
    )


def _tfds(folder: str, out: str, size: int, *, use_beam: bool, **config: Any) -> None:
    import tensorflow_datasets as tfds

    from benchmarks.build.tfds_builder import Radiographs

    builder = Radiographs(
        input_dir=folder,
        image_size=size,
        use_beam=use_beam,
        data_dir=out,
        file_format="tfrecord",
    )
    builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(try_download_gcs=False, **config)
    )


def tf_io(folder: str, out: str, size: int) -> None:
    import tensorflow as tf

    os.makedirs(out)
    sources = list_sources(folder)
    for start in range(0, len(sources), _SHARD_SIZE):
        path = os.path.join(out, f"{start // _SHARD_SIZE:05d}.tfrecord")
        with tf.io.TFRecordWriter(path) as writer:
            for source in sources[start : start + _SHARD_SIZE]:
                writer.write(_tf_example(source, size))


def _tf_example(source: Source, size: int) -> bytes:
    import tensorflow as tf

    image = tf.io.decode_image(tf.io.read_file(source.path), channels=1, expand_animations=False)
    resized = tf.image.resize(image, (size, size), antialias=True)
    pixels = tf.cast(tf.round(tf.clip_by_value(resized, 0, 255)), tf.uint8)
    encoded = tf.io.encode_png(pixels, compression=1).numpy()

    def of_bytes(value: bytes) -> tf.train.Feature:
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))

    label = tf.train.Feature(int64_list=tf.train.Int64List(value=[source.label]))
    feature = {
        "image": of_bytes(encoded),
        "label": label,
        "name": of_bytes(source.name.encode()),
    }
    return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()


_FUNCTIONS: dict[str, Callable[[str, str, int], None]] = {
    "floor-png": floor_png,
    "floor-raw": floor_raw,
    "own-png": own_png,
    "own-raw": own_raw,
    "webdataset": webdataset,
    "hf-parquet": hf_parquet,
    "tfds-generator": tfds_generator,
    "tfds-beam": tfds_beam,
    "tf-io": tf_io,
}
_THIS = {"this-png": "png", "this-raw": "raw"}
SYSTEMS = (*_THIS, *_FUNCTIONS)
# The module that a system cannot do without, and what brings it.
NEEDS = {
    "webdataset": ("webdataset", "pip install -e '.[bench]'"),
    "hf-parquet": ("datasets", "pip install -e '.[bench]'"),
    "tfds-generator": ("tensorflow", "pip install -e '.[cpu]'"),
    "tfds-beam": ("tensorflow", "pip install -e '.[cpu]'"),
    "tf-io": ("tensorflow", "pip install -e '.[cpu]'"),
}


def missing_package(system: str) -> tuple[str, str]:
    """The module that a system lacks and the command that brings it, or two empty strings."""
    module, remedy = NEEDS.get(system, ("", ""))
    # Found without importing it: TensorFlow alone would cost this process 400 MB.
    if module and importlib.util.find_spec(module) is None:
        return module, remedy
    return "", ""


def command(system: str, folder: str, out: str, size: int) -> list[str]:
    """The command line that runs a system; this project's own build as a user calls it."""
    if system not in _THIS:
        module = [sys.executable, "-m", "benchmarks.build.systems"]
        return [*module, system, folder, out, str(size)]
    return [
        sys.executable,
        "-m",
        "beam_pipelines.build",
        "--runner=DirectRunner",
        f"--input_dir={folder}",
        f"--output_dir={out}",
        f"--image_size={size}",
        f"--encoding={_THIS[system]}",
        "--nostats",  # no peer makes a page on its data; it costs some 2 CPU seconds, once
    ]


if __name__ == "__main__":
    _, _system, _folder, _out, _size = sys.argv
    _FUNCTIONS[_system](_folder, _out, int(_size))
