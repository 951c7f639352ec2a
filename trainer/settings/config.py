"""Every setting of a training run, as one frozen value that is written beside its results."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

from cxr_tfrecords.errors import UserError
from trainer.balancing import sampler_options, sampler_table
from trainer.models import backbone_table
from trainer.settings import learning_rate

STRATEGIES = ("cpu", "mirrored", "multi_worker", "tpu", "auto")
SAMPLERS = tuple(sampler_table.SAMPLERS)
BACKBONES = tuple(backbone_table.TABLE)
LOSSES = (
    "cross_entropy",
    "class_weighted",
    "effective_number",
    "focal",
    "balanced_softmax",
    "logit_adjusted",
    "ldam_drw",
)
MIXUPS = ("plain", "balanced")
BATCH_NORMS = ("adapt", "adapt_natural", "train", "frozen")
OPTIMIZERS = ("adamax", "adam", "sgd")
LEARNING_RATE_SCALINGS = ("none", "linear", "sqrt")
MONITORS = ("validation_loss", "validation_accuracy", "validation_balanced_accuracy")
PRECISIONS = ("float32", "bfloat16")
MASKS = ("none", "lungs", "background")
CACHES = ("auto", "features", "memory", "none")

_CHOICES = {
    "strategy": STRATEGIES,
    "backbone": BACKBONES,
    "sampler": SAMPLERS,
    "batch_norm": BATCH_NORMS,
    "optimizer": OPTIMIZERS,
    "learning_rate_scaling": LEARNING_RATE_SCALINGS,
    "monitor": MONITORS,
    "mixed_precision": PRECISIONS,
    "cache": CACHES,
    "mask": MASKS,
    "loss": LOSSES,
    "mixup": MIXUPS,
}

# Where and how fast a run computes, not what: these may change when a run is resumed. Data are
# compared by fingerprint, so that a moved directory is still the same data. (--cache is not among
# them: streamed, other records of a class fill the same places than from memory.)
_MAY_CHANGE = (
    "data_dir",
    "run_dir",
    "strategy",
    "tpu",
    "virtual_devices",
    "data_service",
    "steps_per_loop",
    "checkpoint_every",
    "keep_checkpoints",
    "worker_timeout",
    "profile",
)
# Flags under their former names, in config.json files that are there.
_FORMER_NAMES = {"checkpoint_keep": "keep_checkpoints"}


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """What `trainer.main` runs; its flags' help texts explain each value.

    Attributes:
      data_dir: dataset directory; run_dir: where everything that the run makes goes.
      weights: `imagenet`, `none` or a weights file. `auto` becomes `imagenet` for the backbones
        of keras.applications and `none` for the others.
      trainable: `all`, `head` or `from:<layer>`.
      head_units: widths of the dense layers between backbone and logits.
      batch_norm: `adapt`, `adapt_natural`, `train` or `frozen`, see `trainer.models.batch_norm`.
      bn_examples: training images that the moments are re-estimated from, at most.
      sync_batch_norm: normalise by the global batch's moments, not by each replica's part's.
      target_distribution: (class, share) pairs for `weighted` and `rejection`, or a word of
        `class_shares.DISTRIBUTIONS`; empty: uniform.
      balance_power: p, instead of that: shares proportional to n_c^(1 - p).
      sampling_strategy: a word of `class_shares.SAMPLING_STRATEGIES`, or (class, images) pairs.
      loss: of training, see `training.losses`; the flags after it are each for one or two of them.
      drw_epoch: first re-weighted epoch of `ldam_drw`, from 1; 0 becomes `first_drw_epoch`.
      mixup_alpha: of the Beta distribution, see `trainer.balancing.mixup`; 0 mixes nothing.
      mask: what of each image is shown, in all splits; the rest is black.
      image_size: 0, or the side in pixels that the data set must have.
      batch_size: global, over all replicas.
      steps_per_epoch: 0: an epoch is the sampler's. Else so many steps of its endless stream.
      learning_rate_scaling: `none`, `linear` or `sqrt`, see `settings.learning_rate`; base_batch:
        the batch size that `learning_rate` is for; warmup_steps: 0 or more.
      reduce_lr_factor: a plateau multiplies the learning rate by it.
      monitor: the history column that decides on best weights, stopping and plateaus.
      cache: `auto`, `feature_cache`, `memory` or `none`, see `trainer.training.feature_cache`.
      cache_mb: largest split that `auto` keeps in memory, in MiB.
      data_service: who decodes the training images: empty, `local` or addresses of
        `trainer.decode_server`.
      steps_per_loop: steps in one call to the device. 0: chosen from the steps of an epoch.
      checkpoint_every: steps between checkpoints within an epoch; 0: at the ends of epochs only.
      keep_checkpoints: checkpoints kept on disk; the best weights are kept besides.
      worker_timeout: seconds without progress after which a worker gives up; 0: never.
      profile: steps that are traced, see `trainer.training.step_profile`; 0: none.
    """

    data_dir: str
    run_dir: str = ""
    strategy: str = "cpu"
    tpu: str = "local"
    virtual_devices: int = 0
    backbone: str = "tiny"
    weights: str = "auto"
    trainable: str = "all"
    head_units: tuple[int, ...] = ()
    dropout: float = 0.2
    batch_norm: str = "adapt"
    bn_examples: int = 512
    sync_batch_norm: bool = True
    sampler: str = "none"
    target_distribution: tuple[tuple[str, float], ...] | str = ()
    balance_power: float | None = None
    sampling_strategy: tuple[tuple[str, int], ...] | str = "auto"
    resample_each_epoch: bool = False
    loss: str = "cross_entropy"
    effective_number_beta: float = 0.999
    focal_gamma: float = 2.0
    logit_adjustment_tau: float = 1.0
    ldam_max_margin: float = 0.5
    ldam_scale: float = 30.0
    drw_epoch: int = 0
    mixup: str = "plain"
    mixup_alpha: float = 0.0
    flip: bool = True
    mask: str = "none"
    image_size: int = 0
    optimizer: str = "adamax"
    learning_rate: float = 0.001
    learning_rate_scaling: str = "none"
    learning_rate_base_batch: int = 32
    warmup_steps: int = 0
    batch_size: int = 32
    epochs: int = 20
    steps_per_epoch: int = 0
    early_stopping_patience: int = 3
    reduce_lr_patience: int = 1
    reduce_lr_factor: float = 0.1
    monitor: str = "validation_loss"
    mixed_precision: str = "float32"
    seed: int = 0
    cache: str = "auto"
    cache_mb: int = 2048
    data_service: str = ""
    steps_per_loop: int = 0
    checkpoint_every: int = 0
    keep_checkpoints: int = 2
    worker_timeout: int = 1800
    profile: int = 0

    def __post_init__(self) -> None:
        if self.weights == "auto":
            row = backbone_table.TABLE.get(self.backbone)
            object.__setattr__(self, "weights", "imagenet" if row and row.has_imagenet else "none")
        if not self.run_dir:
            object.__setattr__(self, "run_dir", os.path.join("runs", _run_name(self)))
        for name, choices in _CHOICES.items():
            _check_choice(self, name, choices)
        _check_loss(self)
        _check_trainable(self.trainable)
        sampler_options.check(
            self.sampler, self.target_distribution, self.balance_power, self.sampling_strategy
        )
        _check_numbers(self)
        _check_cache(self)

    @property
    def has_fixed_features(self) -> bool:
        """Whether what the head sees of an image, or of its mirror image, never changes."""
        return self.trainable == "head" and self.mixup_alpha == 0

    @property
    def scaled_learning_rate(self) -> float:
        """The learning rate at the start of training, after its warm-up."""
        return learning_rate.scaled_learning_rate(
            self.learning_rate,
            self.learning_rate_scaling,
            self.batch_size,
            self.learning_rate_base_batch,
        )

    @property
    def first_drw_epoch(self) -> int:
        """First epoch, from 1, that `ldam_drw` re-weighs: after 80% of all, as in Cao et al. 2019
        (160 of 200), unless `drw_epoch` names it."""
        return self.drw_epoch or 4 * self.epochs // 5 + 1

    def to_json(self) -> dict[str, Any]:
        """A JSON-able dict; `from_json` gives back an equal config."""
        return {
            name: _listed(value) if isinstance(value, tuple) else value
            for name, value in dataclasses.asdict(self).items()
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> TrainConfig:
        values = _renamed(content)
        values["head_units"] = tuple(values["head_units"])
        for name in ("target_distribution", "sampling_strategy"):
            if not isinstance(values.get(name, ""), str):
                values[name] = tuple((class_name, value) for class_name, value in values[name])
        return cls(**values)

    def differences(self, other: Mapping[str, Any]) -> list[str]:
        """`--flag: theirs, now ours` for each setting that a resumed run may not change.

        A setting that is younger than the other run had its default there.
        """
        own = self.to_json()
        other = TrainConfig(data_dir="").to_json() | _renamed(other)
        return [
            f"--{name}: {other.get(name, 'absent')} there, {own.get(name, 'absent')} here"
            for name in sorted((own.keys() | other.keys()) - set(_MAY_CHANGE))
            if own.get(name) != other.get(name)
        ]


def parse_head_units(items: Sequence[str]) -> tuple[int, ...]:
    """`["256", "64"]` to `(256, 64)`.

    Raises:
      UserError: an item is not a whole number.
    """
    try:
        return tuple(int(item) for item in items if item.strip())
    except ValueError as error:
        raise UserError(f"--head_units={','.join(items)} must be whole numbers") from error


def _run_name(config: TrainConfig) -> str:
    """Backbone, sampler and seed; loss and mixup where they are not the plain ones."""
    parts = [config.backbone, config.sampler]
    if config.loss != "cross_entropy":
        parts.append(config.loss)
    if config.mixup_alpha > 0:
        parts.append("balanced_mixup" if config.mixup == "balanced" else "mixup")
    return "-".join([*parts, f"seed{config.seed}"])


def _renamed(content: Mapping[str, Any]) -> dict[str, Any]:
    return {_FORMER_NAMES.get(name, name): value for name, value in content.items()}


def _listed(value: Any) -> Any:
    return [_listed(item) for item in value] if isinstance(value, tuple) else value


def _check_choice(config: TrainConfig, name: str, choices: Sequence[str]) -> None:
    if getattr(config, name) not in choices:
        raise UserError(f"--{name}={getattr(config, name)} is none of {', '.join(choices)}")


def _check_numbers(config: TrainConfig) -> None:
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


def _check_cache(config: TrainConfig) -> None:
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


def _check_loss(config: TrainConfig) -> None:
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


def _check_trainable(value: str) -> None:
    if value not in ("all", "head") and not value.removeprefix("from:").strip():
        raise UserError("--trainable=from: lacks the layer's name")
    if value not in ("all", "head") and not value.startswith("from:"):
        raise UserError(f"--trainable={value} is none of all, head, from:<layer>")
