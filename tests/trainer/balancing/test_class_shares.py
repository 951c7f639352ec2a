"""Strategies give imbalanced-learn's counts, and shares follow the papers' formulas."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from imblearn.over_sampling import RandomOverSampler
from imblearn.under_sampling import RandomUnderSampler

from cxr_tfrecords.errors import UserError
from trainer.balancing import class_shares
from trainer.balancing.class_shares import Sampling
from trainer.balancing.samplers import expected_counts

CLASSES = ("COVID", "Lung_Opacity", "Normal", "Viral Pneumonia")
TABLE_IV = (2379, 3825, 6509, 832)
PEERS = {"undersample": RandomUnderSampler, "oversample_exact": RandomOverSampler}

counts_lists = st.lists(st.integers(1, 60), min_size=2, max_size=5)


def peer_counts(sampler, counts, strategy):
    """Class counts after imbalanced-learn; None where it refuses."""
    labels = np.repeat(np.arange(len(counts)), counts)
    peer = PEERS[sampler](sampling_strategy=strategy, random_state=0)
    try:
        _, resampled = peer.fit_resample(np.arange(len(labels))[:, np.newaxis], labels)
    except ValueError:
        return None
    found = Counter(resampled.tolist())
    return [found[label] for label in range(len(counts))]


def our_counts(sampler, counts, strategy):
    try:
        return expected_counts(Sampling(sampler, sampling_strategy=strategy), counts).tolist()
    except UserError:
        return None


@given(
    st.sampled_from(tuple(PEERS)), counts_lists, st.sampled_from(class_shares.SAMPLING_STRATEGIES)
)
def test_words_give_the_counts_of_imbalanced_learn_or_are_refused_as_there(
    sampler, counts, strategy
):
    assert our_counts(sampler, counts, strategy) == peer_counts(sampler, counts, strategy)


@given(st.sampled_from(tuple(PEERS)), counts_lists, st.data())
def test_counts_give_those_of_imbalanced_learn_or_are_refused_as_there(sampler, counts, data):
    asked = data.draw(
        st.dictionaries(st.sampled_from(range(len(counts))), st.integers(1, 80), min_size=1)
    )
    assert our_counts(sampler, counts, asked) == peer_counts(sampler, counts, asked)


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        ("auto", (7137, 7650, 6509, 6656)),
        ("all", (7137, 7650, 6509, 6656)),
        ("minority", (2379, 3825, 6509, 6656)),
        ("not minority", (7137, 7650, 6509, 832)),
    ],
)
def test_replication_repeats_the_chosen_classes_alone(strategy, expected):
    sampling = Sampling("oversample", sampling_strategy=strategy)
    assert expected_counts(sampling, TABLE_IV).tolist() == list(expected)


@pytest.mark.parametrize(
    ("sampler", "strategy", "message"),
    [
        ("oversample_exact", {0: 2378}, r"2,378 images of COVID, which has 2,379: .*only repeat"),
        ("undersample", {3: 833}, r"833 images of Viral Pneumonia, which has 832: .*only leave"),
        ("undersample", {3: -1}, r"-1 images of Viral Pneumonia"),
        (
            "oversample",
            {3: 1664},
            "repeats whole classes: use --sampler=undersample or oversample_exact",
        ),
        ("oversample", "majority", "--sampling_strategy=majority cannot be used"),
        ("undersample", "minority", "--sampling_strategy=minority cannot be used"),
        ("undersample", "smallest", "--sampling_strategy=smallest is not one of auto, minority"),
        ("weighted", "all", "--sampling_strategy has no meaning with --sampler=weighted"),
        ("progressive", {0: 9}, "--sampling_strategy has no meaning with --sampler=progressive"),
    ],
)
def test_strategies_that_make_no_sense_name_flag_class_and_counts(sampler, strategy, message):
    sampling = Sampling(sampler, sampling_strategy=strategy, class_names=CLASSES)
    with pytest.raises(UserError, match=message):
        expected_counts(sampling, TABLE_IV)


def test_empty_class_that_a_strategy_does_not_touch_is_passed_over():
    counts = (5, 0, 9, 3)
    kept = expected_counts(Sampling("oversample_exact", sampling_strategy={3: 8}), counts)
    assert kept.tolist() == [5, 0, 9, 8]
    empty = Sampling("oversample_exact", sampling_strategy={1: 4}, class_names=CLASSES)
    with pytest.raises(UserError, match=r"class 1 \(Lung_Opacity\) has no record"):
        expected_counts(empty, counts)
    with pytest.raises(UserError, match="class 1 has no record"):
        expected_counts(Sampling("undersample", sampling_strategy="majority"), counts)


@given(counts_lists, st.floats(0, 1))
def test_powers_lie_between_natural_and_uniform(counts, exponent):
    shares = np.array(class_shares.power_shares(counts, exponent))
    natural = np.array(counts) / sum(counts)
    np.testing.assert_allclose(shares.sum(), 1, atol=1e-10)
    np.testing.assert_allclose(shares, natural**exponent / (natural**exponent).sum(), atol=1e-10)
    low = np.minimum(natural.min(), 1 / len(counts)) - 1e-10
    high = np.maximum(natural.max(), 1 / len(counts)) + 1e-10
    assert ((shares >= low) & (shares <= high)).all()


def test_square_root_of_the_papers_counts():
    roots = np.sqrt(TABLE_IV)
    shares = class_shares.power_shares(TABLE_IV, class_shares.DISTRIBUTIONS["sqrt"])
    np.testing.assert_allclose(shares, roots / roots.sum(), atol=1e-12)
    assert class_shares.power_shares((4, 0, 16), 0.5) == pytest.approx((1 / 3, 0, 2 / 3))


@given(counts_lists, st.integers(1, 50), st.data())
def test_progressive_shares_are_those_of_kang_et_al_equation_3(counts, epochs, data):
    epoch = data.draw(st.integers(0, epochs - 1))
    total, classes = sum(counts), len(counts)
    way = epoch / (epochs - 1) if epochs > 1 else 1
    expected = [(1 - way) * n / total + way / classes for n in counts]
    planned = expected_counts(Sampling("progressive", epochs=epochs), counts, epoch)
    assert planned.sum() == total
    assert (np.abs(planned - np.array(expected) * total) < 1).all()
    if epoch == 0 and epochs > 1:
        assert planned.tolist() == counts
    if epoch == epochs - 1:
        assert np.ptp(planned) <= 1
