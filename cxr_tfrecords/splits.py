"""Which images belong together, and which split each group goes to.

The unit that is split is the group, never the image: copies of one radiograph in training and
test would let a model be graded on what it has seen. Everything here is a pure function of its
arguments, so a split can be recomputed by anyone who has the image list.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import numpy as np

TRAIN, VALIDATION, TEST = "train", "validation", "test"
SPLITS = (TRAIN, VALIDATION, TEST)
METHODS = ("stratified", "hash")
_TRAIN, _VALIDATION, _TEST, _UNDECIDED = range(4)
_ORDER = "order of groups"
_BLOCK = 1 << 20  # rows at a time, where a whole column of intermediate results would be large


class ContradictoryGroupsError(ValueError):
    """Groups whose members have different given splits; `groups` holds their numbers."""

    def __init__(self, groups: np.ndarray) -> None:
        super().__init__(f"{len(groups)} groups have members in several given splits")
        self.groups = groups


def same_value_pairs(values: np.ndarray, valid: np.ndarray | None = None) -> np.ndarray:
    """Chains rows of equal values: int64 [pairs, 2], of values uint64 [n, words].

    Args:
      valid: bool [n]; rows that are False are left alone.
    """
    # The first word alone sorts out nearly all rows, in a fraction of the memory.
    order = np.argsort(values[:, 0], kind="stable")
    if valid is not None:
        order = order[valid[order]]
    candidate = np.zeros(len(order), bool)
    for start in range(0, len(order) - 1, _BLOCK):
        some = values[order[start : start + _BLOCK + 1], 0]
        same = some[1:] == some[:-1]
        candidate[start : start + len(same)] |= same
        candidate[start + 1 : start + 1 + len(same)] |= same
    order = order[candidate]
    own = values[order]
    within = np.lexsort((order, *own.T[::-1]))
    order, own = order[within], own[within]
    same = (own[1:] == own[:-1]).all(axis=1)
    return np.stack([order[:-1][same], order[1:][same]], axis=1)


def connect(count: int, *pairs: np.ndarray) -> np.ndarray:
    """int32 [count], for each image the smallest number in its connected component.

    Args:
      pairs: int64 [m, 2] each; two images that must be in one component.
    """
    result = np.arange(count, dtype=np.int32)
    edges = np.concatenate([np.zeros((0, 2), np.int64), *pairs])
    if not len(edges):
        return result
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    # Of millions of images few are in a pair: the graph holds these alone.
    nodes, ends = np.unique(edges, return_inverse=True)
    ends = ends.reshape(edges.shape)
    graph = coo_array((np.ones(len(ends), bool), ends.T), shape=(len(nodes), len(nodes)))
    _, component = connected_components(graph, directed=False)
    _, first, inverse = np.unique(component, return_index=True, return_inverse=True)
    result[nodes] = nodes[first[inverse]]
    return result


def assign_splits(
    groups: np.ndarray,
    keys: np.ndarray,
    labels: np.ndarray,
    *,
    method: str,
    test_fraction: float,
    validation_fraction: float,
    seed: int,
    fixed: np.ndarray | None = None,
) -> np.ndarray:
    """Assigns every image to a split; images of one group always share theirs.

    Args:
      groups: int64 [n], equal for images of one group.
      keys: uint64 [n, 2], digest of the image's pixels, the same in any build; a group's key is
        the smallest of its images'.
      labels: int [n], class indices.
      method: `stratified`: the paper's arithmetic (see `stratified_quotas`), met exactly where
        groups are single images and as closely as group sizes allow elsewhere. `hash`: by the
        salted hash of the group's key alone, so images added later move no old one, unless they
        tie groups together or bring a group a smaller key.
      test_fraction: of all images.
      validation_fraction: of what remains after the test split.
      seed: another seed gives another split.
      fixed: int8 [n], index into `SPLITS` where an image's split is given, else -1. A group with
        such an image goes there whole.

    Returns:
      uint8 [n], index into `SPLITS`; it does not depend on the order of the images.

    Raises:
      ContradictoryGroupsError: given splits would tear a group.
    """
    if method not in METHODS:
        raise ValueError(f"split method {method!r} is not one of {METHODS}")
    labels = np.asarray(labels)
    fractions = test_fraction, validation_fraction
    tied = np.bincount(groups, minlength=1)[groups] > 1
    several = _Groups(groups, keys, labels, fixed, np.flatnonzero(tied))
    # Nearly all images are alone in their group: for them, nothing is sorted by group.
    result = np.full(len(groups), _UNDECIDED, np.uint8)
    if fixed is not None:
        result[fixed >= 0] = fixed[fixed >= 0]
    if method == "hash":
        _fill_by_wish(result, keys, seed, fractions)
        chosen = np.where(several.given >= 0, several.given, _wishes(several.keys, seed, fractions))
    else:
        counts = np.bincount(labels)
        quotas = stratified_quotas(counts.tolist(), test_fraction, validation_fraction)
        room = np.array([quotas[name] for name in SPLITS])
        alone = (result != _UNDECIDED) & ~tied
        cells = result[alone].astype(np.int64) * len(counts) + labels[alone]
        room -= np.bincount(cells, minlength=room.size).reshape(room.shape)
        wish = _wishes(several.keys, seed, fractions)
        chosen = several.fill(room, wish, salted(several.keys, seed, _ORDER))
        result[tied] = _TRAIN
        _fill_exactly(result, room, keys, labels, seed)
    result[several.rows] = chosen[several.group_of]
    return result


class _Groups:
    """The groups of several images: sorted by group, then key, so that the first image of each
    carries the group's key."""

    def __init__(
        self,
        groups: np.ndarray,
        keys: np.ndarray,
        labels: np.ndarray,
        fixed: np.ndarray | None,
        rows: np.ndarray,
    ) -> None:
        """Args: rows: int64, of the images in such groups.

        Raises:
          ContradictoryGroupsError: given splits would tear a group.
        """
        own = keys[rows]
        order = np.lexsort((labels[rows], own[:, 1], own[:, 0], groups[rows]))
        self.rows = rows[order]
        self._labels = labels[self.rows].astype(np.int64)
        self._starts = np.flatnonzero(np.diff(groups[self.rows], prepend=-1))
        self._sizes = np.diff(self._starts, append=len(self.rows))
        self.group_of = np.repeat(np.arange(len(self._starts)), self._sizes)
        self.keys = keys[self.rows[self._starts]]
        self.given = np.full(len(self._starts), -1, np.int8)  # the split that a member gives
        if fixed is not None and len(rows):
            wanted = fixed[self.rows].astype(np.int8)
            self.given = np.maximum.reduceat(wanted, self._starts)
            torn = (wanted >= 0) & (wanted != self.given[self.group_of])
            if torn.any():
                raise ContradictoryGroupsError(np.unique(groups[self.rows[torn]]))

    def fill(self, room: np.ndarray, wish: np.ndarray, lot: np.ndarray) -> np.ndarray:
        """int8 [groups]: given splits first, then the largest groups, each where it fits; one
        that fits nowhere goes where it overflows least beyond its half, as rounding does. What
        they take is taken off `room`, int [splits, classes]."""
        chosen = self.given.copy()
        undecided = np.flatnonzero(chosen < 0)
        for group in np.flatnonzero(chosen >= 0):
            room[chosen[group]] -= self._class_counts(group, room.shape[1])
        for group in undecided[np.lexsort((lot[undecided], -self._sizes[undecided]))]:
            own = self._class_counts(group, room.shape[1])
            choices = (int(wish[group]), _TEST, _VALIDATION, _TRAIN)
            nearest = int(np.argmin((own - 2 * room)[:, own > 0].max(axis=1)))
            split = next((s for s in choices if (own <= room[s]).all()), nearest)
            chosen[group] = split
            room[split] -= own
        return chosen

    def _class_counts(self, group: np.integer, classes: int) -> np.ndarray:
        start = self._starts[group]
        return np.bincount(self._labels[start : start + self._sizes[group]], minlength=classes)


def _fill_by_wish(
    result: np.ndarray, keys: np.ndarray, seed: int, fractions: tuple[float, float]
) -> None:
    """Undecided images go where chance sends them."""
    for start in range(0, len(result), _BLOCK):
        block = slice(start, start + _BLOCK)
        wish = _wishes(keys[block], seed, fractions)
        result[block] = np.where(result[block] == _UNDECIDED, wish, result[block])


def _fill_exactly(
    result: np.ndarray, room: np.ndarray, keys: np.ndarray, labels: np.ndarray, seed: int
) -> None:
    """Undecided images fill what is left of each quota, `room` int [splits, classes], exactly."""
    for label in range(room.shape[1]):
        own = np.flatnonzero((result == _UNDECIDED) & (labels == label))
        lot = np.empty(len(own), np.uint64)
        for start in range(0, len(own), _BLOCK):
            block = slice(start, start + _BLOCK)
            lot[block] = salted(keys[own[block]], seed, _ORDER)
        own = own[np.argsort(lot, kind="stable")]
        test, validation = (max(int(room[s, label]), 0) for s in (_TEST, _VALIDATION))
        result[own] = _TRAIN
        result[own[:test]] = _TEST
        result[own[test : test + validation]] = _VALIDATION


def stratified_quotas(
    class_counts: Sequence[int], test_fraction: float, validation_fraction: float
) -> dict[str, list[int]]:
    """Images per split and class: the arithmetic of Wuisan et al. 2022, Table II.

    The test split takes ceil(test_fraction * N) images, validation
    ceil(validation_fraction * rest), training what remains: 21,165 gives 4,233, 3,387 and
    13,545. Each class is in proportion, by largest remainder (ties to the lower class index).
    """
    counts = np.asarray(class_counts, dtype=np.int64)
    test = _in_proportion(math.ceil(test_fraction * counts.sum() - 1e-9), counts)
    rest = counts - test
    validation = _in_proportion(math.ceil(validation_fraction * rest.sum() - 1e-9), rest)
    return {
        TRAIN: (rest - validation).tolist(),
        VALIDATION: validation.tolist(),
        TEST: test.tolist(),
    }


def apportion(exact: np.ndarray, total: int) -> np.ndarray:
    """int64 [n] of the sum `total`: float64 [n] of that sum, each rounded down or up.

    Those with the largest remainders are rounded up (Hamilton's method), of equal ones the first.
    """
    whole = np.floor(exact).astype(np.int64)
    missing = total - int(whole.sum())
    whole[np.argsort(whole - exact, kind="stable")[:missing]] += 1
    return whole


def salted(keys: np.ndarray, seed: int, purpose: str) -> np.ndarray:
    """uint64 [n], random-looking numbers that depend on nothing but the arguments.

    SplitMix64's finaliser (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number
    generators", section 4) over a 128-bit key, uint64 [n, 2], salted by (seed, purpose).
    """
    salt = hashlib.blake2b(f"{purpose}/{seed}".encode(), digest_size=16).digest()
    low, high = (np.uint64(int.from_bytes(part, "little")) for part in (salt[:8], salt[8:]))
    return _mix(_mix(keys[:, 0] ^ low) + (keys[:, 1] ^ high))


def _mix(words: np.ndarray) -> np.ndarray:
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def _in_proportion(total: int, counts: np.ndarray) -> np.ndarray:
    return apportion(total * counts / max(counts.sum(), 1), total)


def _wishes(keys: np.ndarray, seed: int, fractions: tuple[float, float]) -> np.ndarray:
    """int8 [groups], the split that chance gives each group.

    Args:
      fractions: of all for test, of the rest for validation.
    """
    test_fraction, validation_fraction = fractions
    fraction = salted(keys, seed, "split") / 2.0**64
    after_test = test_fraction + (1 - test_fraction) * validation_fraction
    return np.where(
        fraction < test_fraction, _TEST, np.where(fraction < after_test, _VALIDATION, _TRAIN)
    ).astype(np.int8)
