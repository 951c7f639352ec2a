"""Processes that decode a model's images: a file that crashes or holds up a decoder costs its
process and nothing else. They import the reading of images alone, no TensorFlow."""

from __future__ import annotations

import dataclasses
import functools
import sys
from typing import Any

import numpy as np

from cxr_tfrecords import images
from cxr_tfrecords.concurrency.decoding_process import (
    DecoderEndedError,
    DecodingProcesses,
    Limits,
)
from cxr_tfrecords.images import BadImageError, Decoded
from cxr_tfrecords.reading import Reading
from trainer.deployment.colour import check_gray

# An image of `images.DEFAULT_MAX_PIXELS` needs less; a DICOM file that is compressed as a whole may
# unpack to any size.
_MEMORY = 4 << 30
_CPU_S = 20


@dataclasses.dataclass(frozen=True)
class Radiograph:
    """A decoded file.

    Attributes:
      pixels: uint8 [size, size, channels], as `Reading.prepare` gives them.
      format: of the file, by its content.
      steps: what was done to the stored values, in words.
      warning: why somebody should look at the image, or ''.
    """

    pixels: np.ndarray
    format: str
    steps: tuple[str, ...]
    warning: str


class Decoders:
    """Decoding processes, for several threads at once; they end with this object.

    Args:
      reading: of the model.
      wall_s: seconds that a file may take, the start of a new process included.
      processes: to start at once; more start where more threads ask at the same time.
      show: whether standard error gets a line for each process that a file ends.
    """

    def __init__(
        self,
        reading: Reading,
        *,
        wall_s: float = 120.0,
        processes: int = 0,
        show: bool = False,
    ) -> None:
        self._show = show
        self._processes = DecodingProcesses(
            functools.partial(_prepare, reading),
            Limits(cpu_s=_CPU_S, wall_s=wall_s, memory=_MEMORY),
            start=processes,
        )

    def decode(self, data: bytes) -> Radiograph:
        """Decodes a file.

        Raises:
          BadImageError: it cannot be used, took too long, or ended its process.
        """
        try:
            facts, pixels = self._processes.decode(data)
        except DecoderEndedError:
            if self._processes.closed:
                raise BadImageError("decoding is being stopped") from None
            if self._show:
                print("a decoding process crashed or was too slow: replaced", file=sys.stderr)
            raise
        return Radiograph(pixels, facts["format"], tuple(facts["steps"]), facts["warning"])

    def close(self) -> None:
        """Ends the processes, those too that decode."""
        self._processes.close()


def _prepare(reading: Reading, decoded: Decoded) -> tuple[dict[str, Any], np.ndarray]:
    check_gray(decoded.pixels)
    facts = {
        "format": decoded.format,
        "steps": decoded.steps,
        "warning": images.warning_of(decoded),
    }
    return facts, reading.prepare(decoded.pixels)
