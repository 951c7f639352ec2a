"""How a run balances the classes, in words, and whether it does so twice."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trainer.balancing import class_weights
from trainer.settings.config import TrainConfig

# Class shares that differ by less than this are the same mix: rounding in a sampler's plan.
_SAME_SHARE = 0.01


def balancers(
    config: TrainConfig, natural: Sequence[int], planned: Sequence[int]
) -> dict[str, str]:
    """What in a run corrects the class mix: flag -> how.

    Args:
      natural: training images of each class; planned: those that the sampler delivers.
    """
    before, after = (np.asarray(n, np.float64) / max(np.sum(n), 1) for n in (natural, planned))
    found = {}
    if np.abs(before - after).max() > _SAME_SHARE:
        found[f"--sampler={config.sampler}"] = "changes the mix"
    if config.loss in class_weights.PRIOR_AWARE:
        found[f"--loss={config.loss}"] = "corrects for the natural counts"
    if config.mixup_alpha > 0 and config.mixup == "balanced":
        found["--mixup=balanced"] = "mixes rare classes in"
    return found


def double_balancing(
    config: TrainConfig, natural: Sequence[int], planned: Sequence[int]
) -> str | None:
    """One sentence if two parts of a run each balance the classes, which over-corrects; or None."""
    found = balancers(config, natural, planned)
    if len(found) < 2:
        return None
    parts = " and ".join(f"{flag} {how}" for flag, how in found.items())
    return f"Classes are balanced twice: {parts}. Rare classes then weigh more than frequent ones."


def describe_loss(config: TrainConfig) -> str:
    """Loss and mixup with the settings that matter to them, in a few words."""
    settings = {
        "effective_number": f" (beta {config.effective_number_beta:g})",
        "focal": f" (gamma {config.focal_gamma:g})",
        "logit_adjusted": f" (tau {config.logit_adjustment_tau:g})",
        "ldam_drw": f" (largest margin {config.ldam_max_margin:g}, scale {config.ldam_scale:g}, "
        f"from epoch {config.first_drw_epoch} weighted with beta "
        f"{config.effective_number_beta:g})",
    }
    text = config.loss + settings.get(config.loss, "")
    if config.mixup_alpha > 0:
        text += f", mixup {config.mixup} (alpha {config.mixup_alpha:g})"
    return text
