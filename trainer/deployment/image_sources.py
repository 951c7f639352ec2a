"""An image that somebody gives a model: a file's bytes, or decoded pixels."""

from __future__ import annotations

import os

import numpy as np

from cxr_tfrecords import files, images
from cxr_tfrecords.errors import UserError
from trainer.deployment.colour import check_gray


def read_file(path: str | os.PathLike[str]) -> bytes:
    """The bytes of a file.

    Raises:
      images.BadImageError: it cannot be read.
    """
    try:
        return files.read_regular(os.fspath(path))
    except OSError as error:
        raise images.BadImageError(f"unreadable ({error.strerror or error})") from error
    except UserError as error:  # an address that no package here can open
        raise images.BadImageError(f"unreadable ({error})") from error


def check_pixels(pixels: np.ndarray) -> np.ndarray:
    """Decoded pixels as they are, if they can be those of a radiograph.

    Raises:
      images.BadImageError: they are not uint8, not of one image, scaled to 0..1, or in colour.
    """
    if pixels.dtype != np.uint8:
        raise images.BadImageError(
            f"pixels of type {pixels.dtype}: give uint8 from 0 to 255, as decoded; the model "
            "scales them itself"
        )
    shape = pixels.shape
    if pixels.size == 0 or not (len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3))):
        raise images.BadImageError(
            f"pixels of shape {list(shape)}: give one image, [height, width] or [height, width, 3]"
        )
    if pixels.max() <= 1:
        raise images.BadImageError(
            "no pixel is above 1: give values from 0 to 255, not scaled ones"
        )
    check_gray(pixels)
    return pixels
