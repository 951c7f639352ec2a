"""Copies that no digest finds: resized, re-encoded or slightly brightened radiographs.

A perceptual hash (pHash, Zauner 2010, "Implementation and Benchmarking of Perceptual Image Hash
Functions", section 3.2.1) of 256 bits: the signs of the low frequencies of the cosine transform
against their median. Two images are near-duplicates if their hashes differ in few bits.
"""

from __future__ import annotations

import cv2
import numpy as np

from cxr_tfrecords.splits import same_value_pairs

DEFAULT_MAX_DISTANCE = 10
_SIDE, _LOW = 32, 16
_MIDDLE = (_LOW * _LOW - 1) // 2
_BLOCK = 1 << 18


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

    Two such hashes agree in at least one of max_distance + 1 bands of bits (pigeonhole), so only
    images that share a band are compared. Images with equal hashes are one chain of pairs: many
    black images cost no square.

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
    for band in range(max_distance + 1):
        found += _pairs_in_band(hashes, rows, band, max_distance)
    return np.unique(np.sort(np.concatenate(found), axis=1), axis=0)


def _band_keys(hashes: np.ndarray, rows: np.ndarray, band: int, bands: int) -> np.ndarray:
    """uint64 or, of few bits, uint32 [rows]: equal where the bits of a band are."""
    width = -(-(256 - band) // bands)
    words = np.uint32 if width <= 32 else np.uint64
    keys = np.zeros(len(rows), words)
    for start in range(0, len(rows), _BLOCK):
        some = np.ascontiguousarray(hashes[rows[start : start + _BLOCK]]).view(np.uint8)
        # Interleaved, because neighbouring low frequencies are alike in all chests.
        bits = np.unpackbits(some, axis=1)[:, band::bands][:, :64]
        packed = np.zeros((len(bits), np.dtype(words).itemsize), np.uint8)
        own = np.packbits(bits, axis=1)
        packed[:, : own.shape[1]] = own
        keys[start : start + _BLOCK] = packed.view(words)[:, 0]
    return keys


def _pairs_in_band(
    hashes: np.ndarray, rows: np.ndarray, band: int, max_distance: int
) -> list[np.ndarray]:
    """Near pairs among rows (int32) whose band is equal."""
    keys = _band_keys(hashes, rows, band, max_distance + 1)
    order = np.argsort(keys, kind="stable").astype(np.int32)
    shared = np.zeros(len(order), bool)  # with the next one
    for start in range(0, len(order) - 1, _BLOCK):
        some = keys[order[start : start + _BLOCK + 1]]
        shared[start : start + len(some) - 1] = some[1:] == some[:-1]
    del keys
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
