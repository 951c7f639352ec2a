"""How a run balances the classes, in words, and whether it does so twice."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trainer.balancing.loss_table import LOSSES
from trainer.settings.config import TrainConfig

# Class shares that differ by less than this are the same mix: rounding in a sampler's plan.
_SAME_SHARE = 0.01


def balancers(
    config: TrainConfig, natural: Sequence[int], planned: Sequence[int]
) -> dict[str, str]:
    """The settings of a run that correct the class mix: flag -> how it does so.

    Args:
      natural: training images of each class.
      planned: those that the sampler delivers.
    """
    before, after = (np.asarray(n, np.float64) / max(np.sum(n), 1) for n in (natural, planned))
    how = {}
    if np.abs(before - after).max() > _SAME_SHARE:
        how[f"--sampler={config.sampler}"] = "changes the mix"
    if LOSSES[config.loss].needs_counts:
        how[f"--loss={config.loss}"] = "corrects for the natural counts"
    if config.mixup_alpha > 0 and config.mixup == "balanced":
        how["--mixup=balanced"] = "mixes rare classes in"
    return how


def double_balancing(
    config: TrainConfig, natural: Sequence[int], planned: Sequence[int]
) -> str | None:
    """One sentence if two settings of a run each balance the classes, which over-corrects; or None.

    Args: as of `balancers`.
    """
    how = balancers(config, natural, planned)
    if len(how) < 2:
        return None
    parts = " and ".join(f"{flag} {effect}" for flag, effect in how.items())
    return (
        f"Classes are balanced twice: {parts}. Rare classes then weigh more than frequent ones: "
        "leave one of them out, unless that is wanted."
    )


def describe_loss(config: TrainConfig) -> str:
    """Loss and mixup with the settings that matter to them, in a few words."""
    settings = LOSSES[config.loss].settings_text.format(config)
    text = f"{config.loss} ({settings})" if settings else config.loss
    if config.mixup_alpha > 0:
        text += f", mixup {config.mixup} (alpha {config.mixup_alpha:g})"
    return text
