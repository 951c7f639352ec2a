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
_BLOCK = 1 << 20  # rows at a time: intermediate results of all rows would take much memory


class ContradictoryGroupsError(ValueError):
    """Groups whose members have different given splits; `groups` holds their numbers."""

    def __init__(self, groups: np.ndarray) -> None:
        super().__init__(f"{len(groups)} groups have members in several given splits")
        self.groups = groups


def same_value_pairs(values: np.ndarray, valid: np.ndarray | None = None) -> np.ndarray:
    """Pairs of rows of `values`, uint64 [n, words], that are equal: k such rows give k - 1 pairs.

    Args:
      valid: bool [n]; rows that are False are in no pair.

    Returns:
      int64 [pairs, 2], row numbers, ascending within a pair.
    """
    # Most rows already differ in the first word: comparing it first saves most of the memory.
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
    rest = values[order]
    within = np.lexsort((order, *rest.T[::-1]))
    order, rest = order[within], rest[within]
    same = (rest[1:] == rest[:-1]).all(axis=1)
    return np.stack([order[:-1][same], order[1:][same]], axis=1)


def connect(count: int, *pairs: np.ndarray) -> np.ndarray:
    """int32 [count], for each image the smallest number in its connected component.

    Args:
      pairs: int64 [m, 2] each, numbers of two images that must be in one component.
    """
    result = np.arange(count, dtype=np.int32)
    edges = np.concatenate([np.zeros((0, 2), np.int64), *pairs])
    if not len(edges):
        return result
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    # Few of millions of images are in a pair: the graph holds only these.
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
    """Assigns every image to a split; all images of a group get the same one.

    Args:
      groups: int64 [n], equal for images of one group.
      keys: uint64 [n, 2], digest of the image's pixels, the same in any build. The key of a group
        is the smallest key of its images.
      labels: int [n], class indices.
      method: `stratified`: the paper's numbers of images (see `stratified_quotas`), met exactly
        where groups are single images and else as closely as their sizes allow. `hash`: by the
        salted hash of the group's key alone, so that images added later leave the others where
        they are, unless they connect groups or have a smaller key than the rest of their group.
      test_fraction: of all images.
      validation_fraction: of what remains after the test split.
      seed: another seed gives another split.
      fixed: int8 [n], index into `SPLITS` of an image whose split is given, else -1. The whole
        group of such an image goes there.

    Returns:
      uint8 [n], index into `SPLITS`, whatever the order of the images.

    Raises:
      ContradictoryGroupsError: images of one group are given different splits.
    """
    if method not in METHODS:
        raise ValueError(f"split method {method!r} is not one of {METHODS}")
    labels = np.asarray(labels)
    fractions = test_fraction, validation_fraction
    grouped = np.bincount(groups, minlength=1)[groups] > 1
    shared = _SharedGroups(groups, keys, labels, fixed, np.flatnonzero(grouped))
    # Nearly all images are alone in their group and need no sorting by group.
    result = np.full(len(groups), _UNDECIDED, np.uint8)
    if fixed is not None:
        result[fixed >= 0] = fixed[fixed >= 0]
    if method == "hash":
        _fill_by_hash(result, keys, seed, fractions)
        drawn = _draw_splits(shared.keys, seed, fractions)
        chosen = np.where(shared.given >= 0, shared.given, drawn)
    else:
        counts = np.bincount(labels)
        quotas = stratified_quotas(counts.tolist(), test_fraction, validation_fraction)
        remaining = np.array([quotas[name] for name in SPLITS])
        alone = (result != _UNDECIDED) & ~grouped
        cells = result[alone].astype(np.int64) * len(counts) + labels[alone]
        remaining -= np.bincount(cells, minlength=remaining.size).reshape(remaining.shape)
        drawn = _draw_splits(shared.keys, seed, fractions)
        chosen = shared.fill(remaining, drawn, salted(shared.keys, seed, _ORDER))
        result[grouped] = _TRAIN  # any split: the last line replaces it
        _fill_exactly(result, remaining, keys, labels, seed)
    result[shared.rows] = chosen[shared.group_of]
    return result


class _SharedGroups:
    """The groups of two images or more, and their images.

    Attributes:
      rows: int64, the images by group, then key: the first one has the key of its group.
      group_of: int64 [rows], number of the group, an index into the other two.
      keys: uint64 [groups, 2]; given: int8 [groups], split that a member is given, else -1.
    """

    def __init__(
        self,
        groups: np.ndarray,
        keys: np.ndarray,
        labels: np.ndarray,
        fixed: np.ndarray | None,
        rows: np.ndarray,
    ) -> None:
        """Takes the arguments of `assign_splits`, and `rows`, int64: the images in such groups."""
        first, second = keys[rows].T
        order = np.lexsort((labels[rows], second, first, groups[rows]))
        self.rows = rows[order]
        self._labels = labels[self.rows].astype(np.int64)
        self._starts = np.flatnonzero(np.diff(groups[self.rows], prepend=-1))
        self._sizes = np.diff(self._starts, append=len(self.rows))
        self.group_of = np.repeat(np.arange(len(self._starts)), self._sizes)
        self.keys = keys[self.rows[self._starts]]
        self.given = np.full(len(self._starts), -1, np.int8)
        if fixed is not None and len(rows):
            image_split = fixed[self.rows].astype(np.int8)
            self.given = np.maximum.reduceat(image_split, self._starts)
            contradicts = (image_split >= 0) & (image_split != self.given[self.group_of])
            if contradicts.any():
                raise ContradictoryGroupsError(np.unique(groups[self.rows[contradicts]]))

    def fill(self, remaining: np.ndarray, drawn: np.ndarray, order: np.ndarray) -> np.ndarray:
        """Splits of the groups, int8 [groups]: the given ones first, then the largest groups.

        A group goes to the first of its drawn split, test, validation and training that still
        needs all its images; else to the one that it overfills least, counted as in rounding:
        images of a class minus twice the remaining ones, in the class where that is largest.

        Args:
          remaining: int [splits, classes], images that each split still needs; the groups' images
            are subtracted in place.
          drawn: int8 [groups], see `_draw_splits`; order: uint64, sorts groups of equal size.
        """
        chosen = self.given.copy()
        undecided = np.flatnonzero(chosen < 0)
        for group in np.flatnonzero(chosen >= 0):
            remaining[chosen[group]] -= self._class_counts(group, remaining.shape[1])
        for group in undecided[np.lexsort((order[undecided], -self._sizes[undecided]))]:
            counts = self._class_counts(group, remaining.shape[1])
            choices = (int(drawn[group]), _TEST, _VALIDATION, _TRAIN)
            nearest = int(np.argmin((counts - 2 * remaining)[:, counts > 0].max(axis=1)))
            split = next((s for s in choices if (counts <= remaining[s]).all()), nearest)
            chosen[group] = split
            remaining[split] -= counts
        return chosen

    def _class_counts(self, group: np.integer, classes: int) -> np.ndarray:
        start = self._starts[group]
        return np.bincount(self._labels[start : start + self._sizes[group]], minlength=classes)


def _fill_by_hash(
    result: np.ndarray, keys: np.ndarray, seed: int, fractions: tuple[float, float]
) -> None:
    """Gives each undecided image the split that the hash of its key draws."""
    for start in range(0, len(result), _BLOCK):
        block = slice(start, start + _BLOCK)
        drawn = _draw_splits(keys[block], seed, fractions)
        result[block] = np.where(result[block] == _UNDECIDED, drawn, result[block])


def _fill_exactly(
    result: np.ndarray, remaining: np.ndarray, keys: np.ndarray, labels: np.ndarray, seed: int
) -> None:
    """Draws the `remaining` images, int [splits, classes], of test and validation from those
    that are undecided; the others go to training."""
    for label in range(remaining.shape[1]):
        rows = np.flatnonzero((result == _UNDECIDED) & (labels == label))
        order = np.empty(len(rows), np.uint64)
        for start in range(0, len(rows), _BLOCK):
            block = slice(start, start + _BLOCK)
            order[block] = salted(keys[rows[block]], seed, _ORDER)
        rows = rows[np.argsort(order, kind="stable")]
        test, validation = (max(int(remaining[s, label]), 0) for s in (_TEST, _VALIDATION))
        result[rows] = _TRAIN
        result[rows[:test]] = _TEST
        result[rows[test : test + validation]] = _VALIDATION


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
    """Rounds numbers of sum `total`, float64 [n], down or up to int64 [n] of the same sum.

    Those with the largest remainders are rounded up (Hamilton's method), the first of equal ones.
    """
    whole = np.floor(exact).astype(np.int64)
    missing = total - int(whole.sum())
    whole[np.argsort(whole - exact, kind="stable")[:missing]] += 1
    return whole


def salted(keys: np.ndarray, seed: int, purpose: str) -> np.ndarray:
    """Pseudorandom numbers, uint64 [n], that depend on nothing but the arguments.

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


def _draw_splits(keys: np.ndarray, seed: int, fractions: tuple[float, float]) -> np.ndarray:
    """Draws a split for each key by its salted hash: int8 [n], index into `SPLITS`.

    Args:
      fractions: test of all, validation of what remains after test.
    """
    test_fraction, validation_fraction = fractions
    fraction = salted(keys, seed, "split") / 2.0**64
    after_test = test_fraction + (1 - test_fraction) * validation_fraction
    return np.where(
        fraction < test_fraction, _TEST, np.where(fraction < after_test, _VALIDATION, _TRAIN)
    ).astype(np.int8)
