"""Which images belong together, and which split each group goes to.

The unit that is split is the group, never the image: copies of one radiograph in training and
test would let a model be graded on what it has seen. Everything here is a pure function of its
arguments, so a split can be recomputed by anyone who has the image list.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Hashable, Sequence

import numpy as np

TRAIN, VALIDATION, TEST = "train", "validation", "test"
SPLITS = (TRAIN, VALIDATION, TEST)
METHODS = ("stratified", "hash")


def group_images(keys: Sequence[Sequence[Hashable]]) -> list[int]:
    """Unites images that share any key, transitively.

    Args:
      keys: for each image the keys that tie it to others: a digest of its pixels today; a
        perceptual hash or a patient id need only add theirs.

    Returns:
      For each image the index of the first image of its group.
    """
    parent = list(range(len(keys)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    first_with: dict[Hashable, int] = {}
    for index, own in enumerate(keys):
        for key in own:
            other = first_with.setdefault(key, index)
            low, high = sorted((root(other), root(index)))
            parent[high] = low
    return [root(index) for index in range(len(keys))]


def assign_splits(
    group_ids: Sequence[str],
    labels: Sequence[int],
    *,
    method: str,
    test_fraction: float,
    validation_fraction: float,
    seed: int,
) -> list[str]:
    """Assigns every image to a split; images of one group always share theirs.

    Args:
      group_ids: for each image its group's id, the same for the same pixels in any build.
      labels: for each image its class index.
      method: `stratified`: the paper's arithmetic (see `stratified_quotas`), met exactly where
        groups are single images and as closely as group sizes allow elsewhere. `hash`: by the
        salted hash of the group id alone, so images added later never move an old one.
      test_fraction: of all images.
      validation_fraction: of what remains after the test split.
      seed: another seed gives another split.

    Returns:
      For each image one of `train`, `validation`, `test`.
    """
    if method == "hash":
        return [
            _split_by_hash(salted_fraction(group, seed), test_fraction, validation_fraction)
            for group in group_ids
        ]
    if method != "stratified":
        raise ValueError(f"split method {method!r} is none of {METHODS}")
    return _assign_stratified(group_ids, labels, test_fraction, validation_fraction, seed)


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


def salted_fraction(key: str, seed: int, purpose: str = "split") -> float:
    """A number in [0, 1) that depends on nothing but its arguments."""
    digest = hashlib.blake2b(f"{purpose}/{seed}/{key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def _apportion(total: int, counts: np.ndarray) -> np.ndarray:
    exact = total * counts / max(counts.sum(), 1)
    shares = np.floor(exact).astype(np.int64)
    order = np.argsort(-(exact - shares), kind="stable")
    shares[order[: total - shares.sum()]] += 1
    return shares


def _split_by_hash(fraction: float, test: float, validation: float) -> str:
    if fraction < test:
        return TEST
    return VALIDATION if fraction < test + (1 - test) * validation else TRAIN


def _assign_stratified(
    group_ids: Sequence[str],
    labels: Sequence[int],
    test_fraction: float,
    validation_fraction: float,
    seed: int,
) -> list[str]:
    members: dict[str, list[int]] = defaultdict(list)
    for index, group in enumerate(group_ids):
        members[group].append(index)
    num_classes = max(labels) + 1
    class_counts = np.bincount(labels, minlength=num_classes)
    room = {
        split: np.array(quota)
        for split, quota in stratified_quotas(
            class_counts.tolist(), test_fraction, validation_fraction
        ).items()
    }
    result = [TRAIN] * len(labels)
    # Groups of several images first (largest first), while there is room to be fair to them;
    # the single images then fill each quota exactly.
    order = sorted(
        members, key=lambda group: (-len(members[group]), salted_fraction(group, seed), group)
    )
    for group in order:
        own = np.bincount([labels[i] for i in members[group]], minlength=num_classes)
        wish = _split_by_hash(
            salted_fraction(group, seed, "several"), test_fraction, validation_fraction
        )
        choices = (wish, TEST, VALIDATION, TRAIN) if own.sum() > 1 else (TEST, VALIDATION, TRAIN)
        split = next((s for s in choices if (own <= room[s]).all()), TRAIN)
        room[split] -= own
        for index in members[group]:
            result[index] = split
    return result
