"""Contrast enhancement of radiographs, as compared by Rahman et al. 2021.

T. Rahman et al., "Exploring the effect of image enhancement techniques on COVID-19 detection
using chest X-ray images", Computers in Biology and Medicine 132, 104319 (section 2.3). Parameters
that the paper leaves open are OpenCV's documented ones.
"""

from __future__ import annotations

import cv2
import numpy as np

METHODS = ("none", "clahe", "histogram", "gamma", "complement", "bcet")
CLAHE_CLIP_LIMIT, CLAHE_TILES = 2.0, 8
GAMMA = 0.5
BCET_MEAN = 110.0

_GAMMA_TABLE = np.rint(255 * (np.arange(256) / 255) ** GAMMA).astype(np.uint8)


def enhance(pixels: np.ndarray, method: str) -> np.ndarray:
    """Enhances uint8 [height, width, channels]; each channel by itself.

    Args:
      method: `clahe`: contrast limited adaptive histogram equalisation (Zuiderveld 1994), 8 x 8
        tiles, clip limit 2. `histogram`: global histogram equalisation. `gamma`: 255 (x / 255) ^
        0.5, which lifts the dark lung fields. `complement`: 255 - x. `bcet`: balance contrast
        enhancement (Guo 1991), see `_bcet_table`. `none`: as it is.
    """
    if method == "none":
        return pixels
    if method == "complement":
        return 255 - pixels
    if method == "gamma":
        return _GAMMA_TABLE[pixels]
    if method not in METHODS:
        raise ValueError(f"enhancement {method!r} is not one of {METHODS}")
    if method == "bcet":
        return np.stack([_bcet_table(channel)[channel] for channel in cv2.split(pixels)], axis=2)
    if method == "histogram":
        change = cv2.equalizeHist
    else:
        change = cv2.createCLAHE(CLAHE_CLIP_LIMIT, (CLAHE_TILES, CLAHE_TILES)).apply
    return np.stack([change(channel) for channel in cv2.split(pixels)], axis=2)


def _bcet_table(channel: np.ndarray) -> np.ndarray:
    """uint8 [256]: the new value of each value of an image.

    The parabola y = a (x - b)^2 + c that takes the smallest value to 0, the largest to 255 and the
    mean to 110 (Guo, Balance contrast enhancement technique and its application in image colour
    composition, International Journal of Remote Sensing 12(10), 1991). Where its vertex lies
    between the smallest and the largest value, dark parts would become brighter than less dark
    ones, so the mean is then moved as near to 110 as a parabola that only rises allows. An image
    of one value stays as it is.
    """
    levels = np.arange(256.0)
    low, high = float(channel.min()), float(channel.max())
    if low == high:
        return levels.astype(np.uint8)
    # With t from 0 to 1 the parabolas through both ends are t + k (t^2 - t); |k| <= 1: they rise.
    # In 64 bits: the sum of whole numbers does not depend on the order.
    counts = np.bincount(channel.ravel(), minlength=256)
    t = (levels - low) / (high - low)
    mean, square = (counts @ power / counts.sum() for power in (t, t**2))
    k = np.clip((BCET_MEAN / 255 - mean) / (square - mean), -1, 1) if square < mean else 0.0
    return np.rint(255 * np.clip(t + k * (t**2 - t), 0, 1)).astype(np.uint8)
