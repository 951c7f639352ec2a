"""Settings that `config.TrainConfig` refuses, each with one line that names flag and value."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cxr_tfrecords.errors import UserError

if TYPE_CHECKING:
    from trainer.config import TrainConfig


def check_choice(config: TrainConfig, name: str, choices: Sequence[str]) -> None:
    if getattr(config, name) not in choices:
        raise UserError(f"--{name}={getattr(config, name)} is none of {', '.join(choices)}")


def check_numbers(config: TrainConfig) -> None:
    for name in (
        "batch_size",
        "epochs",
        "bn_examples",
        "keep_checkpoints",
        "learning_rate_base_batch",
    ):
        if getattr(config, name) < 1:
            raise UserError(f"--{name}={getattr(config, name)} must be at least 1")
    for name in ("checkpoint_every", "worker_timeout", "warmup_steps", "profile"):
        if getattr(config, name) < 0:
            raise UserError(f"--{name}={getattr(config, name)} must be 0 or more")
    if not 0 <= config.dropout < 1:
        raise UserError(f"--dropout={config.dropout} must lie within [0, 1)")
    if not config.learning_rate > 0:
        raise UserError(f"--learning_rate={config.learning_rate} must be above 0")
    if not 0 < config.reduce_lr_factor < 1:
        raise UserError(f"--reduce_lr_factor={config.reduce_lr_factor} must lie within (0, 1)")
    if any(units < 1 for units in config.head_units):
        raise UserError(f"--head_units={list(config.head_units)}: each must be at least 1")


def check_cache(config: TrainConfig) -> None:
    if config.data_service and config.cache != "none":
        raise UserError(
            f"--data_service={config.data_service} decodes what is streamed and not what is kept "
            f"in memory (--cache={config.cache}): give --cache=none"
        )
    if config.cache == "features" and not config.has_fixed_features:
        raise UserError(
            "--cache=features keeps what a frozen backbone makes of each image: it needs "
            f"--trainable=head (not {config.trainable}) and --mixup_alpha=0 (not "
            f"{config.mixup_alpha:g})"
        )


def check_loss(config: TrainConfig) -> None:
    if not 0 <= config.effective_number_beta < 1:
        raise UserError(
            f"--effective_number_beta={config.effective_number_beta} must lie within [0, 1)"
        )
    for name in ("focal_gamma", "drw_epoch", "ldam_max_margin", "mixup_alpha"):
        if not 0 <= getattr(config, name) < math.inf:
            raise UserError(f"--{name}={getattr(config, name)} must be a number of 0 or more")
    if not 0 < config.ldam_scale < math.inf:
        raise UserError(f"--ldam_scale={config.ldam_scale} must be above 0")
    if not math.isfinite(config.logit_adjustment_tau):
        raise UserError(f"--logit_adjustment_tau={config.logit_adjustment_tau} must be a number")
    if config.mixup == "balanced" and config.mixup_alpha == 0:
        raise UserError(
            "--mixup=balanced mixes nothing at --mixup_alpha=0.0: give for example "
            "--mixup_alpha=0.2"
        )


def check_trainable(value: str) -> None:
    if value not in ("all", "head") and not value.removeprefix("from:").strip():
        raise UserError("--trainable=from: lacks the layer's name")
    if value not in ("all", "head") and not value.startswith("from:"):
        raise UserError(f"--trainable={value} is none of all, head, from:<layer>")
