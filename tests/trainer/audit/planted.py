"""Data sets and runs whose class is told by a known part of the image, without any training."""

from __future__ import annotations

import csv
import os

import numpy as np

from tests import helpers
from tests.trainer import fake_run
from trainer.evaluation.predictions import Predictions, labels_in_order, write_predictions
from trainer.input.split_batches import SplitSource

COUNTS = {"train": (6, 6, 6, 6), "validation": (3, 3, 3, 3), "test": (30, 30, 30, 30)}
LUNGS = np.zeros((32, 32), bool)
LUNGS[8:24, 6:14] = LUNGS[8:24, 18:26] = True
CORNER, INSIDE = (0, 3, 12, 15), (5, 6, 9, 10)  # cells of 8 x 8 pixels, by label


def draw(label: int, rng: np.random.Generator, size: int, channels: int):
    """A mark in one of the corners and a bright quarter of the lungs, both of the class."""
    image = rng.normal(80, 12, (size, size, channels))
    row, column = divmod(label, 2)
    corner = (slice(0, 3), slice(-3, None))
    image[corner[row], corner[column]] += 150
    half = size // 2
    quarter = np.zeros((size, size), bool)
    quarter[row * half : (row + 1) * half, column * half : (column + 1) * half] = True
    image[quarter & LUNGS] += 60
    return np.clip(image, 0, 255).astype(np.uint8), LUNGS * np.uint8(255)


def write_data(directory, **settings):
    """A data set of such images with lung masks."""
    return helpers.write_dataset(directory, COUNTS, num_shards=1, **{"draw": draw, **settings})


def write_looking_run(directory, data, cells) -> str:
    """A run whose model looks at one cell a class."""
    import keras

    path = fake_run.write_run(
        directory,
        counts=COUNTS,
        planned=COUNTS["train"],
        batch_size=32,
        dataset=fake_run.of(data),
    )
    layers = [
        keras.layers.Rescaling(1 / 8, dtype="float32"),
        keras.layers.AveragePooling2D(8),
        keras.layers.Flatten(),
        keras.layers.Dense(4, use_bias=False),
    ]
    model = keras.Sequential([keras.Input((32, 32, 1), dtype="uint8"), *layers])
    kernel = np.zeros((16, 4), np.float32)
    kernel[cells, range(4)] = 1
    model.layers[-1].set_weights([kernel])
    model.save(os.path.join(path, "model.keras"))
    for split in ("validation", "test"):
        source = SplitSource(data, split)
        images = [batch[0].numpy() for batch in source.evaluation(batch_size=1)]
        logits = model.predict(np.concatenate(images), verbose=0)
        labels = labels_in_order(COUNTS[split])
        answers = Predictions(source.ids(), labels, logits, source.groups())
        write_predictions(os.path.join(path, f"predictions_{split}.csv"), answers, data.class_names)
    return path


def write_sources(data, sizes) -> None:
    """sources.csv of a data set whose files of each class have the given width and bytes."""
    rows = []
    for shard in data.shards:
        name = data.class_names[shard.label]
        width, num_bytes = sizes[shard.label]
        for index in range(shard.num_examples):
            rows.append(
                {
                    "filename": f"{name}/{shard.split}-{index}.png",
                    "class": name,
                    "split": shard.split,
                    "shard": os.path.basename(shard.path),
                    "group": f"{name}/{shard.split}-{index}",
                    "format": "PNG",
                    "mode": "L",
                    "tied_by": "",
                    "reason": "",
                    "height": 32,
                    "width": width,
                    "num_bytes": num_bytes + index,
                }
            )
    with open(os.path.join(data.path, "sources.csv"), "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
