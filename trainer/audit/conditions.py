"""What is left of a radiograph in each condition of the audit. NumPy and OpenCV only.

Images are uint8 [S, S, C], lung masks bool [S, S]. What is taken away gets one gray value: that of
the mean training pixel disturbs a network less than black (docs/shortcuts.md).
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable

import cv2
import numpy as np

WHOLE, NO_LUNGS, NO_BOX, BORDER = "image", "no_lungs", "no_box", "border"
ONLY_LUNGS, OUTLINE, ONLY_MIDDLE = "only_lungs", "lung_outline", "only_middle"
BLURRED, SHUFFLED = "blurred", "shuffled"

BORDER_SHARE = 0.1  # of a side
BLUR_SIZE = 8
GRID = 8
# The edges of lungs are soft, and masks are not exact: without a rim around the mask, gray values
# of the lungs would be left.
RIM_SHARE = 0.03


@dataclasses.dataclass(frozen=True)
class Condition:
    """One way of taking something away.

    Attributes:
      apply: (image, mask, the image's id, gray value of what is taken away) -> image.
      with_masks: it is only for images whose lungs are known; False: only for others; None: for
        both.
    """

    name: str
    title: str
    apply: Callable[[np.ndarray, np.ndarray, str, int], np.ndarray]
    with_masks: bool | None = None


def _kept(image: np.ndarray, kept: np.ndarray, fill: int) -> np.ndarray:
    return np.where(kept[:, :, None], image, np.uint8(fill))


def widened(mask: np.ndarray) -> np.ndarray:
    """A mask with a rim of `RIM_SHARE` of the image's side."""
    rim = max(1, round(RIM_SHARE * len(mask)))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * rim + 1, 2 * rim + 1))
    return cv2.dilate(mask.astype(np.uint8), kernel) > 0


def bounding_box(mask: np.ndarray) -> np.ndarray:
    """bool [S, S], the smallest rectangle that holds the mask; empty for an empty mask."""
    box = np.zeros_like(mask)
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if len(rows):
        box[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = True
    return box


def middle(size: int) -> np.ndarray:
    """bool [size, size], all but the outer `BORDER_SHARE` of each side."""
    width = max(1, round(BORDER_SHARE * size))
    inner = np.zeros((size, size), bool)
    inner[width:-width, width:-width] = True
    return inner


def without_lungs(image: np.ndarray, mask: np.ndarray, name: str = "", fill: int = 0) -> np.ndarray:
    return _kept(image, ~widened(mask), fill)


def without_box(image: np.ndarray, mask: np.ndarray, name: str = "", fill: int = 0) -> np.ndarray:
    return _kept(image, ~bounding_box(widened(mask)), fill)


def only_lungs(image: np.ndarray, mask: np.ndarray, name: str = "", fill: int = 0) -> np.ndarray:
    return _kept(image, mask, fill)


def only_middle(image: np.ndarray, mask: np.ndarray, name: str = "", fill: int = 0) -> np.ndarray:
    return _kept(image, middle(len(image)), fill)


def outline(image: np.ndarray, mask: np.ndarray, name: str = "", fill: int = 0) -> np.ndarray:
    """The lungs' shape in a gray of its own, the same in every image."""
    return _kept(np.full_like(image, fill // 2 if fill > 64 else 128), mask, fill)


def border(image: np.ndarray, mask: np.ndarray, name: str = "", fill: int = 0) -> np.ndarray:
    return _kept(image, ~middle(len(image)) & ~widened(mask), fill)


def blurred(image: np.ndarray, mask: np.ndarray, name: str = "", fill: int = 0) -> np.ndarray:
    """Averaged to `BLUR_SIZE` x `BLUR_SIZE` pixels, then enlarged linearly."""
    small = cv2.resize(image, (BLUR_SIZE, BLUR_SIZE), interpolation=cv2.INTER_AREA)
    large = cv2.resize(small, image.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    return large.reshape(image.shape)


def shuffled(image: np.ndarray, mask: np.ndarray, name: str = "", fill: int = 0) -> np.ndarray:
    """`GRID` x `GRID` patches in an order that is a function of the image's id.

    If the side is not a multiple of `GRID`, the image is made a little smaller for it.
    """
    size, channels = image.shape[0], image.shape[2]
    side = max(1, size // GRID)
    whole = cv2.resize(image, (GRID * side, GRID * side), interpolation=cv2.INTER_AREA)
    patches = whole.reshape(GRID, side, GRID, side, channels).swapaxes(1, 2)
    patches = patches.reshape(GRID * GRID, side, side, channels)
    order = np.random.Generator(np.random.Philox(zlib.crc32(name.encode()))).permutation(GRID**2)
    mixed = patches[order].reshape(GRID, GRID, side, side, channels).swapaxes(1, 2)
    mixed = np.ascontiguousarray(mixed.reshape(GRID * side, GRID * side, channels))
    resized = cv2.resize(mixed, (size, size), interpolation=cv2.INTER_LINEAR)
    return resized.reshape(image.shape)


CONDITIONS = (
    Condition(WHOLE, "the whole image", lambda image, mask, name, fill: image),
    Condition(NO_LUNGS, "lungs covered", without_lungs, with_masks=True),
    Condition(NO_BOX, "a rectangle over the lungs", without_box, with_masks=True),
    Condition(BORDER, "only the outer 10%, without lungs", border),
    Condition(ONLY_LUNGS, "only the lungs", only_lungs, with_masks=True),
    Condition(ONLY_MIDDLE, "without the outer 10%", only_middle, with_masks=False),
    Condition(OUTLINE, "only the outline of the lungs", outline, with_masks=True),
    Condition(BLURRED, "blurred to 8 × 8 pixels", blurred),
    Condition(SHUFFLED, "8 × 8 patches in random order", shuffled),
)
TITLES = {condition.name: condition.title for condition in CONDITIONS}


def conditions_for(masks_known: bool) -> tuple[Condition, ...]:
    return tuple(one for one in CONDITIONS if one.with_masks in (None, masks_known))
