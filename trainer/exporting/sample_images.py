"""Images on which an exported file is checked: of the run's data set, or drawn."""

from __future__ import annotations

import dataclasses

import numpy as np

from cxr_tfrecords import synthetic
from cxr_tfrecords.dataset_dir import DatasetDir
from cxr_tfrecords.reading import Reading
from trainer.input import shard_reading, split_batches


@dataclasses.dataclass(frozen=True)
class Sample:
    """Images: uint8 [n, size, size, channels]; their int32 [n] labels, None if they are drawn."""

    images: np.ndarray
    labels: np.ndarray | None
    source: str


def evenly_spaced(data: DatasetDir, split: str, count: int) -> Sample:
    """Up to `count` images of a split, which lies ordered by class: about in its class shares."""
    total = data.num_examples(split)
    return _read(data, split, _spread(total, count))


def class_balanced(data: DatasetDir, split: str, count: int) -> Sample:
    """Up to `count` images of a split, as many of each class where it has so many."""
    counts = np.array(data.counts[split])
    starts = np.cumsum(counts) - counts
    share = max(1, count // len(counts))
    rows = [start + _spread(n, share) for start, n in zip(starts, counts, strict=True)]
    return _read(data, split, np.concatenate(rows))


def drawn(reading: Reading, count: int) -> Sample:
    """`count` synthetic radiographs, read as the run's images were."""
    names = list(synthetic.FULL_COUNTS)
    pictures = [synthetic.render(names[i % len(names)], i)[0] for i in range(count)]
    return Sample(np.stack([reading.prepare(pixels) for pixels in pictures]), None, "synthetic")


def _spread(total: int, count: int) -> np.ndarray:
    return np.unique(np.linspace(0, total - 1, min(count, total)).astype(np.int64))


def _read(data: DatasetDir, split: str, rows: np.ndarray) -> Sample:
    with split_batches.explained_reads(data):
        batch = next(iter(shard_reading.evaluation_records(data, split, rows[np.newaxis])))
    return Sample(batch[0].numpy(), batch[1].numpy(), split)
