"""What learning rate a batch size and a step ask for. TensorFlow is not imported."""

from __future__ import annotations

import math


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


def warmed_up(rate: float, step: int, warmup_steps: int) -> float:
    """The learning rate of a step, from 1."""
    return rate * min(1.0, step / warmup_steps) if warmup_steps else rate
