"""Bands of rows: what happens to an image on its way to 8 bits needs little memory besides it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from cxr_tfrecords.decoding.result import TRANSPARENT

_AT_ONCE = 1 << 20  # values of a band


def bands(height: int, row_values: int) -> Iterator[slice]:
    """The rows of each band, from the top."""
    rows = max(1, _AT_ONCE // max(1, row_values))
    return (slice(start, min(start + rows, height)) for start in range(0, height, rows))


def fill(pixels: np.ndarray, rows_of_bands: Iterable[np.ndarray]) -> tuple[str, ...]:
    """Fills `pixels` with bands; of those that have alpha, with colours drawn on black.

    Args:
      pixels: uint8, [height, width] or [height, width, 3].
      rows_of_bands: uint8, [rows, width], or [rows, width, 3 or 4] for RGB or RGBA; of all rows,
        from the top. They may lie where `pixels` are to be, as long as they do not begin sooner.

    Returns:
      The steps for `Decoded.steps`.
    """
    start, least, most = 0, 255, 0
    for rows in rows_of_bands:
        into = pixels[start : start + len(rows)]
        start += len(rows)
        if rows.ndim == 2 or rows.shape[2] == 3:
            into[:] = rows
            continue
        colour, alpha = rows[:, :, :3], rows[:, :, 3:]
        low = int(alpha.min())
        least, most = min(least, low), max(most, int(alpha.max()))
        into[:] = colour if low == 255 else _over_black(colour, alpha)
    if least == 255:
        return ()
    return ("transparency drawn on black" if most else TRANSPARENT,)


def _over_black(colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    return ((colour.astype(np.uint16) * alpha.astype(np.uint16) + 127) // 255).astype(np.uint8)
