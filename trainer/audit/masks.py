"""Where the lungs are: from the data set, from black surroundings, a segmenter, or unknown."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence

import cv2
import numpy as np

from cxr_tfrecords import images, records
from cxr_tfrecords.dataset_dir import DatasetDir
from cxr_tfrecords.errors import UserError
from trainer.audit.conditions import middle
from trainer.input.split_records import read_split

DATA_SET, BLACK, SEGMENTER, BOX = "data_set", "black", "segmenter", "box"
SOURCES = (DATA_SET, BLACK, SEGMENTER, BOX)
# Lossy encodings leave black a little above 0.
_BLACK_UP_TO = 8
_LOOKED_AT = 32  # images of each class
# An image has black surroundings if this much of it, and of its outer 10%, is black.
_BLACK_SHARE, _BLACK_BORDER = 0.4, 0.7


@dataclasses.dataclass(frozen=True)
class Masks:
    """Lung masks of a split.

    Attributes:
      source: one of `SOURCES`.
      find: (images uint8 [b, S, S, C], their ids) -> bool [b, S, S]. It is called with the
        images of the split in their canonical order. All are empty for `box`.
    """

    source: str
    find: Callable[[np.ndarray, Sequence[str]], np.ndarray]


def choose_source(data: DatasetDir, split: str, wanted: str, segmenter: str) -> str:
    """The source for `auto`; a source that is named is checked.

    Raises:
      UserError: the data set has no masks, or no segmenter is named.
    """
    if wanted == DATA_SET and not data.has_masks:
        raise UserError(
            f"--mask_source=data_set: {data.path} holds no lung masks: build it with --with_masks "
            "from a folder that has them, or leave the flag out"
        )
    if wanted == SEGMENTER and not segmenter:
        raise UserError(
            "--mask_source=segmenter needs --segmenter=FILE: python -m "
            "trainer.train_segmenter makes one from a data set with lung masks"
        )
    if wanted != "auto":
        return wanted
    if data.has_masks:
        return DATA_SET
    if has_black_surroundings(data, split):
        return BLACK
    return SEGMENTER if segmenter else BOX


def open_masks(data: DatasetDir, split: str, source: str, segmenter: str = "") -> Masks:
    """Masks of a split, for one pass through it.

    Raises:
      UserError: the segmenter cannot be read.
    """
    if source == DATA_SET:
        stored = read_split(data, split)

        def from_records(pixels: np.ndarray, ids: Sequence[str]) -> np.ndarray:
            return np.stack([_stored_mask(next(stored), name) for name in ids])

        return Masks(source, from_records)
    if source == SEGMENTER:
        from trainer.audit.segmenter import Segmenter

        return Masks(source, Segmenter.load(segmenter).masks)
    return Masks(source, lit if source == BLACK else _nowhere)


def _stored_mask(record: records.Record, name: str) -> np.ndarray:
    if record.filename != name:
        raise RuntimeError(f"the mask of {record.filename} came in the place of that of {name}")
    assert record.mask is not None
    return images.decode_mask(record.mask) > 0


def lit(pixels: np.ndarray, ids: Sequence[str] = ()) -> np.ndarray:
    """bool [b, S, S], pixels that are not black, and black holes between them."""
    bright = (pixels.max(axis=3) > _BLACK_UP_TO).astype(np.uint8)
    kernel = np.ones((3, 3), np.uint8)
    return np.stack([cv2.morphologyEx(one, cv2.MORPH_CLOSE, kernel) > 0 for one in bright])


def _nowhere(pixels: np.ndarray, ids: Sequence[str]) -> np.ndarray:
    return np.zeros(pixels.shape[:3], bool)


def has_black_surroundings(data: DatasetDir, split: str) -> bool:
    """Whether the images are black around the lungs: nearly all of the first ones of each class."""
    outer = ~middle(data.image_size)
    looked_at = []
    for label in range(data.num_classes):
        one_class = dataclasses.replace(data, shards=data.split_shards(split, label))
        for record in itertools.islice(read_split(one_class, split), _LOOKED_AT):
            pixels = images.decode_stored(
                record.encoded, data.encoding, data.image_size, data.channels
            )
            black = pixels.max(axis=2) <= _BLACK_UP_TO
            looked_at.append(black.mean() > _BLACK_SHARE and black[outer].mean() > _BLACK_BORDER)
    return bool(looked_at) and float(np.mean(looked_at)) > 0.95
