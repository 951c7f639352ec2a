"""Balancing as a plan: which records an epoch of training delivers, in order, and mirrored or not.

A plan is a pure function of (sampler, class counts, seed, epoch): a resumed run takes the rest of
it, and replicas and hosts take parts of one and the same order. A sampler chooses labels and
record numbers, not images, so no record is read or decoded that is not used. Only NumPy is needed.

`sampler_table.SAMPLERS` says which samplers there are. Class counts come from a data set's
metadata, so the length of an epoch is known before any draw.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from cxr_tfrecords.errors import UserError
from cxr_tfrecords.quotas import apportion
from trainer.balancing import drawing, sampler_table
from trainer.balancing.augmentation import Augmentation
from trainer.balancing.class_shares import Sampling

NO_AUGMENTATION = Augmentation()


@dataclasses.dataclass(frozen=True)
class EpochPlan:
    """The records of an epoch in the order of training; slots [k·batch, (k+1)·batch) are step k.

    Attributes:
      labels: int32 [n], class of each slot.
      ordinals: int64 [n], which record of that class, in the split's canonical order.
      flips: bool [n], whether the slot's image is mirrored left to right.
      batch_size: images in a step over all replicas; n is a multiple of it.
      changes: float32 [n, columns], see `Augmentation.draw`; None without augmentation.
    """

    labels: np.ndarray
    ordinals: np.ndarray
    flips: np.ndarray
    batch_size: int
    changes: np.ndarray | None = None

    @property
    def steps(self) -> int:
        return len(self.labels) // self.batch_size

    def take(self, slots: slice | np.ndarray) -> EpochPlan:
        """The plan of some slots: a slice of them, or their numbers (int [m])."""
        return EpochPlan(
            self.labels[slots],
            self.ordinals[slots],
            self.flips[slots],
            self.batch_size,
            None if self.changes is None else self.changes[slots],
        )

    def part(self, start: int, count: int) -> EpochPlan:
        """Steps from `start` on, at most `count` of them."""
        return self.take(slice(start * self.batch_size, (start + count) * self.batch_size))


def join_plans(plans: Sequence[EpochPlan]) -> EpochPlan:
    """Plans of one batch size, one after the other."""
    changes = [plan.changes for plan in plans if plan.changes is not None]
    return EpochPlan(
        np.concatenate([plan.labels for plan in plans]),
        np.concatenate([plan.ordinals for plan in plans]),
        np.concatenate([plan.flips for plan in plans]),
        plans[0].batch_size,
        np.concatenate(changes) if changes else None,
    )


def expected_counts(sampling: Sampling, counts: Sequence[int], epoch: int = 0) -> np.ndarray:
    """Records of each class that an epoch delivers before its last, partial batch is left out.

    Args:
      counts: records of each class in the split.
      epoch: from 0.

    Returns:
      int64 [classes]. Exact, but for samplers that draw at random towards a target: for those it is
      the expectation, rounded so that the sum is exactly the length of the epoch.

    Raises:
      UserError: a class that the sampler needs has no record, or a setting does not fit.
    """
    sampler_table.check(sampling)
    row = sampler_table.SAMPLERS[sampling.sampler]
    delivered = row.counts(np.asarray(counts, np.int64), sampling, epoch)
    if sampling.images:
        return apportion(delivered / delivered.sum() * sampling.images, sampling.images)
    return delivered


def draw_epoch(
    sampling: Sampling,
    counts: Sequence[int],
    *,
    batch_size: int,
    seed: int,
    epoch: int,
    flip: bool = True,
    augmentation: Augmentation = NO_AUGMENTATION,
) -> EpochPlan:
    """Draws one epoch; equal arguments give equal plans, on every machine and NumPy version.

    The order does not depend on `batch_size`: it only decides how many slots at the end, fewer
    than a batch, are left out.

    Args:
      counts: records of each class in the split.
      batch_size: over all replicas.
      seed: any integer.
      epoch: from 0.
      flip: mirror each slot with probability 1/2.
      augmentation: other changes of the slots' images.

    Raises:
      UserError: a class that the sampler needs has no record, the target does not fit, or the
        epoch is smaller than a batch.
    """
    delivered = expected_counts(sampling, counts, epoch)
    images = int(delivered.sum())
    if not 1 <= batch_size <= images:
        raise UserError(
            f"--batch_size={batch_size} must lie within 1 and the {images} images of an epoch "
            f"with --sampler={sampling.sampler}"
        )
    used = images // batch_size * batch_size
    streams = drawing.Streams(seed, epoch)
    draw = sampler_table.SAMPLERS[sampling.sampler].draw
    labels, ordinals = draw(np.asarray(counts, np.int64), delivered, sampling, streams)
    flips = streams.uniform(drawing.FLIPS, used) < 0.5 if flip else np.zeros(used, bool)
    changes = augmentation.draw(streams, labels[:used]) if augmentation.is_active else None
    return EpochPlan(
        labels[:used].astype(np.int32), ordinals[:used].astype(np.int64), flips, batch_size, changes
    )
