"""The names of `--sampler` and what sets each apart. A new sampler is one more row here.

Flags, checks, plans, audits, reports and studies read the row; no other list of samplers is kept.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from cxr_tfrecords.errors import UserError
from trainer.balancing import class_shares, drawing
from trainer.balancing.class_shares import SAMPLING_STRATEGIES, Sampling


@dataclasses.dataclass(frozen=True)
class Sampler:
    """One row.

    Attributes:
      help: what it does, with its source where it has one; the text of --sampler is made of these.
      counts: records of each class that an epoch delivers, see `class_shares`.
      draw: which records they are, see `drawing`.
      takes_target: the user says the shares of the classes (--target_distribution,
        --balance_power).
      sampling_strategies: the words of --sampling_strategy that it takes; empty: it resizes no
        class.
      takes_counts: --sampling_strategy may give numbers of images.
      varies_by_epoch: the class mix changes from epoch to epoch, until the last one of the run:
        early stopping would cut this short and is off.
    """

    help: str
    counts: Callable[[np.ndarray, Sampling, int], np.ndarray]
    draw: Callable[
        [np.ndarray, np.ndarray, Sampling, drawing.Streams], tuple[np.ndarray, np.ndarray]
    ] = drawing.draw_exactly
    takes_target: bool = False
    sampling_strategies: tuple[str, ...] = ()
    takes_counts: bool = False
    varies_by_epoch: bool = False


# Without the class that has its size already: imbalanced-learn refuses these two as well.
_TO_SMALLEST = tuple(word for word in SAMPLING_STRATEGIES if word != "minority")
_TO_LARGEST = tuple(word for word in SAMPLING_STRATEGIES if word != "majority")

SAMPLERS = {
    "none": Sampler("every image once", class_shares.natural_counts),
    "undersample": Sampler(
        "every class is cut to the size of the smallest",
        class_shares.undersampled_counts,
        sampling_strategies=_TO_SMALLEST,
        takes_counts=True,
    ),
    "oversample": Sampler(
        "every image of class c is repeated round(max/n_c) times (Wuisan et al. 2022)",
        class_shares.replicated_counts,
        sampling_strategies=_TO_LARGEST,
    ),
    "oversample_exact": Sampler(
        "every class is filled up to the size of the largest: whole copies, then a random rest",
        class_shares.filled_up_counts,
        sampling_strategies=_TO_LARGEST,
        takes_counts=True,
    ),
    "rejection": Sampler(
        "images of frequent classes are refused at random, as by tf.data's rejection_resample, in "
        "one expected pass",
        class_shares.rejection_counts,
        drawing.draw_by_rejection,
        takes_target=True,
    ),
    "weighted": Sampler(
        "as many images as there are, the class of each drawn at random",
        class_shares.weighted_counts,
        drawing.draw_classes,
        takes_target=True,
    ),
    "progressive": Sampler(
        "as many images as there are, with class shares that go from natural in the first epoch to "
        "equal in the last of --epochs (Kang et al. 2020); training does not stop early",
        class_shares.progressive_counts,
        drawing.draw_exactly_anew,
        varies_by_epoch=True,
    ),
}


def names_with(property_name: str) -> tuple[str, ...]:
    """The samplers whose row has a value for an attribute, for example `takes_target`."""
    return tuple(name for name, row in SAMPLERS.items() if getattr(row, property_name))


def check(sampling: Sampling) -> None:
    """Refuses settings that the sampler would ignore without a word.

    Raises:
      UserError: naming flag and sampler.
    """
    name, strategy = sampling.sampler, sampling.sampling_strategy
    if name not in SAMPLERS:
        raise UserError(f"--sampler={name} is not one of {', '.join(SAMPLERS)}")
    row = SAMPLERS[name]
    if sampling.target is not None and not row.takes_target:
        raise no_meaning("--target_distribution", name, "takes_target")
    if strategy == "auto":
        return
    if not row.sampling_strategies:
        raise no_meaning("--sampling_strategy", name, "sampling_strategies")
    if not isinstance(strategy, str):
        if not row.takes_counts:
            raise UserError(
                f"--sampling_strategy with counts cannot be used with --sampler={name}, which "
                f"repeats whole classes: use --sampler={' or '.join(names_with('takes_counts'))}"
            )
    elif strategy not in SAMPLING_STRATEGIES:
        raise UserError(
            f"--sampling_strategy={strategy} is not one of {', '.join(SAMPLING_STRATEGIES)}, and "
            "not CLASS=count,…"
        )
    elif strategy not in row.sampling_strategies:
        raise UserError(
            f"--sampling_strategy={strategy} cannot be used with --sampler={name}: that class "
            f"already has its size. Use one of {', '.join(row.sampling_strategies)}"
        )


def no_meaning(flag: str, sampler: str, needed: str) -> UserError:
    """The error for a flag that a sampler does not know.

    Args:
      flag: with its value if that helps.
      needed: attribute of `Sampler` that those which know the flag have.
    """
    return UserError(
        f"{flag} has no meaning with --sampler={sampler}: leave it out, or use "
        f"--sampler={' or '.join(names_with(needed))}"
    )
