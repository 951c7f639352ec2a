"""EXIF orientation: a phone stores a picture as its sensor lay, and a number that says how."""

from __future__ import annotations

import numpy as np
from PIL import ExifTags, Image


def orientation_of(image: Image.Image) -> int:
    """1 (upright) to 8, as Pillow reads it from EXIF or, where that has none, from XMP.

    Anything else, damaged EXIF data too, is 1: the pixels do not depend on it.
    """
    try:
        value = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # Pillow raises many types for damaged EXIF data
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def turn(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Makes pixels [height, width] or [height, width, 3] upright, as `ImageOps.exif_transpose`."""
    if orientation >= 5:  # rows and columns are exchanged
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def describe_turn(orientation: int) -> tuple[str, ...]:
    """The step for `Decoded.steps`; none for an upright image."""
    return () if orientation == 1 else (f"turned (EXIF orientation {orientation})",)
