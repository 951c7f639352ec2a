"""How many bits a source's values have, where the file only says how many it stores them in."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

_AT_ONCE = 1 << 20  # values that `by_rows` changes at once


def depth_of(most: int, stored_bits: int) -> int:
    """Bits of the detector, from the bits that a file says and the largest value of its image.

    Files of detectors of 10, 12, 14 or 15 bits often say 16, and files of 12 bits 14: shown at the
    range that they say, their images would be nearly black. So 16 bits become the smallest depth
    that holds the image, 8 at least; 13 to 15 bits do so too, but not below 12. A depth of 12 bits
    or less is believed, so that a dark image stays dark.

    Args:
      most: the largest value, 0 or more.
      stored_bits: 1 to 16.
    """
    least = 8 if stored_bits >= 16 else min(stored_bits, 12)
    return min(stored_bits, max(least, most.bit_length()))


def describe_depth(depth: int, stored_bits: int) -> tuple[str, ...]:
    """The step for `Decoded.steps`; none where the values have 8 bits already."""
    if stored_bits == 8:
        return ()
    of_stored = f" of {stored_bits}" if depth < stored_bits else ""
    return (f"scaled from {depth}{of_stored} bits",)


def to_8_bits(values: np.ndarray, depth: int) -> np.ndarray:
    """Unsigned values of up to 16 bits to uint8, so that 2^depth - 1 becomes 255."""
    top = 2**depth - 1
    return by_rows(
        lambda rows: ((rows.astype(np.uint32) * 255 + top // 2) // top).astype(np.uint8), values
    )


def by_rows(change: Callable[..., np.ndarray], *values: np.ndarray) -> np.ndarray:
    """`change(*values)`, which gives uint8 of the first array's shape, for a few rows at a time
    where the arrays are large: what it needs meanwhile is several times their size."""
    height = len(values[0])
    rows = max(1, _AT_ONCE * height // max(1, values[0].size))
    if rows >= height:
        return change(*values)
    result = np.empty(values[0].shape, np.uint8)
    for start in range(0, height, rows):
        result[start : start + rows] = change(*(one[start : start + rows] for one in values))
    return result
