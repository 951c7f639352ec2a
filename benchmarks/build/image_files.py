"""The input folder as every system of the benchmark reads it, and the PNG that all store."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np


class Source(NamedTuple):
    """One image of the input folder; `name` is its path below that folder."""

    path: str
    name: str
    label: int
    class_name: str


def class_names(folder: str) -> list[str]:
    return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())


def list_sources(folder: str) -> list[Source]:
    """All images, in the order of their names."""
    images = []
    for label, class_name in enumerate(class_names(folder)):
        for file in sorted(os.listdir(os.path.join(folder, class_name, "images"))):
            name = f"{class_name}/images/{file}"
            images.append(Source(os.path.join(folder, name), name, label, class_name))
    return images


def gray_of(path: str) -> np.ndarray:
    """The gray values of a file, uint8 [height, width], as OpenCV reads them."""
    import cv2

    cv2.setNumThreads(1)  # its pool would only cost CPU on images this small
    gray = cv2.imread(path, cv2.IMREAD_GRAYSCALE)
    if gray is None:
        raise ValueError(f"{path} could not be decoded")
    return gray


def png_of(path: str, size: int) -> bytes:
    """The image as a gray PNG with the options of this build, so that all store the same bytes."""
    import cv2

    # images.PNG_OPTIONS, which would import more than a peer needs.
    options = [cv2.IMWRITE_PNG_COMPRESSION, 1]
    options += [cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_UP]
    options += [cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE]
    resized = cv2.resize(gray_of(path), (size, size), interpolation=cv2.INTER_AREA)
    ok, data = cv2.imencode(".png", resized, options)
    if not ok:
        raise ValueError(f"{path} could not be encoded")
    return data.tobytes()
