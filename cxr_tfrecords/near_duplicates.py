"""Copies that no digest finds: resized, re-encoded or slightly brightened radiographs.

A perceptual hash (pHash, Zauner 2010, "Implementation and Benchmarking of Perceptual Image Hash
Functions", section 3.2.1) of 256 bits: the signs of the low frequencies of the cosine transform
against their median. Two images are near-duplicates if their hashes differ in few bits.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from cxr_tfrecords.splits import same_value_pairs

DEFAULT_MAX_DISTANCE = 16
_SIDE, _LOW = 32, 16
_MIDDLE = (_LOW * _LOW - 1) // 2
_BLOCK = 1 << 18
_BITS_BLOCK = 1 << 14  # of rows whose bits are spread out, a byte each


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
    band but for one bit: with wide bands hardly any others do, and the cost stays near-linear.
    Images with equal hashes are one chain of pairs: many black images cost no square.

    Args:
      hashes: uint64 [n, 4].
      valid: bool [n]; rows that are False are left alone.

    Returns:
      int64 [pairs, 2], rows i < j.
    """
    chains = same_value_pairs(hashes, valid)
    distinct = np.ones(len(hashes), bool) if valid is None else valid.copy()
    distinct[chains[:, 1]] = False
    rows = np.flatnonzero(distinct).astype(np.int32)
    del distinct
    found = [chains]
    bands = max_distance // 2 + 1
    for band in range(bands):
        width = min(-(-(256 - band) // bands), 64)
        keys = _band_keys(hashes, rows, band, bands, width)
        # Images equal in the whole band agree whichever bit is left out. Differences of 0 bits
        # are chains already: for distance 0 one look is enough.
        for bit in range(width if max_distance else 1):
            mask = keys.dtype.type(~(1 << bit) & (2 ** (8 * keys.itemsize) - 1))
            found += _pairs_that_agree(hashes, rows, keys, mask, max_distance)
    return np.unique(np.sort(np.concatenate(found), axis=1), axis=0)


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
    hashes: np.ndarray, rows: np.ndarray, keys: np.ndarray, mask: np.integer, max_distance: int
) -> list[np.ndarray]:
    """Near pairs among rows (int32) whose keys agree in the bits of the mask."""
    order = np.argsort(keys & mask).astype(np.int32)
    shared = np.zeros(len(order), bool)  # with the next one
    for start in range(0, len(order) - 1, _BLOCK):
        some = keys[order[start : start + _BLOCK + 1]] & mask
        shared[start : start + len(some) - 1] = some[1:] == some[:-1]
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
