"""Whether an image is a radiograph by its colours. Without TensorFlow."""

from __future__ import annotations

import numpy as np

from cxr_tfrecords.images import BadImageError

# A pixel is coloured if its channels differ by more than this many levels of 255. Scanned films
# have a tint, and marks on a radiograph may be coloured: only an image with many such pixels is a
# photograph.
_COLOURED_LEVELS = 40
_COLOURED_SHARE = 0.25


def check_gray(pixels: np.ndarray) -> None:
    """Refuses a photograph in colour.

    Args:
      pixels: uint8 [height, width] or [height, width, 1 or 3].

    Raises:
      BadImageError: too many of its pixels are coloured.
    """
    if pixels.ndim < 3 or pixels.shape[2] == 1:
        return
    spread = pixels.max(axis=2) - pixels.min(axis=2)
    share = float((spread > _COLOURED_LEVELS).mean())
    if share > _COLOURED_SHARE:
        raise BadImageError(
            f"{share:.0%} of its pixels are coloured: a photograph, not a radiograph"
        )
