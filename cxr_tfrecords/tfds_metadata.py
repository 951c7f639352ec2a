"""The files and names by which TensorFlow Datasets reads a dataset directory."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cxr_tfrecords import dataset_dir, files
from cxr_tfrecords.errors import UserError

if TYPE_CHECKING:
    import tensorflow_datasets as tfds


# A file's name has 255 at most, of which split, number and ending of a shard need some 50.
_MAX_NAME_BYTES = 200


def slugs(class_names: Sequence[str]) -> tuple[str, ...]:
    """Forms of class names for files and TFDS splits: lower case, `_` for all but a-z and 0-9.

    A name of which nothing would be left, as in another script, or only what another class has
    already (`COVID+` beside `COVID-`), becomes `class_N`, where N is its label.

    Raises:
      UserError: two names differ only in case or in what separates their words, which is taken
        for a mistake; a name is longer than `_MAX_NAME_BYTES`; or it holds a line break or the
        like, with which TFDS would count the classes wrongly.
    """
    words: dict[tuple[str, ...], str] = {}
    for name in class_names:
        if not name.isprintable():
            raise UserError(f"class {name!r} has unprintable characters in its name: rename it")
        if (size := len(name.encode())) > _MAX_NAME_BYTES:
            raise UserError(
                f"class {name[:40]!r}… has a name of {size} bytes, which is used in file names: "
                f"rename it, to {_MAX_NAME_BYTES} bytes or fewer"
            )
        plain = unicodedata.normalize("NFKC", name).casefold().strip(" _")
        other = words.setdefault(tuple(re.split(r"[\s_-]+", plain)), name)
        if other != name:
            raise UserError(
                f"classes {other!r} and {name!r} differ only in case, blanks, _ or -: give both "
                "one name (that of the folder, or the label in the list)"
            )
    result: list[str] = []
    for label, name in enumerate(class_names):
        slug = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
        while not slug or slug in result:
            slug, label = f"class_{label}", label + len(class_names)
        result.append(slug)
    return tuple(result)


def tfds_builder(path: str, fold: int | None = None) -> tfds.core.DatasetBuilder:
    """A TFDS builder of a dataset directory, whose splits are `train`, `validation` and `test`.

    `tfds.builder_from_directory(path)` has a split for each class of them, such as `test_covid`:
    shards hold one class, and TFDS cannot store a split of several file names. Images of a split
    come class by class, up to the interleaving of files: a slice such as `train[:10%]` holds few
    classes, and `shuffle_files=True` does not mix all of them.

    Args:
      fold: for a data set with folds, and only there: as of `load_dataset`.

    Raises:
      UserError: as `load_dataset`.
    """
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.splits import MultiSplitInfo

    members: dict[str, dict[str, None]] = {}
    for shard in dataset_dir.load(path, fold).shards:
        members.setdefault(shard.split, {})[_tfds_split(shard.path)] = None
    builder = tfds.builder_from_directory(path)
    by_class = builder.info.splits
    united = [
        MultiSplitInfo(split, [by_class[n] for n in names]) for split, names in members.items()
    ]
    builder.info.set_splits(tfds.core.SplitDict(united))
    return builder


def _tfds_split(shard_path: str) -> str:
    """TFDS' name of the split that a shard belongs to, `train_covid`."""
    return files.base_name(shard_path).split(".")[0].removeprefix(f"{dataset_dir.NAME}-")


def write_tfds_metadata(path: str, manifest: Mapping[str, Any], scratch: str) -> None:
    """Writes the files that `tfds.builder_from_directory(path)` needs, beside the shards.

    Args:
      scratch: an empty local folder, used if `path` is not local.
    """
    if files.is_local(path):
        _write_tfds_metadata(path, manifest)
        return
    # TFDS writes to a local folder with empty files for shards; its own files are copied from it.
    for shard in manifest["shards"]:
        open(os.path.join(scratch, shard["file"]), "wb").close()
    before = files.names(scratch)
    _write_tfds_metadata(scratch, manifest)
    for name in files.names(scratch) - before:
        with files.open_file(files.join(path, name), "wb") as file:
            file.write(files.read_bytes(os.path.join(scratch, name)))


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
        by_split.setdefault(_tfds_split(shard["file"]), []).append(shard)
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
