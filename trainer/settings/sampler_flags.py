"""Flags on class balancing that training and its preview share."""

from __future__ import annotations

from typing import Any

from absl import flags

from trainer.balancing import sampler_options

flags.DEFINE_list(
    "sampling_strategy",
    ["auto"],
    "Which classes undersample, oversample and oversample_exact resize, in imbalanced-learn's "
    "words. auto: all that are not at the size aimed at already. minority, majority: only the "
    "smallest or largest class. not minority, not majority: all but that one. all. Or images of "
    "each class, as COVID=3000,Normal=500 (not with oversample); classes left out stay as they "
    "are.",
)
flags.DEFINE_list(
    "target_distribution",
    [],
    "For weighted and rejection: share of each class, as COVID=0.5,Normal=0.5; scaled to sum 1. "
    "Or one word: uniform, equal shares; sqrt, proportional to the square root of a class's "
    "images; natural, as they are. Empty: uniform.",
)
flags.DEFINE_float(
    "balance_power",
    None,
    "For weighted and rejection, instead of --target_distribution: shares proportional to a "
    "class's images to the power of 1 minus this. 0: natural. 0.5: sqrt. 1: uniform.",
)
flags.DEFINE_bool(
    "resample_each_epoch",
    False,
    "undersample, oversample_exact: in every epoch choose anew which images are left out or come "
    "once more. Else the choice of the first epoch stays.",
)


def parsed_settings(values: flags.FlagValues) -> dict[str, Any]:
    """The flags above as `TrainConfig` takes them.

    Raises:
      UserError: a list is malformed.
    """
    return {
        "sampling_strategy": sampler_options.parse_sampling_strategy(values.sampling_strategy),
        "target_distribution": sampler_options.parse_distribution(values.target_distribution),
        "balance_power": values.balance_power,
        "resample_each_epoch": values.resample_each_epoch,
    }
