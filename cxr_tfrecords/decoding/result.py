"""What decoding a file gives: pixels with what was done to them, or the reason why not."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import threading
from collections.abc import Iterator

import numpy as np

from cxr_tfrecords.decoding.turns import ALONE, FREE, SHARED, Turns

TRANSPARENT = "fully transparent"
TOO_MUCH_MEMORY = "decoding it needs too much memory"
# For each of --max_pixels: what 16 bits of gray, or 8 bits of RGB with or without alpha, need.
BYTES_PER_PIXEL = 4
_SMALL = 1 << 20  # bytes that may always be kept
_MIDDLE = 4 << 20  # bytes of a decoded image: 2,048 x 2,048 pixels of 8 bits
_LARGE = 32 << 20  # 4,096 x 4,096 pixels of 16 bits
_COSTLY = 4096 * 4096  # pixels
# Of a file and what its decoder needs together, for each of --max_pixels.
_MOST_BYTES = 4.5
_turns = Turns()
_thread = threading.local()


class BadImageError(Exception):
    """A source file that cannot be used; the message is the reason that the user reads."""

    def __init__(self, reason: str) -> None:
        # It may quote text of the file, which can have any length and hold control characters.
        super().__init__("".join(c if c.isprintable() else "?" for c in reason[:300]))


class CostlyError(Exception):
    """A source file that is to be decoded in a process of its own, see `apart_if_costly`."""


@dataclasses.dataclass(frozen=True)
class Decoded:
    """A decoded source.

    Attributes:
      pixels: uint8, [height, width] where the source is gray, else [height, width, 3] RGB.
      format: "PNG", "JPEG", "DICOM", "WEBP", "BMP", "TIFF" or "GIF", by content and not by file
        extension.
      mode: Pillow's name of the source's pixel mode (L, LA, RGB, RGBA, P, I;16, ...), or
        photometric interpretation and bits of a DICOM file.
      steps: what was done to the stored values, in words, in this order.
      patient: ID of the patient, '' if the file has none; to be stored only as a salted hash.
      issuer: of the patient's ID, which is unique within it only (DICOM PS3.3 C.2.2).
    """

    pixels: np.ndarray
    format: str
    mode: str
    steps: tuple[str, ...] = ()
    patient: str = ""
    issuer: str = ""


def check_size(
    width: int, height: int, max_pixels: int, pixel_bytes: int = 1, file_bytes: int = 0
) -> None:
    """Refuses a header of too many pixels or bytes, before anything is decoded.

    Args:
      pixel_bytes: what a decoder keeps for each pixel, in bytes.
      file_bytes: what is kept of the file meanwhile.

    Raises:
      BadImageError: width × height is 0 or above `max_pixels`, or its bytes are above
        `BYTES_PER_PIXEL` × `max_pixels`, or with those of the file above `_MOST_BYTES` × it.
    """
    if width <= 0 or height <= 0:
        raise BadImageError(f"its header says {width} x {height} pixels")
    if width * height > max_pixels:
        raise BadImageError(f"{width} x {height} pixels are more than --max_pixels={max_pixels}")
    if width * height * pixel_bytes > BYTES_PER_PIXEL * max_pixels:
        raise BadImageError(
            f"{width} x {height} pixels of {pixel_bytes} bytes are more than --max_pixels="
            f"{max_pixels} times {BYTES_PER_PIXEL} bytes"
        )
    if width * height * pixel_bytes + file_bytes > _MOST_BYTES * max_pixels + _SMALL:
        raise BadImageError(
            f"{width} x {height} pixels of {pixel_bytes} bytes, and {file_bytes:,} bytes of the "
            f"file, are more than --max_pixels={max_pixels} times {_MOST_BYTES} bytes"
        )
    take_turn_if_large(width * height * pixel_bytes)


def take_turn_if_large(num_bytes: int) -> None:
    """In a block of `one_large_at_a_time`: waits before so many bytes of a file or of its pixels
    come into memory, if they are many."""
    if not getattr(_thread, "takes_turns", False) or num_bytes <= _MIDDLE:
        return
    turn = ALONE if num_bytes > _LARGE else SHARED
    if turn > _thread.turn:
        _give_turn_back()  # two that kept theirs would wait for each other
        _turns.take(turn)
        _thread.turn = turn


def _give_turn_back() -> None:
    turn, _thread.turn = _thread.turn, FREE
    if turn != FREE:
        _turns.give_back(turn)


def apart_if_costly(pixels: int) -> None:
    """In a block of `one_large_at_a_time`: before an image is decoded whose decoder needs much time
    and memory for each of its pixels, and how much nobody can tell from its header.

    Raises:
      CostlyError: they are more than 4,096 x 4,096.
    """
    if getattr(_thread, "takes_turns", False) and pixels > _COSTLY:
        take_turn_if_large(pixels * BYTES_PER_PIXEL)
        raise CostlyError


@contextlib.contextmanager
def one_large_at_a_time() -> Iterator[None]:
    """Within the block a large image is read or decoded only while no other thread has one here, or
    one of middle size, of which there may be several. The smallest never wait.

    So memory does not grow with threads where all files are large.
    """
    _thread.takes_turns, _thread.turn = True, FREE
    try:
        yield
    finally:
        _thread.takes_turns = False
        _give_turn_back()


def short(error: BaseException) -> str:
    """The first line of an error's message, at most 100 characters; its type if it has none.

    Without addresses of memory (`<memory at 0x7f…>`), which differ each time.
    """
    text = re.sub(r" at 0x[0-9a-f]+", "", str(error).strip())
    return (text.splitlines() or [type(error).__name__])[0][:100]
