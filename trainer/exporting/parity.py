"""Does an exported file answer as the trained model does? Measured on images, before it is kept."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from scipy.special import softmax

from cxr_tfrecords.errors import UserError
from trainer.exporting.formats import Answer
from trainer.exporting.sample_images import Sample

IMAGES = 64
TOLERANCE = 1e-5
# The trained model is itself rounded to float32: a deep network's probabilities are up to some
# 1e-5 from exact ones. Other programs add in another order: where nothing was wrong, the largest of
# their few differences was up to 5 times that of the model (docs/export.md). A bias that is wrong
# by a thousandth is still found.
_TIMES_OWN_ROUNDING = 8.0
_BATCH = 8


@dataclasses.dataclass(frozen=True)
class Parity:
    """Largest differences to the network computed in float64: output -> over images and classes.

    Attributes:
      of_file, of_model: of the exported file, and of the model that it was made from.
      between: between these two.
      same_class: share of the images to which both give the same class.
    """

    of_file: dict[str, float]
    of_model: dict[str, float]
    between: dict[str, float]
    same_class: float

    @property
    def allowed(self) -> dict[str, float]:
        """Output -> largest difference of the file that is accepted; logits are not judged."""
        return {
            name: max(TOLERANCE, _TIMES_OWN_ROUNDING * value)
            for name, value in self.of_model.items()
            if name != "logits"
        }

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def answers_of(answer: Answer, images: np.ndarray) -> dict[str, np.ndarray]:
    """The answers to all images, in small batches: a float64 network needs twice the memory."""
    parts = [answer(images[i : i + _BATCH]) for i in range(0, len(images), _BATCH)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def compare(
    file: dict[str, np.ndarray], model: dict[str, np.ndarray], exact: dict[str, np.ndarray]
) -> Parity:
    """Compares the answers of a file to the same images: output -> float [n, classes]."""
    return Parity(
        of_file=_largest(file, exact),
        of_model=_largest(model, exact),
        between=_largest(file, model),
        same_class=_same_class(file, model),
    )


def check(name: str, parity: Parity) -> None:
    """Refuses a file that is not the trained model within rounding.

    Raises:
      UserError: a probability is too far from the exact one, or an image gets another class.
    """
    # Written so that NaN is too much.
    wrong = [o for o, allowed in parity.allowed.items() if not parity.of_file[o] <= allowed]
    if not wrong and parity.same_class == 1:
        return
    output = wrong[0] if wrong else "probabilities"
    raise UserError(
        f"--format={name}: the file does not answer as the trained model does: {output} differ by "
        f"{parity.of_file[output]:.1e} from exact ones (allowed {parity.allowed[output]:.1e}), and "
        f"{parity.same_class:.0%} of the images get the same class. Nothing was written: leave "
        f"{name} out of --format"
    )


def int8_cost(
    file: dict[str, np.ndarray], model: dict[str, np.ndarray], sample: Sample
) -> dict[str, Any]:
    """What rounding to 8 bits costs, on images with labels.

    Args:
      file, model: `logits`, float32 [n, classes], of the int8 file and of the trained model.
    """
    labels = sample.labels
    assert labels is not None
    correct = {
        name: answers["logits"].argmax(axis=1) == labels
        for name, answers in (("model", model), ("int8", file))
    }
    present = np.unique(labels)
    return {
        "images": len(sample.images),
        "split": sample.source,
        "accuracy": {name: float(hits.mean()) for name, hits in correct.items()},
        "balanced_accuracy": {
            name: float(np.mean([hits[labels == c].mean() for c in present]))
            for name, hits in correct.items()
        },
        "same_class": _same_class(file, model),
        "largest_difference": _largest(_with_raw(file), _with_raw(model)),
    }


def _with_raw(answers: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {**answers, "probabilities_raw": softmax(answers["logits"], axis=1)}


def _largest(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> dict[str, float]:
    return {name: float(np.abs(one[name] - other[name]).max()) for name in one}


def _same_class(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> float:
    return float(np.mean(one["logits"].argmax(axis=1) == other["logits"].argmax(axis=1)))
