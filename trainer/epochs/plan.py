"""What a run trains on in each epoch: a function of its settings and class counts only.

TensorFlow is not imported, so a preview starts quickly.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from trainer.balancing import mixup, sampler_options, samplers
from trainer.balancing.augmentation import Augmentation, resolve_strength
from trainer.balancing.class_shares import Sampling
from trainer.balancing.sampler_table import SAMPLERS
from trainer.settings.config import TrainConfig
from trainer.settings.learning_rate import Schedule

# The sampler settings that keep the natural class counts.
_NATURAL: dict[str, Any] = {
    "sampler": "none",
    "target_distribution": (),
    "balance_power": None,
    "sampling_strategy": "auto",
    "resample_each_epoch": False,
}


@dataclasses.dataclass(frozen=True)
class EpochPlanner:
    """Plans the epochs of a run; equal planners give equal plans, on every host.

    Attributes:
      class_names, counts: names and training images of the classes, in label order.

    Raises (all methods):
      UserError: the epoch has no full batch, its sampler lacks a class, or a setting does not fit
        the classes.
    """

    config: TrainConfig
    class_names: Sequence[str]
    counts: Sequence[int]

    def plan(self, epoch: int) -> samplers.EpochPlan:
        """The records of an epoch (from 0), in order.

        With `steps_per_epoch` the sampler's own epochs form an endless stream, and an epoch of the
        run is the next `steps_per_epoch` steps of this stream. A sampler whose class shares change
        draws that many steps for each epoch of the run instead, so that its shares follow the run.
        """
        wanted = self.config.steps_per_epoch
        if not wanted or SAMPLERS[self.config.sampler].varies_by_epoch:
            return self._sampler_epoch(epoch, wanted * self.config.batch_size)
        end = (epoch + 1) * wanted
        length = self._sampler_epoch(0).steps  # the same in every epoch
        parts: list[samplers.EpochPlan] = []
        while wanted:
            number, start = divmod(end - wanted, length)
            parts.append(self._sampler_epoch(number).part(start, wanted))
            wanted -= parts[-1].steps
        return samplers.join_plans(parts)

    @property
    def learning_rates(self) -> Schedule:
        """How the learning rate changes from step to step."""
        config = self.config
        epochs = {"plateau": 0, "cosine": config.epochs, "triangular": config.lr_cycle_epochs}
        steps = 1
        if epochs[config.lr_schedule]:
            in_epoch = config.steps_per_epoch or self._sampler_epoch(0).steps  # as in every epoch
            steps = epochs[config.lr_schedule] * in_epoch
        return Schedule(config.lr_schedule, steps, config.lr_cycle_lowest, config.warmup_steps)

    @property
    def augmentation(self) -> Augmentation:
        """The changes of training images besides the flip."""
        config = self.config
        return Augmentation(
            config.augment_rotation,
            config.augment_shift,
            config.augment_zoom,
            config.augment_brightness,
            config.augment_contrast,
            config.augment_cutout,
            resolve_strength(config.augment_strength, self.class_names),
        )

    def partners(self, plan: samplers.EpochPlan, epoch: int) -> mixup.Mixing | None:
        """The partners that mixup adds to the images of an epoch's plan; None without mixup."""
        config = self.config
        if config.mixup_alpha == 0:
            return None
        return mixup.draw_partners(
            config.mixup,
            config.mixup_alpha,
            plan,
            self.counts,
            seed=config.seed,
            epoch=epoch,
            flip=config.flip,
            augmentation=self.augmentation,
        )

    def moments(self, epoch: int = 0) -> tuple[samplers.EpochPlan, mixup.Mixing | None]:
        """The images from which BatchNormalization's statistics are estimated, and their mixup
        partners: whole batches of about `bn_examples` images.

        They are the first images of the training stream or, with `adapt_natural`, of an epoch at
        natural prevalence without mixup. They are the same for all epochs, unless the sampler's
        class shares change by epoch: then they are those of `epoch` (from 0), the last one trained.
        """
        natural = self.config.batch_norm == "adapt_natural"
        planner = (
            dataclasses.replace(self, config=dataclasses.replace(self.config, **_NATURAL))
            if natural
            else self
        )
        varies = SAMPLERS[planner.config.sampler].varies_by_epoch
        plan = planner.plan(epoch if varies else 0)
        plan = plan.part(0, -(-self.config.bn_examples // plan.batch_size))
        return plan, None if natural else self.partners(plan, epoch=0)

    def planned_counts(self, epoch: int) -> np.ndarray:
        """int64 [classes], planned images, before the last, partial batch is left out."""
        config = self.config
        images = config.steps_per_epoch * config.batch_size
        return samplers.expected_counts(self._sampling(images), self.counts, epoch)

    def label_shares(self, epoch: int) -> np.ndarray:
        """float64 [classes], sum 1: planned shares of the classes in an epoch's labels (from 0),
        after mixup."""
        config, planned = self.config, self.planned_counts(epoch)
        shares = planned / planned.sum()
        return mixup.label_shares(config.mixup, config.mixup_alpha, shares, self.counts)

    def count_samples(self) -> dict[str, list[int]]:
        """Training images of each class: `natural`, `planned`, `realised` in the first epoch as
        drawn, and `unique`, the different ones among these. The content of sampler_counts.json."""
        plan = self.plan(0)
        classes = range(len(self.counts))
        return {
            "natural": list(self.counts),
            "planned": [int(n) for n in self.planned_counts(0)],
            "realised": [int((plan.labels == c).sum()) for c in classes],
            "unique": [len(np.unique(plan.ordinals[plan.labels == c])) for c in classes],
        }

    def _sampler_epoch(self, epoch: int, images: int = 0) -> samplers.EpochPlan:
        config = self.config
        return samplers.draw_epoch(
            self._sampling(images),
            self.counts,
            batch_size=config.batch_size,
            seed=config.seed,
            epoch=epoch,
            flip=config.flip,
            augmentation=self.augmentation,
        )

    def _sampling(self, images: int) -> Sampling:
        config = self.config
        return Sampling(
            config.sampler,
            target=sampler_options.resolve_distribution(
                config.target_distribution, config.balance_power, self.class_names, self.counts
            ),
            sampling_strategy=sampler_options.resolve_sampling_strategy(
                config.sampling_strategy, self.class_names
            ),
            epochs=config.epochs,
            images=images,
            resample_each_epoch=config.resample_each_epoch,
            class_names=self.class_names,
        )
