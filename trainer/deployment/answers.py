"""What a model says of images."""

from __future__ import annotations

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Answers:
    """A model's answers to n images.

    Attributes:
      class_names: the classes, in label order.
      logits: float32 [n, classes], as the model gives them.
      probabilities: `raw`, `prior_corrected` and `calibrated`, see
        `corrected_probabilities.VARIANTS`; each float64 [n, classes], rows sum to 1.
      above_threshold: bool [n, classes], whether the raw probability of a class reaches the
        threshold that was chosen for it on validation. False for a class without a threshold.
      in_set: bool [n, classes], the classes that cannot be excluded: for images of each class, the
        set holds it with the wanted coverage, see `evaluation.conformal`.
      out_of_distribution: bool [n], whether an image is flagged as unlike the training images;
        None where that was not checked.
      out_of_distribution_score: float64 [n], the higher the less alike; None likewise.
    """

    class_names: tuple[str, ...]
    logits: np.ndarray
    probabilities: dict[str, np.ndarray]
    above_threshold: np.ndarray
    in_set: np.ndarray
    out_of_distribution: np.ndarray | None = None
    out_of_distribution_score: np.ndarray | None = None

    @property
    def classes(self) -> list[str]:
        """n names: the class of the largest logit, as in the run's own metrics."""
        return [self.class_names[c] for c in self.logits.argmax(axis=1)]
