"""Random changes of training images beyond the flip, as numbers in the plan; NumPy only.

Like flips they are drawn from seed, epoch and slot alone: they do not depend on the batch, the
replicas or where a run was resumed. `trainer.input.batch_ops.augment` applies them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from cxr_tfrecords.pages.class_lists import check_known
from trainer.balancing.drawing import AUGMENTATION, Streams

# The columns of `draw`.
COLUMNS = (
    *("cosine", "sine", "shift_x", "shift_y", "brightness", "contrast", "cut", "cut_x", "cut_y"),
)
_DRAWS = 8  # random numbers for each slot
_SMALLEST_ZOOM = 0.1  # of strong classes


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """The largest changes; 0 everywhere: none.

    Attributes:
      rotation: degrees to either side.
      shift: share of the side, along each axis.
      zoom: 0.1: magnified by 0.9 to 1.1.
      brightness: share of the range of grey levels that is added or taken away.
      contrast: 0.1: differences from the image's mean are multiplied by 0.9 to 1.1.
      cutout: side of a black square as a share of the image's side (DeVries and Taylor 2017).
      strength: of each class, by label, multiplies all of these; empty: 1.
    """

    rotation: float = 0.0
    shift: float = 0.0
    zoom: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    cutout: float = 0.0
    strength: tuple[float, ...] = ()

    @property
    def is_active(self) -> bool:
        """Whether it changes any image."""
        return any(value for value in dataclasses.astuple(self)[:-1])

    def draw(self, streams: Streams, labels: np.ndarray) -> np.ndarray:
        """float32 [n, columns]: what each slot's image gets, in the order of `COLUMNS`.

        Args:
          labels: int [n], class of each slot.

        `cosine` and `sine` of the angle are divided by the magnification. Shifts, `cut` (the side
        of the square) and its middle, `cut_x` and `cut_y`, are shares of the image's side;
        `brightness` is one of 255, and `contrast` the factor less 1.
        """
        drawn = streams.uniform(AUGMENTATION, len(labels) * _DRAWS).reshape(len(labels), _DRAWS)
        strength = np.array(self.strength)[labels] if self.strength else np.ones(len(labels))
        angle, shift_x, shift_y, zoom, brightness, contrast = (
            (2.0 * drawn[:, column] - 1.0) * strength * largest
            for column, largest in enumerate(
                (self.rotation, self.shift, self.shift, self.zoom, self.brightness, self.contrast)
            )
        )
        # Here and not in TensorFlow, whose cosine rounds by the place of a number in its batch.
        scale = 1.0 / np.maximum(1.0 + zoom, _SMALLEST_ZOOM)
        cosine, sine = np.cos(np.radians(angle)) * scale, np.sin(np.radians(angle)) * scale
        contrast = np.maximum(contrast, -1.0)  # beyond it an image would become its negative
        cut = self.cutout * strength
        columns = (cosine, sine, shift_x, shift_y, brightness, contrast, cut, *drawn[:, 6:].T)
        return np.stack(columns, axis=1).astype(np.float32)


def resolve_strength(
    pairs: Sequence[tuple[str, float]], class_names: Sequence[str]
) -> tuple[float, ...]:
    """The strength of each class in label order, 1 for those that are not named; empty: all 1.

    Raises:
      UserError: a class is unknown.
    """
    given = dict(pairs)
    check_known(given, class_names, "augment_strength")
    return tuple(given.get(name, 1.0) for name in class_names) if given else ()
