"""The size at which a network sees images that are stored larger. TensorFlow is not imported."""

from __future__ import annotations

from cxr_tfrecords.errors import UserError


def check(wanted: int, stored: int, path: str) -> None:
    """Refuses to enlarge images.

    Args:
      wanted: `--image_size` in pixels; 0: as stored.
      stored: side of the images in the data set at `path`.

    Raises:
      UserError: `wanted` is larger than `stored`.
    """
    if wanted > stored:
        raise UserError(
            f"--image_size={wanted}, but {path} holds images of {stored} px, and enlarging them "
            f"would add no detail: build it again with --image_size={wanted}, or leave the flag out"
        )


def describe(stored: int, wanted: int) -> str:
    """`299 px`, or `299 px, shrunk to 128 px by the model`."""
    is_shrunk = wanted not in (0, stored)
    return f"{stored} px" + (f", shrunk to {wanted} px by the model" if is_shrunk else "")
