"""The files by which TensorFlow Datasets reads a dataset directory."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from cxr_tfrecords import dataset_dir, files


def write_tfds_metadata(path: str, manifest: Mapping[str, Any]) -> None:
    """Writes the files that `tfds.builder_from_directory(path)` needs, beside the shards."""
    if files.is_local(path):
        _write_tfds_metadata(path, manifest)
        return
    # TFDS writes to a local folder with empty files for shards; its own files are copied from it.
    with tempfile.TemporaryDirectory() as folder:
        for shard in manifest["shards"]:
            open(os.path.join(folder, shard["file"]), "wb").close()
        before = files.names(folder)
        _write_tfds_metadata(folder, manifest)
        for name in files.names(folder) - before:
            with files.open_file(files.join(path, name), "wb") as file:
                file.write(files.read_bytes(os.path.join(folder, name)))


def _write_tfds_metadata(path: str, manifest: Mapping[str, Any]) -> None:
    import tensorflow_datasets as tfds

    template = tfds.core.ShardedFileTemplate(
        data_dir=path,
        template="{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
        dataset_name=dataset_dir.NAME,
        filetype_suffix="tfrecord",
    )
    by_split: dict[str, list[Mapping[str, Any]]] = {}
    for shard in manifest["shards"]:
        name = shard["file"].split(".")[0].removeprefix(f"{dataset_dir.NAME}-")
        by_split.setdefault(name, []).append(shard)
    tfds.folder_dataset.write_metadata(
        data_dir=path,
        features=_tfds_features(manifest),
        split_infos=[
            tfds.core.SplitInfo(
                name=name,
                shard_lengths=[s["num_examples"] for s in shards],
                num_bytes=sum(s["num_bytes"] for s in shards),
                filename_template=template,
            )
            for name, shards in by_split.items()
        ],
        description="Chest radiographs by split and class; see manifest.json.",
        check_data=False,
    )


def _tfds_features(manifest: Mapping[str, Any]) -> Any:
    """The `tfds.features.FeaturesDict` of a record."""
    import tensorflow_datasets as tfds

    features = tfds.features
    size, encoding = manifest["image"]["size"], manifest["image"]["encoding"]
    shape = (size, size, manifest["image"]["channels"])
    if encoding == "raw":
        encoded: Any = features.Tensor(shape=shape, dtype=np.uint8, encoding="bytes")
    else:
        encoded = features.Image(shape=shape, encoding_format=encoding)
    image: dict[str, Any] = {
        "encoded": encoded,
        "class": {
            "label": features.ClassLabel(names=list(manifest["class_names"])),
            "text": features.Text(),
        },
        "filename": features.Text(),
        "group": features.Text(),
        "key": {"sha256": features.Text()},
        "source": {
            "format": features.Text(),
            "height": features.Scalar(dtype=np.int64),
            "width": features.Scalar(dtype=np.int64),
        },
    }
    if manifest["image"].get("mask"):
        image["mask"] = {"encoded": features.Image(shape=(size, size, 1), encoding_format="png")}
    return features.FeaturesDict({"image": image})
