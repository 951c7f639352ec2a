"""Copies that no digest finds: resized, re-encoded or slightly brightened radiographs.

A perceptual hash (pHash, Zauner 2010, "Implementation and Benchmarking of Perceptual Image Hash
Functions", section 3.2.1) of 256 bits: the signs of the low frequencies of the cosine transform
against their median. Two images are near-duplicates if their hashes differ in few bits.
"""

from __future__ import annotations

import cv2
import numpy as np

DEFAULT_MAX_DISTANCE = 10
_SIDE, _LOW = 64, 16
_BLOCK = 1 << 18


def perceptual_hash(gray: np.ndarray) -> bytes:
    """Returns 32 bytes, the hash of a uint8 [height, width] image of any size."""
    small = cv2.resize(gray, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    low = cv2.dct(small)[:_LOW, :_LOW].ravel()
    # The first coefficient is the mean brightness alone: the median leaves it out.
    return np.packbits(low > np.median(low[1:])).tobytes()


def near_pairs(hashes: np.ndarray, max_distance: int) -> np.ndarray:
    """Pairs that connect every two images whose hashes differ in at most `max_distance` bits.

    Two such hashes agree in at least one of max_distance + 1 bands of bits (pigeonhole), so only
    images that share a band are compared. Images with equal hashes are one chain of pairs: many
    black images cost no square.

    Args:
      hashes: uint64 [n, 4].

    Returns:
      int64 [pairs, 2], rows i < j.
    """
    if len(hashes) < 2:
        return np.zeros((0, 2), np.int64)
    order = np.lexsort(hashes.T[::-1])
    same = (hashes[order[1:]] == hashes[order[:-1]]).all(axis=1)
    chains = np.stack([order[:-1][same], order[1:][same]], axis=1)
    distinct = order[np.concatenate([[True], ~same])]
    bits = np.unpackbits(np.ascontiguousarray(hashes[distinct]).view(np.uint8), axis=1)
    found = [chains]
    for band in range(max_distance + 1):
        # Interleaved, because neighbouring low frequencies are alike in all chests.
        packed = np.packbits(bits[:, band :: max_distance + 1], axis=1)
        found += _pairs_in_band(hashes, distinct, packed, max_distance)
    return np.unique(np.sort(np.concatenate(found), axis=1), axis=0)


def _pairs_in_band(
    hashes: np.ndarray, rows: np.ndarray, packed: np.ndarray, max_distance: int
) -> list[np.ndarray]:
    """Near pairs among rows whose band, uint8 [n, bytes], is equal."""
    order = np.lexsort(packed.T[::-1])
    differs = (packed[order[1:]] != packed[order[:-1]]).any(axis=1)
    starts = np.flatnonzero(np.concatenate([[True], differs]))
    sizes = np.diff(starts, append=len(order))
    run_end = np.repeat(starts + sizes, sizes)
    found: list[np.ndarray] = []
    # Neighbours at distance 1, 2, … in the sorted order, as long as both are in one run.
    place = np.arange(len(order))
    step = 1
    while len(place := place[place + step < run_end[place]]):
        for start in range(0, len(place), _BLOCK):
            low = rows[order[place[start : start + _BLOCK]]]
            high = rows[order[place[start : start + _BLOCK] + step]]
            distance = np.bitwise_count(hashes[low] ^ hashes[high]).sum(axis=1)
            near = distance <= max_distance
            found.append(np.stack([low[near], high[near]], axis=1))
        step += 1
    return found
