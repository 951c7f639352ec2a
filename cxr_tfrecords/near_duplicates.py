"""Near-duplicates, which no digest finds: resized, re-encoded or slightly brightened copies.

A perceptual hash (pHash, Zauner 2010, "Implementation and Benchmarking of Perceptual Image Hash
Functions", section 3.2.1) of 256 bits: which low frequencies of the cosine transform are above
their median. Two images are near-duplicates if their hashes differ in few bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np

from cxr_tfrecords.splits import same_value_pairs

DEFAULT_MAX_DISTANCE = 16
_SIDE, _LOW = 32, 16
_MIDDLE = (_LOW * _LOW - 1) // 2
_BLOCK = 1 << 18  # pairs that are compared at once
_BITS_BLOCK = 1 << 14  # rows whose bits are unpacked at once, a byte for each bit
_CACHED = 1 << 16  # rows that are sorted at once: so many fit into a processor's cache
# Neighbouring bits in which the keys of a pair may differ: more of them mean fewer sorts, but more
# pairs that are compared and are no near-duplicates.
_LEFT_OUT = 5


def perceptual_hash(gray: np.ndarray) -> bytes:
    """The hash, 32 bytes, of an image, uint8 [height, width] of any size."""
    small = cv2.resize(gray, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    low = cv2.dct(small)[:_LOW, :_LOW].ravel()
    # The first coefficient is the mean brightness, so the median is taken without it.
    median = np.partition(low[1:], _MIDDLE)[_MIDDLE]
    return np.packbits(low > median).tobytes()


def near_pairs(
    hashes: np.ndarray, max_distance: int, valid: np.ndarray | None = None
) -> np.ndarray:
    """Pairs that connect every two images whose hashes differ in at most `max_distance` bits.

    The bits are divided into max_distance // 2 + 1 bands. By the pigeonhole principle, two such
    hashes differ in at most one bit of at least one band (Norouzi, Punjani and Fleet 2012, "Fast
    search in Hamming space with multi-index hashing", section 3.1). So only those images are
    compared that agree in all bits of a band but a few neighbouring ones. Few pairs of random
    hashes do, so the cost grows almost linearly with n.
    Of k images with equal hashes only k - 1 pairs are given, each with the next one, so that many
    black images do not cost k².

    Args:
      hashes: uint64 [n, 4].
      valid: bool [n]; rows that are False are in no pair.

    Returns:
      int64 [pairs, 2], rows i < j.
    """
    pairs = [same_value_pairs(hashes, valid)]
    distinct = np.ones(len(hashes), bool) if valid is None else valid.copy()
    distinct[pairs[0][:, 1]] = False
    rows = np.flatnonzero(distinct).astype(np.int32)
    del distinct
    bands = max_distance // 2 + 1 if max_distance else 0  # distance 0: equal hashes are enough
    for band in range(bands):
        width = min(-(-(256 - band) // bands), 64)
        keys = _band_keys(hashes, rows, band, bands, width)
        for block, masks in _blocks(keys, width):
            for mask in masks:
                pairs += _pairs_that_agree(hashes, rows[block], keys[block] & mask, max_distance)
    return np.unique(np.sort(np.concatenate(pairs), axis=1), axis=0)


def _blocks(
    keys: np.ndarray, width: int
) -> Iterator[tuple[np.ndarray, list[np.unsignedinteger[Any]]]]:
    """Blocks of keys to compare with each other, and masks that leave out neighbouring bits.

    Two keys that differ only in bits of one half agree in the whole other half. The keys are
    divided into blocks by that other half, so that each block fits into a processor's cache: if
    all keys were sorted at once, each of twenty million would take twice as long as each of one
    million.

    Yields:
      Indices of keys, int32, and the masks to apply to them.
    """
    half = width // 2
    kind = keys.dtype.type
    for first, last, other_half, size in (
        (0, half, keys >> kind(half), width - half),
        (half, width, keys & kind((1 << half) - 1), half),
    ):
        masks = [
            kind(~((1 << end) - (1 << start)) & (2 ** (8 * keys.itemsize) - 1))
            for start, end in _stretches(first, last)
        ]
        ranked = (other_half >> kind(max(0, size - 16))).astype(np.uint16)
        order = np.argsort(ranked, kind="stable").astype(np.int32)  # NumPy radix-sorts 16 bits
        ranked = ranked[order]
        start = 0
        while start < len(order):
            value = ranked[min(start + _CACHED, len(order)) - 1]
            end = int(np.searchsorted(ranked, value, side="right"))
            yield order[start:end], masks
            start = end


def _stretches(first: int, last: int) -> Iterator[tuple[int, int]]:
    """Start and end of each `_LEFT_OUT` neighbouring bits."""
    for start in range(first, last, _LEFT_OUT):
        yield start, min(start + _LEFT_OUT, last)


def _band_keys(
    hashes: np.ndarray, rows: np.ndarray, band: int, bands: int, width: int
) -> np.ndarray:
    """The bits of a band, [rows]: uint32, or uint64 if they are more than 32."""
    words: type[np.unsignedinteger[Any]] = np.uint32 if width <= 32 else np.uint64
    keys = np.zeros(len(rows), words)
    weights: np.ndarray = (2 ** np.arange(width, dtype=np.uint64)).astype(words)
    for start in range(0, len(rows), _BITS_BLOCK):
        some = np.ascontiguousarray(hashes[rows[start : start + _BITS_BLOCK]]).view(np.uint8)
        # A band takes every `bands`-th bit: neighbouring frequencies are similar in all chests,
        # and a band of them would agree in too many images.
        bits = np.unpackbits(some, axis=1)[:, band::bands][:, :width]
        keys[start : start + _BITS_BLOCK] = bits @ weights[: bits.shape[1]]
    return keys


def _pairs_that_agree(
    hashes: np.ndarray, rows: np.ndarray, keys: np.ndarray, max_distance: int
) -> list[np.ndarray]:
    """Pairs within `max_distance` among rows, int32, whose keys are equal."""
    order = np.argsort(keys)
    ranked = keys[order]
    same_as_next = np.append(ranked[1:] == ranked[:-1], False)
    pairs: list[np.ndarray] = []
    # Pairs at distance 1, 2, … in the sorted order, as long as all keys between them are equal.
    position = np.flatnonzero(same_as_next)
    step = 1
    while len(position):
        for start in range(0, len(position), _BLOCK):
            low = rows[order[position[start : start + _BLOCK]]]
            high = rows[order[position[start : start + _BLOCK] + step]]
            distance = np.bitwise_count(hashes[low] ^ hashes[high]).sum(axis=1)
            near = distance <= max_distance
            pairs.append(np.stack([low[near], high[near]], axis=1).astype(np.int64))
        position = position[same_as_next[position + step]]
        step += 1
    return pairs
