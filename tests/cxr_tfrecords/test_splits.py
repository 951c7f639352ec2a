"""Groups never span splits; the paper's arithmetic is met exactly."""

import collections

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxr_tfrecords import splits

FRACTIONS = {"test_fraction": 0.2, "validation_fraction": 0.2}


def assign(groups, labels, method="stratified", seed=0, **fractions):
    return splits.assign_splits(
        groups, labels, method=method, seed=seed, **{**FRACTIONS, **fractions}
    )


def test_the_papers_table_ii():
    counts = [3616, 6012, 10192, 1345]
    quotas = splits.stratified_quotas(counts, 0.2, 0.2)
    assert {split: sum(quota) for split, quota in quotas.items()} == {
        "train": 13545,
        "validation": 3387,
        "test": 4233,
    }
    labels = np.repeat(np.arange(4), counts).tolist()
    found = assign([str(i) for i in range(len(labels))], labels)
    for split, quota in quotas.items():
        own = np.bincount([k for k, s in zip(labels, found, strict=True) if s == split])
        assert own.tolist() == quota
        # In proportion: within one image of the class's exact share.
        share = np.array(counts) * sum(quota) / sum(counts)
        assert np.abs(own - share).max() <= 1.5, split


@settings(max_examples=60, deadline=None)
@given(
    groups=st.lists(st.integers(0, 12), min_size=1, max_size=60),
    seed=st.integers(0, 5),
    method=st.sampled_from(splits.METHODS),
    data=st.data(),
)
def test_groups_never_span_splits(groups, seed, method, data):
    labels = data.draw(st.lists(st.integers(0, 3), min_size=len(groups), max_size=len(groups)))
    found = assign([f"g{g}" for g in groups], labels, method, seed)
    where = collections.defaultdict(set)
    for group, split in zip(groups, found, strict=True):
        where[group].add(split)
    assert all(len(seen) == 1 for seen in where.values())
    assert set(found) <= set(splits.SPLITS)
    assert found == assign([f"g{g}" for g in groups], labels, method, seed)


def test_a_few_copies_do_not_move_the_quotas():
    labels = [0] * 300 + [1] * 100
    groups = [f"g{i // 3}" if i < 30 else f"g{i}" for i in range(400)]
    found = collections.Counter(zip(labels, assign(groups, labels), strict=True))
    quotas = splits.stratified_quotas([300, 100], 0.2, 0.2)
    for split, quota in quotas.items():
        assert [found[0, split], found[1, split]] == quota


def test_seed_and_order_of_the_input():
    labels = [i % 2 for i in range(200)]
    groups = [f"g{i}" for i in range(200)]
    first = dict(zip(groups, assign(groups, labels), strict=True))
    assert first != dict(zip(groups, assign(groups, labels, seed=1), strict=True))
    backwards = assign(groups[::-1], labels[::-1])
    assert first == dict(zip(groups[::-1], backwards, strict=True))


def test_hash_split_is_stable_under_growth():
    groups = [f"g{i}" for i in range(5000)]
    old = assign(groups[:1000], [0] * 1000, "hash")
    new = assign(groups, [0] * 5000, "hash")
    assert new[:1000] == old
    shares = collections.Counter(new)
    assert shares["test"] / 5000 == pytest.approx(0.2, abs=0.02)
    assert shares["validation"] / 5000 == pytest.approx(0.16, abs=0.02)


def test_any_shared_key_unites_transitively():
    keys = [("a",), ("b", "x"), ("x", "c"), ("d",), ("c", "a"), ()]
    assert splits.group_images(keys) == [0, 0, 0, 3, 0, 5]


def test_unknown_method_is_refused():
    with pytest.raises(ValueError, match="random"):
        assign(["a"], [0], "random")
