"""Small data sets for tests, written without Beam."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from beam_pipelines.settings.config import BuildConfig
from cxr_tfrecords import dataset_dir, files, images, records, tfds_metadata, tfrecord
from cxr_tfrecords.checks.manifest import dataset_fingerprint
from cxr_tfrecords.decoding import rules

CLASS_NAMES = ("COVID", "Lung_Opacity", "Normal", "Viral Pneumonia")
COUNTS = {"train": (8, 12, 20, 4), "validation": (3, 4, 6, 2), "test": (3, 5, 7, 2)}


def tiny_image(label: int, rng: np.random.Generator, size: int, channels: int) -> np.ndarray:
    """A noisy square whose place tells the class: learnable, not trivial."""
    image = rng.normal(90, 25, (size, size, channels))
    half = size // 2
    row, column = divmod(label % 4, 2)
    image[row * half : (row + 1) * half, column * half : (column + 1) * half] += 50
    return np.clip(image, 0, 255).astype(np.uint8)


def make_manifest(
    names: Sequence[str],
    counts: Mapping[str, Sequence[int]],
    image: Mapping[str, Any],
    shards: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """A manifest as a build writes it, less its digest, so that tests may change it."""
    folds, channels = 0 if "train" in counts else len(counts), image["channels"]
    config = BuildConfig(
        image_size=image["size"],
        channels=channels,
        encoding=image["encoding"],
        near_distance=-1,
        folds=folds,
        with_masks="mask" in image,
    )
    # Fold k: two pixels a channel, 90 + 10 k and 110 + 10 k.
    sums = {
        name: {
            "count": 2,
            "sums": [200 + 20 * k] * channels,
            "sums_of_squares": [(90 + 10 * k) ** 2 + (110 + 10 * k) ** 2] * channels,
        }
        for k, name in enumerate(counts)
    }
    pixels = {"of": "", "mean": [100.0] * channels, "std": [35.0] * channels}
    written = sum(map(sum, counts.values()))
    return {
        "format": dataset_dir.FORMAT,
        "config": config.to_json(),
        "class_names": list(names),
        "class_slugs": list(tfds_metadata.slugs(names)),
        "image": image,
        "pixel_rules": rules.VERSION,
        "counts": {s: dict(zip(names, c, strict=True)) for s, c in counts.items()},
        "duplicates": {
            **dict.fromkeys(("images", "num_groups", "num_label_conflicts"), 0),
            **{"groups": {}, "label_conflicts": [], "level": "", "tied_by": {}},
        },
        "fingerprint": dataset_fingerprint(names, image, shards),
        "pixels": {**pixels, **({"by_fold": sums} if folds else sums["train"])},
        "prevalence": dict.fromkeys(counts, "natural"),
        "rejected": [],
        "shards": shards,
        "sources": {
            **{"found": written, "written": written, "rejected": 0, "set_aside": {}, "bytes": 0},
            **{"fingerprint": "", "listing": "", "ignored": [], "appended": []},
        },
        "split_proof": {"groups": {}, "groups_in_two_splits": 0, "unit": ""},
        "statistics": {"intensity_histograms": {name: [0] * 256 for name in names}},
        "versions": {},
    }


def write_dataset(
    directory: str | os.PathLike[str],
    counts: Mapping[str, Sequence[int]] = COUNTS,
    *,
    image_size: int = 32,
    channels: int = 1,
    encoding: str = "png",
    num_shards: int = 2,
    seed: int = 0,
    draw: Callable[..., Any] = tiny_image,
) -> dataset_dir.DatasetDir:
    """Writes a valid dataset directory of tiny learnable images and loads it.

    Args:
      counts: split -> images of each class; splits called fold0, fold1, … make a data set with
        folds, which is loaded with fold 0.
      draw: makes an image as `tiny_image` does, or an image and its lung mask, uint8 [size, size];
        all images have masks, or none.
    """
    path = os.fspath(directory)
    os.makedirs(path, exist_ok=True)
    names = CLASS_NAMES[: len(next(iter(counts.values())))]
    class_slugs = tfds_metadata.slugs(names)
    rng = np.random.default_rng(seed)
    shards, mask = [], None
    for split, split_counts in counts.items():
        for label, count in enumerate(split_counts):
            parts = np.array_split(np.arange(count), min(num_shards, max(count, 1)))
            for number, part in enumerate(parts):
                serialized = []
                for index in part:
                    drawn = draw(label, rng, image_size, channels)
                    pixels, mask = drawn if isinstance(drawn, tuple) else (drawn, None)
                    digest = hashlib.sha256(pixels.tobytes()).hexdigest()
                    serialized.append(
                        records.serialize_example(
                            records.Record(
                                encoded=images.encode(pixels, encoding),
                                label=label,
                                class_name=names[label],
                                filename=f"{names[label]}/{split}-{index}.png",
                                sha256=digest,
                                group=digest,
                                source_height=image_size,
                                source_width=image_size,
                                source_format="PNG",
                                mask=None if mask is None else images.encode_mask(mask),
                            )
                        )
                    )
                name = dataset_dir.shard_name(split, class_slugs[label], number, len(parts))
                tfrecord.write_records(os.path.join(path, name), serialized)
                shards.append(
                    {
                        "file": name,
                        "split": split,
                        "class": names[label],
                        "num_examples": len(part),
                        "num_bytes": os.path.getsize(os.path.join(path, name)),
                        "digest": hashlib.sha256(b"".join(serialized)).hexdigest(),
                    }
                )
    image = {"size": image_size, "channels": channels, "encoding": encoding}
    if mask is not None:
        image["mask"] = True
    manifest = make_manifest(names, counts, image, shards)
    files.write_json(os.path.join(path, dataset_dir.MANIFEST), manifest)
    return dataset_dir.load(path, None if "train" in counts else 0)
