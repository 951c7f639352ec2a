"""Drawing the records of an epoch once it is known how many each class delivers; NumPy only.

The functions named `draw_*` are those that rows of `sampler_table.SAMPLERS` refer to. All take the
records of each class and those to be delivered (both int64 [classes]), what is asked for
(`Sampling`) and the epoch's random numbers, and give the class and the number within its class of
each record (both integers [n]), in the order of training.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from trainer.balancing.class_shares import Sampling, acceptance, wanted_shares

# What a stream of random numbers is for. Each purpose has a stream of its own, so that for example
# switching the flips off changes no record.
ORDER, FLIPS, LABELS, SUBSET, AUGMENTATION = range(5)
_PURPOSES = 16


class Streams:
    """Independent random numbers for each purpose of an epoch, by counter-based Philox.

    Raw words are used and not `numpy.random.Generator`, whose methods may change their results
    from one NumPy release to the next (NEP 19): a resumed run must go on with the same plan.
    """

    def __init__(self, seed: int, epoch: int) -> None:
        self._seed, self._epoch = seed % 2**64, epoch

    def of_epoch(self, epoch: int) -> Streams:
        """The streams of another epoch with the same seed."""
        return Streams(self._seed, epoch)

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


def draw_exactly(
    sizes: np.ndarray, delivered: np.ndarray, sampling: Sampling, streams: Streams
) -> tuple[np.ndarray, np.ndarray]:
    """Whole copies of each class, and a rest drawn without repeats; all shuffled.

    The rest is that of the first epoch, unless `sampling.resample_each_epoch`.
    """
    of_rest = streams if sampling.resample_each_epoch else streams.of_epoch(0)
    ordinals = []
    for label, (size, wanted) in enumerate(zip(sizes.tolist(), delivered.tolist(), strict=True)):
        copies, rest = divmod(wanted, max(size, 1))
        drawn = of_rest.permutation(SUBSET, size, label)[:rest] if rest else np.arange(0)
        ordinals.append(np.concatenate([np.tile(np.arange(size), copies), drawn]))
    order = streams.permutation(ORDER, int(delivered.sum()))
    return np.repeat(np.arange(len(sizes)), delivered)[order], np.concatenate(ordinals)[order]


def draw_exactly_anew(
    sizes: np.ndarray, delivered: np.ndarray, sampling: Sampling, streams: Streams
) -> tuple[np.ndarray, np.ndarray]:
    """As `draw_exactly`, with a new rest in every epoch."""
    sampling = dataclasses.replace(sampling, resample_each_epoch=True)
    return draw_exactly(sizes, delivered, sampling, streams)


def draw_classes(
    sizes: np.ndarray, delivered: np.ndarray, sampling: Sampling, streams: Streams
) -> tuple[np.ndarray, np.ndarray]:
    """Each record's class is drawn from the target shares; a class's records come in cycles, each
    of them shuffled anew."""
    shares = wanted_shares(sizes, sampling)
    bounds = np.cumsum(shares)
    # A class of share 0 has an interval of no width; the last bound must not round below 1.
    bounds[np.flatnonzero(shares)[-1] :] = 1.0
    draws = streams.uniform(LABELS, int(delivered.sum()))
    labels = np.searchsorted(bounds, draws, side="right")
    ordinals = np.empty(len(labels), np.int64)
    for label, size in enumerate(sizes.tolist()):
        slots = np.flatnonzero(labels == label)
        cycles = -(-len(slots) // max(size, 1))
        keys = streams.raw(ORDER, cycles * size, label).reshape(cycles, size)
        ordinals[slots] = np.argsort(keys, axis=1, kind="stable").ravel()[: len(slots)]
    return labels, ordinals


def draw_by_rejection(
    sizes: np.ndarray, delivered: np.ndarray, sampling: Sampling, streams: Streams
) -> tuple[np.ndarray, np.ndarray]:
    """The first records that are accepted from shuffled passes over the whole split."""
    wanted = int(delivered.sum())
    natural = np.repeat(np.arange(len(sizes)), sizes)
    starts = np.cumsum(sizes) - sizes
    chance = acceptance(sizes, wanted_shares(sizes, sampling))[natural]
    accepted: list[np.ndarray] = []
    total = passes = 0
    while total < wanted:
        # Accept before shuffling: the same distribution, and only what is kept gets sorted.
        kept = np.flatnonzero(streams.uniform(LABELS, len(natural), passes) < chance)
        accepted.append(kept[streams.permutation(ORDER, len(kept), passes)])
        total, passes = total + len(kept), passes + 1
    records = np.concatenate(accepted)[:wanted]
    labels = natural[records]
    return labels, records - starts[labels]
