"""What learning rate a batch size and a step ask for. TensorFlow is not imported."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

SCHEDULES = ("plateau", "cosine", "triangular")


def scaled_learning_rate(rate: float, scaling: str, batch_size: int, base_batch: int) -> float:
    """The learning rate for another batch size than it was chosen for.

    Args:
      rate: chosen for batches of `base_batch` images.
      scaling: `none`; `linear`, times the quotient of the batch sizes (Goyal et al., Accurate,
        Large Minibatch SGD, 2017, section 2.1); or `sqrt`, times its square root (Krizhevsky, One
        weird trick, 2014, section 5), which adaptive optimizers mostly want (Malladi et al. 2022).
    """
    quotient = batch_size / base_batch
    return rate * {"none": 1.0, "linear": quotient, "sqrt": math.sqrt(quotient)}[scaling]


@dataclasses.dataclass(frozen=True)
class Schedule:
    """What the learning rate is multiplied by in each step.

    Attributes:
      name: `plateau`: 1, because the host lowers the rate between epochs. `cosine`: from 1 to 0
        along half a period of the cosine (Loshchilov and Hutter, SGDR, 2017, equation 5, without
        restarts). `triangular`: from `lowest` evenly to 1 and back (Smith, Cyclical Learning Rates
        for Training Neural Networks, 2017, section 3.1).
      steps: of the whole training for `cosine`, of a cycle for `triangular`.
      lowest: for `triangular`, at the start and end of a cycle.
      warmup_steps: in these first steps all this is multiplied by a number that rises evenly to 1
        (Goyal et al., Accurate, Large Minibatch SGD, 2017, section 2.2).
    """

    name: str = "plateau"
    steps: int = 1
    lowest: float = 0.0
    warmup_steps: int = 0

    @property
    def is_constant(self) -> bool:
        """Whether the factor is 1 in each step."""
        return self.name == "plateau" and not self.warmup_steps

    def factor(self, done: Any, library: Any = np) -> Any:
        """The factor of the step after `done` others.

        Args:
          done: a float, or a float32 tensor for TensorFlow as `library`.
        """
        factor = 1.0
        if self.name == "cosine":
            way = library.minimum(1.0, done / self.steps)
            factor = 0.5 + 0.5 * library.cos(math.pi * way)
        elif self.name == "triangular":
            way = done % self.steps / self.steps
            factor = self.lowest + (1.0 - self.lowest) * (1.0 - abs(2.0 * way - 1.0))
        if self.warmup_steps:
            factor *= library.minimum(1.0, (done + 1.0) / self.warmup_steps)
        return factor


CONSTANT = Schedule()
