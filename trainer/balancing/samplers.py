"""Balancing as a plan: which records an epoch of training delivers, in order, and mirrored or not.

A plan is a pure function of (sampler, class counts, seed, epoch): resuming is slicing it, and
replicas and hosts take parts of one and the same order. Nothing is read or decoded in vain,
because a sampler chooses labels and record numbers, not images. Only NumPy is needed.

    none              every record once
    undersample       every class cut to the smallest
    oversample        every record of class c repeated round(max / n_c) times (Wuisan et al. 2022,
                      Tables IV and V)
    oversample_exact  every class filled up to the largest: whole copies, then a random rest
    weighted          N independent draws of the class from the target distribution
    rejection         what tf.data.Dataset.rejection_resample does, in one expected pass
    progressive       N records; class shares go from natural to uniform over the epochs (Kang et
                      al. 2020, eq. 3), exact in each

Class counts come from a dataset's metadata, so the length of an epoch is known before any draw.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from cxr_tfrecords.errors import UserError
from trainer.balancing.class_shares import acceptance, expected_counts, target_shares

# What a stream of random numbers is for. Each purpose has a stream of its own, so that for example
# switching the flips off changes no record.
_ORDER, _FLIPS, _LABELS, _SUBSET = range(4)
_PURPOSES = 16


@dataclasses.dataclass(frozen=True)
class EpochPlan:
    """The records of an epoch in the order of training; slots [k·batch, (k+1)·batch) are step k.

    Attributes:
      labels: int32 [n], class of each slot.
      ordinals: int64 [n], which record of that class, in the split's canonical order.
      flips: bool [n], whether the slot's image is mirrored left to right.
      batch_size: images in a step over all replicas; n is a multiple of it.
    """

    labels: np.ndarray
    ordinals: np.ndarray
    flips: np.ndarray
    batch_size: int

    @property
    def steps(self) -> int:
        return len(self.labels) // self.batch_size

    def part(self, start: int, count: int) -> EpochPlan:
        """Steps from `start` on, at most `count` of them."""
        slots = slice(start * self.batch_size, (start + count) * self.batch_size)
        return EpochPlan(
            self.labels[slots], self.ordinals[slots], self.flips[slots], self.batch_size
        )


def join_plans(plans: Sequence[EpochPlan]) -> EpochPlan:
    """Plans of one batch size, one after the other."""
    return EpochPlan(
        np.concatenate([plan.labels for plan in plans]),
        np.concatenate([plan.ordinals for plan in plans]),
        np.concatenate([plan.flips for plan in plans]),
        plans[0].batch_size,
    )


def plan_epoch(
    sampler: str,
    counts: Sequence[int],
    *,
    batch_size: int,
    seed: int,
    epoch: int,
    flip: bool = True,
    target: Sequence[float] | None = None,
    strategy: str | Mapping[int, int] = "auto",
    epochs: int = 1,
    resample_each_epoch: bool = False,
    class_names: Sequence[str] | None = None,
) -> EpochPlan:
    """Draws one epoch; equal arguments give equal plans, on every machine and NumPy version.

    The order does not depend on `batch_size`: it only decides how many slots at the end, fewer
    than a batch, are left out.

    Args:
      sampler: one of `class_shares.SAMPLERS`.
      counts: records of each class in the split.
      batch_size: over all replicas.
      seed: any integer; epoch: from 0.
      flip: mirror each slot with probability 1/2.
      target: share of each class, `weighted` and `rejection` only; None is uniform. Scaled to 1.
      strategy: which classes `undersample`, `oversample` and `oversample_exact` resize, or label
        -> wanted records, see `class_shares.expected_counts`.
      epochs: of the whole run, `progressive` only.
      resample_each_epoch: `undersample` and `oversample_exact` only: which records are left out
        or come once more is drawn anew in each epoch.
      class_names: for messages.

    Raises:
      UserError: a class that the sampler needs has no record, the target does not fit, or the
        epoch is smaller than a batch.
    """
    sizes = np.asarray(counts, np.int64)
    delivered = expected_counts(
        sampler, counts, target, class_names, strategy=strategy, epoch=epoch, epochs=epochs
    )
    steps = _full_batches(sampler, int(delivered.sum()), batch_size)
    streams = Streams(seed, epoch)
    if sampler == "rejection":
        shares = target_shares(sampler, sizes, target, class_names)
        labels, ordinals = _reject(sizes, shares, int(delivered.sum()), streams)
    elif sampler == "weighted":
        shares = target_shares(sampler, sizes, target, class_names)
        labels, ordinals = _draw_classes(sizes, shares, streams)
    else:
        redrawn = resample_each_epoch or sampler == "progressive"
        subset = streams if redrawn else Streams(seed, 0)
        labels, ordinals = _take_exactly(sizes, delivered, subset)
        order = streams.permutation(_ORDER, len(labels))
        labels, ordinals = labels[order], ordinals[order]
    used = steps * batch_size
    flips = streams.uniform(_FLIPS, used) < 0.5 if flip else np.zeros(used, bool)
    return EpochPlan(
        labels[:used].astype(np.int32), ordinals[:used].astype(np.int64), flips, batch_size
    )


def steps_per_epoch(
    sampler: str,
    counts: Sequence[int],
    batch_size: int,
    target: Sequence[float] | None = None,
    class_names: Sequence[str] | None = None,
    *,
    strategy: str | Mapping[int, int] = "auto",
) -> int:
    """Full batches in an epoch, the same in every epoch and known without drawing one.

    Raises:
      UserError: as `plan_epoch`.
    """
    delivered = expected_counts(sampler, counts, target, class_names, strategy=strategy)
    return _full_batches(sampler, int(delivered.sum()), batch_size)


def _take_exactly(
    sizes: np.ndarray, take: np.ndarray, streams: Streams
) -> tuple[np.ndarray, np.ndarray]:
    """`take[c]` records of each class, unordered: whole copies, the rest drawn without repeat."""
    ordinals = []
    for label, (size, wanted) in enumerate(zip(sizes.tolist(), take.tolist(), strict=True)):
        copies, rest = divmod(wanted, max(size, 1))
        drawn = streams.permutation(_SUBSET, size, label)[:rest] if rest else np.arange(0)
        ordinals.append(np.concatenate([np.tile(np.arange(size), copies), drawn]))
    return np.repeat(np.arange(len(sizes)), take), np.concatenate(ordinals)


def _draw_classes(
    sizes: np.ndarray, shares: np.ndarray, streams: Streams
) -> tuple[np.ndarray, np.ndarray]:
    """N classes drawn from `shares`; a class's records come in cycles, each shuffled anew."""
    bounds = np.cumsum(shares)
    # A class of share 0 has an interval of no width; the last bound must not round below 1.
    bounds[np.flatnonzero(shares)[-1] :] = 1.0
    labels = np.searchsorted(bounds, streams.uniform(_LABELS, int(sizes.sum())), side="right")
    ordinals = np.empty(len(labels), np.int64)
    for label, size in enumerate(sizes.tolist()):
        slots = np.flatnonzero(labels == label)
        cycles = -(-len(slots) // max(size, 1))
        keys = streams.raw(_ORDER, cycles * size, label).reshape(cycles, size)
        ordinals[slots] = np.argsort(keys, axis=1, kind="stable").ravel()[: len(slots)]
    return labels, ordinals


def _reject(
    sizes: np.ndarray, shares: np.ndarray, wanted: int, streams: Streams
) -> tuple[np.ndarray, np.ndarray]:
    """The first `wanted` records accepted from shuffled passes over the whole split."""
    natural = np.repeat(np.arange(len(sizes)), sizes)
    starts = np.cumsum(sizes) - sizes
    chance = acceptance(sizes, shares)[natural]
    accepted: list[np.ndarray] = []
    found = number = 0
    while found < wanted:
        # Accept before shuffling: the same distribution, and only what is kept gets sorted.
        kept = np.flatnonzero(streams.uniform(_LABELS, len(natural), number) < chance)
        accepted.append(kept[streams.permutation(_ORDER, len(kept), number)])
        found, number = found + len(kept), number + 1
    records = np.concatenate(accepted)[:wanted]
    labels = natural[records]
    return labels, records - starts[labels]


def _full_batches(sampler: str, examples: int, batch_size: int) -> int:
    if not 1 <= batch_size <= examples:
        raise UserError(
            f"--batch_size={batch_size} must lie within 1 and the {examples} images of an epoch "
            f"with --sampler={sampler}"
        )
    return examples // batch_size


class Streams:
    """Independent random numbers for each purpose of an epoch, by counter-based Philox.

    Raw words are used and not `numpy.random.Generator`, whose methods may change their results
    from one NumPy release to the next (NEP 19): a resumed run must go on with the same plan.
    """

    def __init__(self, seed: int, epoch: int) -> None:
        self._seed, self._epoch = seed % 2**64, epoch

    def raw(self, purpose: int, size: int, part: int = 0) -> np.ndarray:
        """uint64 [size]; `part` numbers streams of the same purpose."""
        key = np.array([self._seed, self._epoch * _PURPOSES + purpose], np.uint64)
        # The counter's low words count the numbers drawn; the highest sets the parts apart.
        counter = np.array([0, 0, 0, part], np.uint64)
        return np.random.Philox(key=key, counter=counter).random_raw(size)

    def uniform(self, purpose: int, size: int, part: int = 0) -> np.ndarray:
        """float64 [size] within [0, 1)."""
        return (self.raw(purpose, size, part) >> np.uint64(11)) * 2.0**-53

    def permutation(self, purpose: int, size: int, part: int = 0) -> np.ndarray:
        """int64 [size], a shuffled 0..size-1."""
        return np.argsort(self.raw(purpose, size, part), kind="stable")
