"""Contrast enhancement of radiographs, as compared by Rahman et al. 2021.

T. Rahman et al., "Exploring the effect of image enhancement techniques on COVID-19 detection
using chest X-ray images", Computers in Biology and Medicine 132, 104319 (section 2.3). Parameters
that the paper leaves open are OpenCV's documented ones.
"""

from __future__ import annotations

import cv2
import numpy as np

METHODS = ("none", "clahe", "histogram", "gamma", "complement")
CLAHE_CLIP_LIMIT, CLAHE_TILES = 2.0, 8
GAMMA = 0.5

_GAMMA_TABLE = np.rint(255 * (np.arange(256) / 255) ** GAMMA).astype(np.uint8)


def enhance(pixels: np.ndarray, method: str) -> np.ndarray:
    """Enhances uint8 [height, width, channels]; each channel by itself.

    Args:
      method: `clahe`: contrast limited adaptive histogram equalisation (Zuiderveld 1994), 8 x 8
        tiles, clip limit 2. `histogram`: global histogram equalisation. `gamma`: 255 (x / 255) ^
        0.5, which lifts the dark lung fields. `complement`: 255 - x. `none`: as it is.
    """
    if method == "none":
        return pixels
    if method == "complement":
        return 255 - pixels
    if method == "gamma":
        return _GAMMA_TABLE[pixels]
    if method not in METHODS:
        raise ValueError(f"enhancement {method!r} is not one of {METHODS}")
    if method == "histogram":
        change = cv2.equalizeHist
    else:
        change = cv2.createCLAHE(CLAHE_CLIP_LIMIT, (CLAHE_TILES, CLAHE_TILES)).apply
    return np.stack([change(channel) for channel in cv2.split(pixels)], axis=2)
