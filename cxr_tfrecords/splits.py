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
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

TRAIN, VALIDATION, TEST = "train", "validation", "test"
SPLITS = (TRAIN, VALIDATION, TEST)
METHODS = ("stratified", "hash")
_TRAIN, _VALIDATION, _TEST = range(3)


class ContradictoryGroupsError(ValueError):
    """Groups whose members have different given splits; `groups` holds their numbers."""

    def __init__(self, groups: np.ndarray) -> None:
        super().__init__(f"{len(groups)} groups have members in several given splits")
        self.groups = groups


def same_value_pairs(values: np.ndarray, valid: np.ndarray | None = None) -> np.ndarray:
    """Chains rows of equal values: int64 [pairs, 2], of values [n, words].

    Args:
      valid: bool [n]; rows that are False are left alone.
    """
    rows = np.arange(len(values)) if valid is None else np.flatnonzero(valid)
    order = rows[np.lexsort(values[rows].T[::-1])]
    same = (values[order[1:]] == values[order[:-1]]).all(axis=1)
    return np.stack([order[:-1][same], order[1:][same]], axis=1)


def connect(count: int, *pairs: np.ndarray) -> np.ndarray:
    """int64 [count], for each image the smallest number in its connected component.

    Args:
      pairs: int64 [m, 2] each; whatever ties two images.
    """
    edges = np.concatenate([np.zeros((0, 2), np.int64), *pairs])
    if not len(edges):
        return np.arange(count)
    graph = coo_array((np.ones(len(edges), bool), edges.T), shape=(count, count))
    _, component = connected_components(graph, directed=False)
    _, first, inverse = np.unique(component, return_index=True, return_inverse=True)
    return first[inverse]


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
        raise ValueError(f"split method {method!r} is none of {METHODS}")
    labels = np.asarray(labels, np.int64)
    # By group, then key, so that the first image of each run carries the group's key.
    order = np.lexsort((labels, keys[:, 1], keys[:, 0], groups))
    starts = np.flatnonzero(np.diff(groups[order], prepend=-1))
    sizes = np.diff(starts, append=len(order))
    group_of = np.repeat(np.arange(len(starts)), sizes)
    group_keys = keys[order[starts]]
    given = _given_splits(groups, order, starts, group_of, fixed)
    wish = _wishes(group_keys, seed, test_fraction, validation_fraction)
    if method == "hash":
        chosen = np.where(given >= 0, given, wish)
    else:
        counts = np.bincount(labels)
        quotas = stratified_quotas(counts.tolist(), test_fraction, validation_fraction)
        chosen = _fill_quotas(
            np.array([quotas[name] for name in SPLITS]),
            labels[order],
            starts,
            sizes,
            given,
            wish,
            salted(group_keys, seed, "order of groups"),
        )
    result = np.zeros(len(groups), np.uint8)
    result[order] = chosen[group_of]
    return result


def stratified_quotas(
    class_counts: Sequence[int], test_fraction: float, validation_fraction: float
) -> dict[str, list[int]]:
    """Images per split and class: the arithmetic of Wuisan et al. 2022, Table II.

    The test split takes ceil(test_fraction * N) images, validation
    ceil(validation_fraction * rest), training what remains: 21,165 gives 4,233, 3,387 and
    13,545. Each class is in proportion, by largest remainder (ties to the lower class index).
    """
    counts = np.asarray(class_counts, dtype=np.int64)
    test = _apportion(math.ceil(test_fraction * counts.sum() - 1e-9), counts)
    rest = counts - test
    validation = _apportion(math.ceil(validation_fraction * rest.sum() - 1e-9), rest)
    return {
        TRAIN: (rest - validation).tolist(),
        VALIDATION: validation.tolist(),
        TEST: test.tolist(),
    }


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


def _apportion(total: int, counts: np.ndarray) -> np.ndarray:
    exact = total * counts / max(counts.sum(), 1)
    shares = np.floor(exact).astype(np.int64)
    order = np.argsort(-(exact - shares), kind="stable")
    shares[order[: total - shares.sum()]] += 1
    return shares


def _wishes(
    keys: np.ndarray, seed: int, test_fraction: float, validation_fraction: float
) -> np.ndarray:
    """int8 [groups], the split that chance gives each group."""
    fraction = salted(keys, seed, "split") / 2.0**64
    after_test = test_fraction + (1 - test_fraction) * validation_fraction
    return np.where(
        fraction < test_fraction, _TEST, np.where(fraction < after_test, _VALIDATION, _TRAIN)
    ).astype(np.int8)


def _given_splits(
    groups: np.ndarray,
    order: np.ndarray,
    starts: np.ndarray,
    group_of: np.ndarray,
    fixed: np.ndarray | None,
) -> np.ndarray:
    """int8 [groups], the split that a member's gives the group, else -1."""
    if fixed is None:
        return np.full(len(starts), -1, np.int8)
    own = fixed[order].astype(np.int8)
    highest = np.maximum.reduceat(own, starts)
    torn = (own >= 0) & (own != highest[group_of])
    if torn.any():
        raise ContradictoryGroupsError(np.unique(groups[order[torn]]))
    return highest


def _fill_quotas(
    quotas: np.ndarray,
    labels: np.ndarray,
    starts: np.ndarray,
    sizes: np.ndarray,
    given: np.ndarray,
    wish: np.ndarray,
    lot: np.ndarray,
) -> np.ndarray:
    """int8 [groups]: given splits first, then groups of several images, largest first, while
    there is room to be fair to them; single images fill what is left of each quota exactly.

    Args:
      quotas: int [splits, classes]; labels: int [n], by group; starts, sizes: int [groups].
    """
    room = quotas.copy()
    chosen = given.copy()
    for group in np.flatnonzero(given >= 0):
        own = labels[starts[group] : starts[group] + sizes[group]]
        np.subtract.at(room[given[group]], own, 1)
    several = np.flatnonzero((given < 0) & (sizes > 1))
    for group in several[np.lexsort((lot[several], -sizes[several]))]:
        own = np.bincount(
            labels[starts[group] : starts[group] + sizes[group]], minlength=quotas.shape[1]
        )
        choices = (wish[group], _TEST, _VALIDATION)
        split = next((s for s in choices if (own <= room[s]).all()), _TRAIN)
        chosen[group] = split
        room[split] -= own
    single = np.flatnonzero((given < 0) & (sizes == 1))
    for label in range(quotas.shape[1]):
        own = single[labels[starts[single]] == label]
        own = own[np.argsort(lot[own], kind="stable")]
        test, validation = (max(int(room[s, label]), 0) for s in (_TEST, _VALIDATION))
        chosen[own] = _TRAIN
        chosen[own[:test]] = _TEST
        chosen[own[test : test + validation]] = _VALIDATION
    return chosen
