"""Which images belong together, and which split each group goes to.

The unit that is split is the group, never the image: copies of one radiograph in training and
test would let a model be graded on what it has seen. Everything here is a pure function of its
arguments, so a split can be recomputed by anyone who has the image list.
"""

from __future__ import annotations

import hashlib

import numpy as np

from cxr_tfrecords import quotas

TRAIN, VALIDATION, TEST = "train", "validation", "test"
SPLITS = (TRAIN, VALIDATION, TEST)
METHODS = ("stratified", "hash")
MAX_FOLDS = 20
_TRAIN, _VALIDATION, _TEST = range(3)
_UNDECIDED = 255
_BLOCK = 1 << 20  # rows at a time: intermediate results of all rows would take much memory


def split_names(folds: int) -> tuple[str, ...]:
    """fold0, fold1, … of a data set for cross-validation; `SPLITS` where there are 0 folds."""
    return tuple(f"fold{number}" for number in range(folds)) if folds else SPLITS


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
    folds: int = 0,
) -> np.ndarray:
    """Assigns every image to a split or fold; all images of a group get the same one.

    Args:
      groups: int64 [n], equal for images of one group.
      keys: uint64 [n, 2], digest of the image's pixels, the same in any build. The key of a group
        is the smallest key of its images.
      labels: int [n], class indices.
      method: `stratified`: the numbers of images in `quotas`, met exactly where groups are single
        images and else as closely as their sizes allow. `hash`: by the salted hash of the group's
        key alone, so that images added later leave the others where they are, unless they connect
        groups or have a smaller key than the rest of their group.
      test_fraction: of all images.
      validation_fraction: of what remains after the test split.
      seed: another seed gives another split.
      fixed: int8 [n], index of the split of an image whose split is given, else -1. The whole
        group of such an image goes there.
      folds: number of folds of equal size, instead of the splits that the fractions give; 0: none.

    Returns:
      uint8 [n], index into `split_names(folds)`, whatever the order of the images.

    Raises:
      ContradictoryGroupsError: images of one group are given different splits.
    """
    if method not in METHODS:
        raise ValueError(f"split method {method!r} is not one of {METHODS}")
    labels = np.asarray(labels)
    draw = _Draw(seed, test_fraction, validation_fraction, folds)
    grouped = np.bincount(groups, minlength=1)[groups] > 1
    shared = _SharedGroups(groups, keys, labels, fixed, np.flatnonzero(grouped))
    # Nearly all images are alone in their group and need no sorting by group.
    result = np.full(len(groups), _UNDECIDED, np.uint8)
    if fixed is not None:
        result[fixed >= 0] = fixed[fixed >= 0]
    if method == "hash":
        _fill_by_hash(result, keys, draw)
        chosen = np.where(shared.given >= 0, shared.given, draw.splits(shared.keys))
    else:
        counts = np.bincount(labels)
        remaining = draw.quotas(counts)
        alone = (result != _UNDECIDED) & ~grouped
        cells = result[alone].astype(np.int64) * len(counts) + labels[alone]
        remaining -= np.bincount(cells, minlength=remaining.size).reshape(remaining.shape)
        chosen = shared.fill(remaining, draw)
        result[grouped] = 0  # any split: the last line replaces it
        if folds:  # images that a large group has too many in its fold: all others lack their part
            singles = np.bincount(labels[result == _UNDECIDED], minlength=len(counts))
            reduced = map(quotas.reduce_evenly, remaining.T, singles.tolist())
            remaining = np.stack(list(reduced), axis=1)
        _fill_exactly(result, remaining, keys, labels, draw)
    result[shared.rows] = chosen[shared.group_of]
    return result


class _Draw:
    """How many images each split gets, and how they are drawn, by salted hash.

    Attributes:
      order: splits in the order in which single images are drawn for them; the last gets the rest.
    """

    def __init__(
        self, seed: int, test_fraction: float, validation_fraction: float, folds: int
    ) -> None:
        self._seed, self._folds = seed, folds
        self._fractions = test_fraction, validation_fraction
        after_test = test_fraction + (1 - test_fraction) * validation_fraction
        self._bounds = np.array([test_fraction, after_test])
        self.order = np.array([_TEST, _VALIDATION, _TRAIN])
        if folds:
            self._bounds = np.arange(1, folds) / folds
            self.order = np.arange(folds)

    def quotas(self, counts: np.ndarray) -> np.ndarray:
        """Images of each split, int64 [splits, classes], of the classes' int [classes]."""
        if self._folds:
            return quotas.fold_quotas(counts, self._folds)
        return quotas.stratified_quotas(counts, *self._fractions)

    def splits(self, keys: np.ndarray) -> np.ndarray:
        """A split for each key, int8 [n], each with the probability of its share of the images."""
        fraction = salted(keys, self._seed, "split") / 2.0**64
        return self.order[np.searchsorted(self._bounds, fraction, side="right")].astype(np.int8)

    def ranks(self, keys: np.ndarray) -> np.ndarray:
        """uint64 [n], by which keys are sorted at random."""
        return salted(keys, self._seed, "order of groups")


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

    def fill(self, remaining: np.ndarray, draw: _Draw) -> np.ndarray:
        """Splits of the groups, int8 [groups]: the given ones first, then the largest groups.

        A group goes to the first of its drawn split and then those of `draw.order` that still
        needs all its images; else to the one that it overfills least, counted as in rounding:
        images of a class minus twice the remaining ones, in the class where that is largest.

        Args:
          remaining: int [splits, classes], images that each split still needs; the groups' images
            are subtracted in place.
        """
        chosen, drawn, ranks = self.given.copy(), draw.splits(self.keys), draw.ranks(self.keys)
        undecided = np.flatnonzero(chosen < 0)
        for group in np.flatnonzero(chosen >= 0):
            remaining[chosen[group]] -= self._class_counts(group, remaining.shape[1])
        for group in undecided[np.lexsort((ranks[undecided], -self._sizes[undecided]))]:
            counts = self._class_counts(group, remaining.shape[1])
            choices = (int(drawn[group]), *draw.order.tolist())
            nearest = int(np.argmin((counts - 2 * remaining)[:, counts > 0].max(axis=1)))
            split = next((s for s in choices if (counts <= remaining[s]).all()), nearest)
            chosen[group] = split
            remaining[split] -= counts
        return chosen

    def _class_counts(self, group: np.integer, classes: int) -> np.ndarray:
        start = self._starts[group]
        return np.bincount(self._labels[start : start + self._sizes[group]], minlength=classes)


def _fill_by_hash(result: np.ndarray, keys: np.ndarray, draw: _Draw) -> None:
    """Gives each undecided image the split that the hash of its key draws."""
    for start in range(0, len(result), _BLOCK):
        block = slice(start, start + _BLOCK)
        drawn = draw.splits(keys[block])
        result[block] = np.where(result[block] == _UNDECIDED, drawn, result[block])


def _fill_exactly(
    result: np.ndarray, remaining: np.ndarray, keys: np.ndarray, labels: np.ndarray, draw: _Draw
) -> None:
    """Draws the `remaining` images, int [splits, classes], of each split but the last of
    `draw.order` from those that are undecided; the others go to the last."""
    for label in range(remaining.shape[1]):
        rows = np.flatnonzero((result == _UNDECIDED) & (labels == label))
        ranks = np.empty(len(rows), np.uint64)
        for start in range(0, len(rows), _BLOCK):
            block = slice(start, start + _BLOCK)
            ranks[block] = draw.ranks(keys[rows[block]])
        rows = rows[np.argsort(ranks, kind="stable")]
        ends = np.cumsum(np.maximum(remaining[draw.order[:-1], label], 0))
        for split, part in zip(draw.order, np.split(rows, ends), strict=True):
            result[part] = split


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
