"""Groups never span splits; the paper's arithmetic is met exactly."""

import collections
import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxr_tfrecords import quotas, splits

FRACTIONS = {"test_fraction": 0.2, "validation_fraction": 0.2}


def key_of(name):
    """The pixel digest of a group whose images are all alike."""
    return np.frombuffer(hashlib.blake2b(name.encode(), digest_size=16).digest(), np.uint64)


def quotas_of(counts):
    """Split -> images of each class."""
    return dict(
        zip(splits.SPLITS, quotas.stratified_quotas(counts, 0.2, 0.2).tolist(), strict=True)
    )


def assign(groups, labels, method="stratified", seed=0, fixed=None, folds=0):
    numbers = np.unique(groups, return_inverse=True)[1]
    keys = np.stack([key_of(name) for name in groups])
    found = splits.assign_splits(
        numbers,
        keys,
        np.array(labels),
        method=method,
        seed=seed,
        fixed=fixed,
        folds=folds,
        **FRACTIONS,
    )
    return [splits.split_names(folds)[number] for number in found]


def test_the_papers_table_ii():
    counts = [3616, 6012, 10192, 1345]
    wanted = quotas_of(counts)
    assert {split: sum(quota) for split, quota in wanted.items()} == {
        "train": 13545,
        "validation": 3387,
        "test": 4233,
    }
    labels = np.repeat(np.arange(4), counts).tolist()
    found = assign([str(i) for i in range(len(labels))], labels)
    for split, quota in wanted.items():
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
    folds=st.sampled_from([0, 3, 5]),
    data=st.data(),
)
def test_groups_never_span_splits_or_folds(groups, seed, method, folds, data):
    labels = data.draw(st.lists(st.integers(0, 3), min_size=len(groups), max_size=len(groups)))
    found = assign([f"g{g}" for g in groups], labels, method, seed, folds=folds)
    where = collections.defaultdict(set)
    for group, split in zip(groups, found, strict=True):
        where[group].add(split)
    assert all(len(seen) == 1 for seen in where.values())
    assert set(found) <= set(splits.split_names(folds))
    assert found == assign([f"g{g}" for g in groups], labels, method, seed, folds=folds)


@settings(max_examples=80, deadline=None)
@given(
    sizes=st.lists(st.tuples(st.integers(0, 2), st.integers(1, 9)), min_size=1, max_size=40),
    singles=st.lists(st.integers(0, 30), min_size=3, max_size=3),
    folds=st.integers(3, 7),
    seed=st.integers(0, 5),
)
def test_every_class_is_spread_over_the_folds_as_evenly_as_its_groups_allow(
    sizes, singles, folds, seed
):
    sizes = sizes + [(label, 1) for label, count in enumerate(singles) for _ in range(count)]
    groups = [f"g{number}" for number, (_, size) in enumerate(sizes) for _ in range(size)]
    labels = [label for label, size in sizes for _ in range(size)]
    chosen = assign(groups, labels, seed=seed, folds=folds)
    found = collections.Counter(zip(labels, chosen, strict=True))
    for label in set(labels):
        largest = max(size for own, size in sizes if own == label)
        spread = [found[label, name] for name in splits.split_names(folds)]
        assert max(spread) - min(spread) <= (largest + 1 if largest > 1 else 1)
        if singles[label] >= folds * largest:  # enough of them to fill the folds up
            assert max(spread) - min(spread) <= 1


def test_folds_of_single_images_are_equal_and_follow_the_seed_alone():
    labels = np.repeat([0, 1, 2, 3], [101, 53, 27, 8]).tolist()
    groups = [f"g{i}" for i in range(len(labels))]
    found = assign(groups, labels, folds=5)
    sizes = collections.Counter(found)
    assert sorted(sizes) == ["fold0", "fold1", "fold2", "fold3", "fold4"]
    assert max(sizes.values()) - min(sizes.values()) <= 1
    assert assign(groups[::-1], labels[::-1], folds=5) == found[::-1]
    assert assign(groups, labels, folds=5, seed=1) != found


def test_what_a_large_group_has_too_many_is_missing_in_all_other_folds_alike():
    groups = ["copies"] * 40 + [f"g{i}" for i in range(60)]
    sizes = collections.Counter(assign(groups, [0] * 100, folds=5))
    assert sorted(sizes.values()) == [15, 15, 15, 15, 40]


def test_hash_folds_are_stable_under_growth_and_of_about_equal_size():
    groups = [f"g{i}" for i in range(5000)]
    new = assign(groups, [0] * 5000, "hash", folds=5)
    assert new[:1000] == assign(groups[:1000], [0] * 1000, "hash", folds=5)
    for size in collections.Counter(new).values():
        assert size / 5000 == pytest.approx(0.2, abs=0.02)


def test_each_of_hundreds_of_small_classes_is_in_every_split():
    by_class = quotas.stratified_quotas([6] * 500, 0.2, 0.2)
    assert by_class.min() == 1
    assert set(by_class.sum(axis=0)) == {6}


def test_a_few_copies_do_not_move_the_quotas():
    labels = [0] * 300 + [1] * 100
    groups = [f"g{i // 3}" if i < 30 else f"g{i}" for i in range(400)]
    found = collections.Counter(zip(labels, assign(groups, labels), strict=True))
    for split, quota in quotas_of([300, 100]).items():
        assert [found[0, split], found[1, split]] == quota


@settings(max_examples=40, deadline=None)
@given(size=st.integers(2, 6), count=st.integers(5, 30), seed=st.integers(0, 9))
def test_a_class_of_large_groups_is_in_every_split_as_nearly_as_groups_allow(size, count, seed):
    groups = [f"g{i // size}" for i in range(size * count)]
    found = collections.Counter(assign(groups, [0] * len(groups), seed=seed))
    for split, (quota,) in quotas_of([len(groups)]).items():
        assert abs(found[split] - quota) <= size
        assert found[split] > 0


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


def test_any_shared_value_unites_transitively():
    values = np.array([[1, 7], [2, 7], [1, 7], [3, 0], [2, 7], [0, 0], [0, 0]], np.uint64)
    same = splits.same_value_pairs(values, valid=values.any(axis=1))
    assert splits.connect(7, same).tolist() == [0, 1, 0, 3, 1, 5, 6]
    assert splits.connect(7, same, np.array([[4, 3], [5, 2]])).tolist() == [0, 1, 0, 1, 1, 0, 6]
    assert splits.connect(3).tolist() == [0, 1, 2]


def test_given_splits_are_kept_and_taken_off_the_quotas():
    groups = [f"g{i // 2}" if i < 20 else f"g{i}" for i in range(200)]
    fixed = np.full(200, -1, np.int8)
    fixed[[0, 30, 31]] = splits.SPLITS.index("test")
    found = assign(groups, [0] * 200, fixed=fixed)
    assert {found[i] for i in (0, 1, 30, 31)} == {"test"}
    assert collections.Counter(found) == {"train": 128, "validation": 32, "test": 40}
    fixed[1] = splits.SPLITS.index("train")
    with pytest.raises(splits.ContradictoryGroupsError) as caught:
        assign(groups, [0] * 200, fixed=fixed)
    assert len(caught.value.groups) == 1


def test_unknown_method_is_refused():
    with pytest.raises(ValueError, match="random"):
        assign(["a"], [0], "random")
