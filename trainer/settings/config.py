"""The settings of a training run as one frozen value, which is written beside its results."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

from cxr_tfrecords import settings
from cxr_tfrecords.dataset_dir import DatasetDir
from cxr_tfrecords.errors import UserError
from trainer.balancing import sampler_options
from trainer.balancing.sampler_table import SAMPLERS
from trainer.models import backbone_table
from trainer.settings import chosen_classes, image_size, learning_rate
from trainer.settings.table import Settings

AUGMENTATIONS = tuple(
    f"augment_{name}" for name in ("rotation", "shift", "zoom", "brightness", "contrast", "cutout")
)
# Settings that are pairs of a class and a value.
_PAIRS = ("target_distribution", "sampling_strategy", "map_classes", "augment_strength")


@dataclasses.dataclass(frozen=True)
class TrainConfig(Settings):
    """What `trainer.main` runs. `table.Settings` says what each value means; `--help` shows it.

    Two settings become other values here: `weights="auto"` is `imagenet` for the backbones that
    have such weights, `none` for the others and with `init_from`, and an empty `run_dir` gets its
    name.

    Raises:
      UserError: a value is not allowed, or two do not fit together; it names flag and value.
    """

    def __post_init__(self) -> None:
        settings.check(self)
        if self.init_from and self.weights not in ("auto", "none"):
            raise UserError(
                f"--init_from={self.init_from} and --weights={self.weights} both say which weights "
                "the training starts from: give only one"
            )
        if self.weights == "auto":
            has_imagenet = backbone_table.TABLE[self.backbone].has_imagenet and not self.init_from
            object.__setattr__(self, "weights", "imagenet" if has_imagenet else "none")
        if not self.run_dir:
            object.__setattr__(self, "run_dir", os.path.join("runs", _run_name(self)))
        sampler_options.check(
            self.sampler, self.target_distribution, self.balance_power, self.sampling_strategy
        )
        _check_trainable(self.trainable)
        _check_head_and_mixup(self)
        if self.first_layer_lr_factor != 1 and self.trainable == "head":
            raise UserError(
                f"--first_layer_lr_factor={self.first_layer_lr_factor:g} is for layers of the "
                "backbone, and --trainable=head trains none: leave out one or the other"
            )
        _check_cache(self)
        if self.augment_strength and not self.augments:
            raise UserError(
                "--augment_strength multiplies --augment_rotation and the like, and none is "
                "given: add one"
            )

    @property
    def used_rnn_units(self) -> int:
        """`rnn_units`, or 0 without a recurrent head."""
        return self.rnn_units if self.head == "rnn" else 0

    @property
    def has_fixed_features(self) -> bool:
        """Whether what the head sees of an image, or of its mirror image, never changes."""
        return self.trainable == "head" and self.mixup_alpha == 0 and not self.augments

    @property
    def augments(self) -> bool:
        """Whether training images are changed besides the flip."""
        return any(getattr(self, name) for name in AUGMENTATIONS)

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
    def stopping_patience(self) -> int:
        """`early_stopping_patience`, or 0 (never) with a sampler whose class mix changes up to the
        last epoch, or a learning rate that falls up to it: stopping early would leave out the part
        of the run that balances, or that learns in small steps. At least a cycle of the learning
        rate, while whose upper half the metric may well become worse."""
        if SAMPLERS[self.sampler].varies_by_epoch or self.lr_schedule == "cosine":
            return 0
        patience = self.early_stopping_patience
        if patience and self.lr_schedule == "triangular":
            return max(patience, self.lr_cycle_epochs)
        return patience

    @property
    def lowering_patience(self) -> int:
        """`reduce_lr_patience`, or 0 (never) with a schedule that does not look at the metric."""
        return self.reduce_lr_patience if self.lr_schedule == "plateau" else 0

    @property
    def first_drw_epoch(self) -> int:
        """First epoch, from 1, that `ldam_drw` re-weighs: after 80% of all, as in Cao et al. 2019
        (160 of 200), unless `drw_epoch` names it."""
        return self.drw_epoch or 4 * self.epochs // 5 + 1

    def with_classes(self, data: DatasetDir) -> DatasetDir:
        """The data set with the classes of this run; one that has them already stays as it is.

        Raises:
          UserError: `classes` or `map_classes` does not fit the data set.
        """
        if data.label_map:
            return data
        return chosen_classes.choose_classes(data, self.classes, self.map_classes)

    def shown(self, data: DatasetDir) -> DatasetDir:
        """The data set as this run sees it: its classes, through its mask.

        Raises:
          UserError: its images are smaller than `image_size`, it holds no masks, or it lacks a
            class.
        """
        image_size.check(self.image_size, data.image_size, data.path)
        return self.with_classes(data).showing(self.mask)

    def to_json(self) -> dict[str, Any]:
        """A JSON-able dict; `from_json` gives back an equal config."""
        return {
            name: _listed(value) if isinstance(value, tuple) else value
            for name, value in dataclasses.asdict(self).items()
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> TrainConfig:
        """The config of a config.json.

        Raises:
          KeyError, TypeError: it is not the content of one.
        """
        values = dict(content)
        values["head_units"] = tuple(values["head_units"])
        values["classes"] = tuple(values.get("classes", ()))
        for name in _PAIRS:
            if not isinstance(values.get(name, ""), str):
                values[name] = tuple((class_name, value) for class_name, value in values[name])
        return cls(**values)

    def differences(self, other: Mapping[str, Any]) -> list[str]:
        """`--flag: theirs there, ours here` for each setting that a resumed run may not change.

        Args:
          other: the other run's `to_json`. A setting that it lacks had its default there.
        """
        here = self.to_json()
        there = TrainConfig(data_dir="").to_json() | dict(other)
        may_change = {name for name, row in settings.table(self).items() if row.may_change}
        return [
            f"--{name}: {there.get(name, 'absent')} there, {here.get(name, 'absent')} here"
            for name in sorted((here.keys() | there.keys()) - may_change)
            if here.get(name) != there.get(name)
        ]


def _run_name(config: TrainConfig) -> str:
    """Backbone, sampler and seed; loss and mixup where they are not the plain ones."""
    parts = [config.backbone, config.sampler]
    if config.loss != "cross_entropy":
        parts.append(config.loss)
    if config.mixup_alpha > 0:
        parts.append("balanced_mixup" if config.mixup == "balanced" else "mixup")
    if config.fold is not None:
        parts.append(f"fold{config.fold}")
    return "-".join([*parts, f"seed{config.seed}"])


def _listed(value: Any) -> Any:
    return [_listed(item) for item in value] if isinstance(value, tuple) else value


def _check_head_and_mixup(config: TrainConfig) -> None:
    if any(units < 1 for units in config.head_units):
        raise UserError(f"--head_units={list(config.head_units)}: each must be at least 1")
    if config.mixup == "balanced" and config.mixup_alpha == 0:
        raise UserError(
            "--mixup=balanced mixes nothing at --mixup_alpha=0.0: give for example "
            "--mixup_alpha=0.2"
        )


def _check_cache(config: TrainConfig) -> None:
    if config.data_service and config.cache != "none":
        raise UserError(
            f"--data_service={config.data_service} decodes what is streamed and not what is kept "
            f"in memory (--cache={config.cache}): give --cache=none"
        )
    if config.cache == "features" and not config.has_fixed_features:
        changes = {
            f"--trainable={config.trainable}": config.trainable != "head",
            f"--mixup_alpha={config.mixup_alpha:g}": config.mixup_alpha != 0,
            "--augment_*": config.augments,
        }
        named = " and ".join(flag for flag, is_wrong in changes.items() if is_wrong)
        raise UserError(
            "--cache=features keeps what a frozen backbone makes of each image, the same in every "
            f"epoch, which {named} would change: leave out one or the other"
        )


def _check_trainable(value: str) -> None:
    if value.startswith("from:") and not value.removeprefix("from:").strip():
        raise UserError(
            "--trainable=from: lacks the layer's name: give for example --trainable=from:block_13"
        )
    if value not in ("all", "head") and not value.startswith("from:"):
        raise UserError(f"--trainable={value} is not one of all, head, from:LAYER")
