"""Copies that no digest finds: resized, re-encoded or slightly brightened radiographs.

A perceptual hash (pHash, Zauner 2010, "Implementation and Benchmarking of Perceptual Image Hash
Functions", section 3.2.1) of 256 bits: the signs of the low frequencies of the cosine transform
against their median. Two images are near-duplicates if their hashes differ in few bits.
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
_BLOCK = 1 << 18
_BITS_BLOCK = 1 << 14  # of rows whose bits are spread out, a byte each
_CACHED = 1 << 16  # rows that are sorted at once
# Bits that are left out at once: more mean fewer sorts, and more images to compare in vain.
_LEFT_OUT = 5


def perceptual_hash(gray: np.ndarray) -> bytes:
    """Returns 32 bytes, the hash of a uint8 [height, width] image of any size."""
    small = cv2.resize(gray, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    low = cv2.dct(small)[:_LOW, :_LOW].ravel()
    # The first coefficient is the mean brightness alone: the median leaves it out.
    median = np.partition(low[1:], _MIDDLE)[_MIDDLE]
    return np.packbits(low > median).tobytes()


def near_pairs(
    hashes: np.ndarray, max_distance: int, valid: np.ndarray | None = None
) -> np.ndarray:
    """Pairs that connect every two images whose hashes differ in at most `max_distance` bits.

    The bits are dealt to max_distance // 2 + 1 bands. Two such hashes differ in at most one bit
    of at least one band (pigeonhole; Norouzi, Punjani and Fleet 2012, "Fast search in Hamming
    space with multi-index hashing", section 3.1), so only images are compared that agree in a
    band but for a few neighbouring bits. Of random hashes hardly any others do, and the cost
    stays near-linear.
    Images with equal hashes are one chain of pairs: many black images cost no square.

    Args:
      hashes: uint64 [n, 4].
      valid: bool [n]; rows that are False are left alone.

    Returns:
      int64 [pairs, 2], rows i < j.
    """
    found = [same_value_pairs(hashes, valid)]
    distinct = np.ones(len(hashes), bool) if valid is None else valid.copy()
    distinct[found[0][:, 1]] = False
    rows = np.flatnonzero(distinct).astype(np.int32)
    del distinct
    bands = max_distance // 2 + 1 if max_distance else 0  # at distance 0 the chains are all
    for band in range(bands):
        width = min(-(-(256 - band) // bands), 64)
        keys = _band_keys(hashes, rows, band, bands, width)
        for own, masks in _blocks(keys, width):
            for mask in masks:
                found += _pairs_that_agree(hashes, rows[own], keys[own] & mask, max_distance)
    return np.unique(np.sort(np.concatenate(found), axis=1), axis=0)


def _blocks(
    keys: np.ndarray, width: int
) -> Iterator[tuple[np.ndarray, list[np.unsignedinteger[Any]]]]:
    """Parts of the keys, int32 [rows] each, with masks that leave a few neighbouring bits out.

    Keys that agree but for a bit of one half agree in the whole other half. Dealt out by that,
    they are sorted in parts that fit into a processor's cache, whatever their number: sorted at
    once, each of twenty million would cost twice as much as each of one million.
    """
    half = width // 2
    kind = keys.dtype.type
    for first, last, dealt, size in (
        (0, half, keys >> kind(half), width - half),
        (half, width, keys & kind((1 << half) - 1), half),
    ):
        masks = [
            kind(~((1 << end) - (1 << start)) & (2 ** (8 * keys.itemsize) - 1))
            for start, end in _stretches(first, last)
        ]
        ranked = (dealt >> kind(max(0, size - 16))).astype(np.uint16)
        order = np.argsort(ranked, kind="stable").astype(np.int32)  # of 16 bits a radix sort
        ranked = ranked[order]
        start = 0
        while start < len(order):
            value = ranked[min(start + _CACHED, len(order)) - 1]
            end = int(np.searchsorted(ranked, value, side="right"))
            yield order[start:end], masks
            start = end


def _stretches(first: int, last: int) -> Iterator[tuple[int, int]]:
    """Ends of neighbouring bits, `_LEFT_OUT` at a time."""
    for start in range(first, last, _LEFT_OUT):
        yield start, min(start + _LEFT_OUT, last)


def _band_keys(
    hashes: np.ndarray, rows: np.ndarray, band: int, bands: int, width: int
) -> np.ndarray:
    """uint32 or, of more than 32 bits, uint64 [rows]: the bits of a band."""
    words: type[np.unsignedinteger[Any]] = np.uint32 if width <= 32 else np.uint64
    keys = np.zeros(len(rows), words)
    weights: np.ndarray = (2 ** np.arange(width, dtype=np.uint64)).astype(words)
    for start in range(0, len(rows), _BITS_BLOCK):
        some = np.ascontiguousarray(hashes[rows[start : start + _BITS_BLOCK]]).view(np.uint8)
        # Interleaved, because neighbouring low frequencies are alike in all chests.
        bits = np.unpackbits(some, axis=1)[:, band::bands][:, :width]
        keys[start : start + _BITS_BLOCK] = bits @ weights[: bits.shape[1]]
    return keys


def _pairs_that_agree(
    hashes: np.ndarray, rows: np.ndarray, keys: np.ndarray, max_distance: int
) -> list[np.ndarray]:
    """Near pairs among rows (int32) whose keys are equal."""
    order = np.argsort(keys)
    ranked = keys[order]
    shared = np.append(ranked[1:] == ranked[:-1], False)  # with the next one
    found: list[np.ndarray] = []
    # Neighbours at distance 1, 2, … in the sorted order, as long as both are in one run.
    place = np.flatnonzero(shared)
    step = 1
    while len(place):
        for start in range(0, len(place), _BLOCK):
            low = rows[order[place[start : start + _BLOCK]]]
            high = rows[order[place[start : start + _BLOCK] + step]]
            distance = np.bitwise_count(hashes[low] ^ hashes[high]).sum(axis=1)
            near = distance <= max_distance
            found.append(np.stack([low[near], high[near]], axis=1).astype(np.int64))
        place = place[shared[place + step]]
        step += 1
    return found
