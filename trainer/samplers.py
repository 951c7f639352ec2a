"""Balancing as a plan: which records an epoch of training delivers, in order, and mirrored or not.

A plan is a pure function of (sampler, class counts, seed, epoch): resuming is slicing it, and
replicas and hosts take parts of one and the same order. Nothing is read or decoded in vain,
because a sampler chooses labels and record numbers, not images. Only NumPy is needed.

    none         every record once
    undersample  every class cut to the smallest
    oversample   every record of class c repeated round(max / n_c) times (Wuisan et al. 2022,
                 Tables IV and V)
    weighted     N independent draws of the class from the target distribution
    rejection    what tf.data.Dataset.rejection_resample does, in one expected pass over the data

Class counts come from a dataset's metadata, so the length of an epoch is known before any draw.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from cxr_tfrecords.errors import UserError

# What a stream of random numbers is for. Each purpose has a stream of its own, so that for example
# switching the flips off changes no record.
_ORDER, _FLIPS, _LABELS, _SUBSET = range(4)
_PURPOSES = 16
_TARGETED = ("weighted", "rejection")
_SAMPLERS = ("none", "undersample", "oversample", *_TARGETED)


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


def plan_epoch(
    sampler: str,
    counts: Sequence[int],
    *,
    batch_size: int,
    seed: int,
    epoch: int,
    flip: bool = True,
    target: Sequence[float] | None = None,
    resample_each_epoch: bool = False,
    class_names: Sequence[str] | None = None,
) -> EpochPlan:
    """Draws one epoch; equal arguments give equal plans, on every machine and NumPy version.

    The order does not depend on `batch_size`: it only decides how many slots at the end, fewer
    than a batch, are left out.

    Args:
      sampler: `none`, `undersample`, `oversample`, `weighted` or `rejection`.
      counts: records of each class in the split.
      batch_size: over all replicas.
      seed: any integer; epoch: from 0.
      flip: mirror each slot with probability 1/2.
      target: share of each class, `weighted` and `rejection` only; None is uniform. Scaled to 1.
      resample_each_epoch: `undersample` only: another subset in each epoch, not the same.
      class_names: for messages.

    Raises:
      UserError: a class that the sampler needs has no record, the target does not fit, or the
        epoch is smaller than a batch.
    """
    sizes = np.asarray(counts, np.int64)
    delivered = expected_counts(sampler, counts, target, class_names)
    steps = _full_batches(sampler, int(delivered.sum()), batch_size)
    streams = _Streams(seed, epoch)
    if sampler == "rejection":
        shares = _target_shares(sampler, sizes, target, class_names)
        labels, ordinals = _reject(sizes, shares, int(delivered.sum()), streams)
    elif sampler == "weighted":
        shares = _target_shares(sampler, sizes, target, class_names)
        labels, ordinals = _draw_classes(sizes, shares, streams)
    else:
        subset = streams if resample_each_epoch else _Streams(seed, 0)
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
) -> int:
    """Full batches in an epoch, the same in every epoch and known without drawing one.

    Raises:
      UserError: as `plan_epoch`.
    """
    delivered = expected_counts(sampler, counts, target, class_names)
    return _full_batches(sampler, int(delivered.sum()), batch_size)


def expected_counts(
    sampler: str,
    counts: Sequence[int],
    target: Sequence[float] | None = None,
    class_names: Sequence[str] | None = None,
) -> np.ndarray:
    """Records of each class that an epoch delivers before its last, partial batch is left out.

    Returns:
      int64 [classes]. Exact for `none`, `undersample` and `oversample`; for `weighted` and
      `rejection` the expectation, rounded so that the sum is exactly the length of the epoch.

    Raises:
      UserError: as `plan_epoch`.
    """
    sizes = np.asarray(counts, np.int64)
    if sampler not in _SAMPLERS:
        raise UserError(f"--sampler={sampler} is none of {', '.join(_SAMPLERS)}")
    if target is not None and sampler not in _TARGETED:
        raise UserError(
            f"--target_distribution has no meaning with --sampler={sampler}: leave it out, or "
            f"use --sampler={' or '.join(_TARGETED)}"
        )
    if sampler == "none":
        return sizes
    if sampler in ("undersample", "oversample"):
        _refuse_empty(sampler, sizes, sizes == 0, class_names)
        if sampler == "undersample":
            return np.full_like(sizes, sizes.min())
        return sizes * _replication(sizes)
    shares = _target_shares(sampler, sizes, target, class_names)
    total = int(sizes.sum())
    if sampler == "rejection":
        # Of one pass over N records sum(n_c a_c) = N / max_j(t_j / p_j) are accepted.
        total = max(1, round(float(sizes @ _acceptance(sizes, shares))))
    return _apportion(shares, total)


def _replication(sizes: np.ndarray) -> np.ndarray:
    """Copies of each record, round(max / n_c) with halves rounded up, in exact integers."""
    return (2 * sizes.max() + sizes) // (2 * sizes)


def _acceptance(sizes: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """float64 [classes], a_c = (t_c / p_c) / max_j(t_j / p_j), p_c being the natural share.

    This is the solution that tf.data's own docstring derives. tf.data then blends an unfiltered
    stream in to reject fewer; the distribution and the number of records read stay the same.
    """
    ratios = np.divide(shares, sizes, out=np.zeros(len(sizes)), where=sizes > 0)
    return ratios / ratios.max()


def _take_exactly(
    sizes: np.ndarray, take: np.ndarray, streams: _Streams
) -> tuple[np.ndarray, np.ndarray]:
    """`take[c]` records of each class, unordered: whole copies, the rest drawn without repeat."""
    ordinals = []
    for label, (size, wanted) in enumerate(zip(sizes.tolist(), take.tolist(), strict=True)):
        copies, rest = divmod(wanted, max(size, 1))
        drawn = streams.permutation(_SUBSET, size, label)[:rest] if rest else np.arange(0)
        ordinals.append(np.concatenate([np.tile(np.arange(size), copies), drawn]))
    return np.repeat(np.arange(len(sizes)), take), np.concatenate(ordinals)


def _draw_classes(
    sizes: np.ndarray, shares: np.ndarray, streams: _Streams
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
    sizes: np.ndarray, shares: np.ndarray, wanted: int, streams: _Streams
) -> tuple[np.ndarray, np.ndarray]:
    """The first `wanted` records accepted from shuffled passes over the whole split."""
    natural = np.repeat(np.arange(len(sizes)), sizes)
    starts = np.cumsum(sizes) - sizes
    chance = _acceptance(sizes, shares)[natural]
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


def _target_shares(
    sampler: str,
    sizes: np.ndarray,
    target: Sequence[float] | None,
    class_names: Sequence[str] | None,
) -> np.ndarray:
    """float64 [classes], sum 1."""
    shares = np.ones(len(sizes)) if target is None else np.asarray(target, np.float64)
    valid = shares.shape == sizes.shape and np.isfinite(shares).all() and (shares >= 0).all()
    if not valid or shares.sum() == 0:
        raise UserError(
            f"--target_distribution={target} must give {len(sizes)} classes a share of 0 or more, "
            "not all of them 0"
        )
    _refuse_empty(sampler, sizes, (sizes == 0) & (shares > 0), class_names)
    return shares / shares.sum()


def _refuse_empty(
    sampler: str, sizes: np.ndarray, empty: np.ndarray, class_names: Sequence[str] | None
) -> None:
    if not empty.any():
        return
    label = int(np.flatnonzero(empty)[0])
    name = f" ({class_names[label]})" if class_names else ""
    hint = " or give it the share 0 in --target_distribution" if sampler in _TARGETED else ""
    raise UserError(
        f"--sampler={sampler}: class {label}{name} has no record in the training split "
        f"(class counts {sizes.tolist()}): use --sampler=none{hint}"
    )


def _full_batches(sampler: str, examples: int, batch_size: int) -> int:
    if not 1 <= batch_size <= examples:
        raise UserError(
            f"--batch_size={batch_size} must lie within 1 and the {examples} images of an epoch "
            f"with --sampler={sampler}"
        )
    return examples // batch_size


def _apportion(shares: np.ndarray, total: int) -> np.ndarray:
    """Rounds `shares * total` to integers of the sum `total` (largest remainders first)."""
    exact = shares * total
    whole = np.floor(exact).astype(np.int64)
    missing = total - int(whole.sum())
    whole[np.argsort(whole - exact, kind="stable")[:missing]] += 1
    return whole


class _Streams:
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
