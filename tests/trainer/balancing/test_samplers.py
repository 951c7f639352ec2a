"""What an epoch of each sampler holds, and that it is a function of (seed, epoch) alone."""

import json

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from cxr_tfrecords.errors import UserError
from tests.shared import shared_path
from trainer.balancing import samplers
from trainer.balancing.class_shares import Sampling
from trainer.balancing.sampler_table import SAMPLERS

CLASSES = ("COVID", "Lung_Opacity", "Normal", "Viral Pneumonia")
# Wuisan et al. 2022, Table IV (training split of models B and C), in the order of CLASSES.
TABLE_IV = (2379, 3825, 6509, 832)
UNDERSAMPLED = (832, 832, 832, 832)
OVERSAMPLED = (7137, 7650, 6509, 6656)

counts_lists = st.lists(st.integers(1, 60), min_size=2, max_size=5)
seeds = st.integers(-(2**70), 2**70)
epochs = st.integers(0, 10**6)
any_sampler = st.sampled_from(list(SAMPLERS))


def plan(sampler, counts, *, batch_size=1, seed=0, epoch=0, flip=True, **settings):
    return samplers.draw_epoch(
        Sampling(sampler, **settings),
        counts,
        batch_size=batch_size,
        seed=seed,
        epoch=epoch,
        flip=flip,
    )


def expected_counts(sampler, counts, target=None):
    return samplers.expected_counts(Sampling(sampler, target=target), counts)


def repeats(epoch_plan, label, size):
    """int [size]: how often the plan holds each record of a class."""
    return np.bincount(epoch_plan.ordinals[epoch_plan.labels == label], minlength=size)


def same(left, right, slots=None):
    return all(
        np.array_equal(getattr(left, name)[:slots], getattr(right, name)[:slots])
        for name in ("labels", "ordinals", "flips")
    )


@given(any_sampler, counts_lists, seeds, epochs, st.integers(1, 16))
def test_plans_are_whole_batches_of_records_that_exist(sampler, counts, seed, epoch, batch_size):
    expected = expected_counts(sampler, counts)
    if expected.sum() < batch_size:
        return
    drawn = plan(sampler, counts, batch_size=batch_size, seed=seed, epoch=epoch)
    assert (drawn.labels.dtype, drawn.ordinals.dtype) == (np.int32, np.int64)
    assert drawn.flips.dtype == bool
    assert len(drawn.labels) == len(drawn.ordinals) == len(drawn.flips)
    assert len(drawn.labels) == drawn.steps * batch_size
    assert drawn.steps == expected.sum() // batch_size
    assert (drawn.ordinals >= 0).all()
    assert (drawn.ordinals < np.array(counts)[drawn.labels]).all()


@given(counts_lists, seeds, epochs)
def test_none_is_a_permutation_of_all_records(counts, seed, epoch):
    drawn = plan("none", counts, seed=seed, epoch=epoch)
    for label, size in enumerate(counts):
        assert (repeats(drawn, label, size) == 1).all()


@given(counts_lists, seeds, epochs)
def test_undersample_cuts_every_class_to_the_smallest_without_repeats(counts, seed, epoch):
    drawn = plan("undersample", counts, seed=seed, epoch=epoch)
    for label, size in enumerate(counts):
        times = repeats(drawn, label, size)
        assert times.max() == 1
        assert times.sum() == min(counts)


@given(counts_lists, seeds, epochs)
def test_oversample_holds_each_record_as_often_as_its_class_is_replicated(counts, seed, epoch):
    drawn = plan("oversample", counts, seed=seed, epoch=epoch)
    for label, size in enumerate(counts):
        factor = int(max(counts) / size + 0.5)
        assert (repeats(drawn, label, size) == factor).all()


@given(counts_lists, seeds, epochs)
def test_weighted_repeats_no_record_before_all_of_its_class_were_seen(counts, seed, epoch):
    drawn = plan("weighted", counts, seed=seed, epoch=epoch)
    assert len(drawn.labels) == sum(counts)
    for label, size in enumerate(counts):
        ordinals = drawn.ordinals[drawn.labels == label]
        assert np.ptp(repeats(drawn, label, size)) <= 1
        for start in range(0, len(ordinals), size):
            cycle = ordinals[start : start + size]
            assert len(set(cycle.tolist())) == len(cycle)


@given(counts_lists, seeds, epochs)
def test_rejection_repeats_a_record_only_after_a_whole_pass(counts, seed, epoch):
    drawn = plan("rejection", counts, seed=seed, epoch=epoch)
    assert len(drawn.labels) == len(counts) * min(counts)
    before_repeat: set[tuple[int, int]] = set()
    for record in zip(drawn.labels.tolist(), drawn.ordinals.tolist(), strict=True):
        if record in before_repeat:
            # A pass has ended, and the rarest class is never rejected: all of it has come.
            rarest = int(np.argmin(counts))
            assert {(rarest, i) for i in range(counts[rarest])} <= before_repeat
            break
        before_repeat.add(record)


@given(any_sampler, counts_lists, seeds, epochs)
def test_plans_repeat_exactly(sampler, counts, seed, epoch):
    arguments = {"seed": seed, "epoch": epoch}
    assert same(plan(sampler, counts, **arguments), plan(sampler, counts, **arguments))


@given(any_sampler, counts_lists, seeds, st.integers(1, 12))
def test_batch_size_cuts_the_end_and_changes_nothing_before(sampler, counts, seed, batch_size):
    whole = plan(sampler, counts, seed=seed)
    if len(whole.labels) < batch_size:
        return
    cut = plan(sampler, counts, seed=seed, batch_size=batch_size)
    assert len(whole.labels) - len(cut.labels) < batch_size
    assert same(whole, cut, len(cut.labels))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_epochs_and_seeds_differ_in_records_and_flips(sampler):
    first = plan(sampler, TABLE_IV)
    for other in (plan(sampler, TABLE_IV, epoch=1), plan(sampler, TABLE_IV, seed=1)):
        agree = (first.labels == other.labels) & (first.ordinals == other.ordinals)
        assert agree.mean() < 0.05
        assert 0.45 < (first.flips == other.flips).mean() < 0.55


def test_flips_are_half_and_switching_them_off_changes_no_record():
    on, off = plan("none", TABLE_IV), plan("none", TABLE_IV, flip=False)
    assert scipy.stats.binomtest(int(on.flips.sum()), len(on.flips)).pvalue > 1e-4
    assert abs(np.corrcoef(on.flips, on.labels)[0, 1]) < 0.05
    assert not off.flips.any()
    assert np.array_equal(on.ordinals, off.ordinals)


def test_undersample_keeps_its_subset_unless_told_to_draw_again():
    def subset(epoch, **arguments):
        drawn = plan("undersample", TABLE_IV, epoch=epoch, **arguments)
        return set(drawn.ordinals[drawn.labels == 2].tolist())

    assert subset(0) == subset(1) == subset(7)
    redrawn = [subset(epoch, resample_each_epoch=True) for epoch in range(2)]
    # Two draws of 832 among 6,509 have 832 * 832 / 6509 = 106 records in common.
    assert 60 < len(redrawn[0] & redrawn[1]) < 160


def test_order_is_uniformly_shuffled():
    places = [int(np.argmax(plan("none", (3, 7), epoch=e).labels == 0)) for e in range(2000)]
    # First place of 3 marked among 10: P(k) = C(9 - k, 2) / C(10, 3).
    chances = np.array([(9 - k) * (8 - k) / 2 / 120 for k in range(8)])
    observed = np.bincount(places, minlength=8)
    assert scipy.stats.chisquare(observed, chances * 2000).pvalue > 1e-3


def test_table_iv_gives_table_v():
    assert expected_counts("undersample", TABLE_IV).tolist() == list(UNDERSAMPLED)
    assert expected_counts("oversample", TABLE_IV).tolist() == list(OVERSAMPLED)
    assert (sum(UNDERSAMPLED), sum(OVERSAMPLED)) == (3328, 27952)
    for sampler, expected in (("undersample", UNDERSAMPLED), ("oversample", OVERSAMPLED)):
        drawn = plan(sampler, TABLE_IV)
        assert np.bincount(drawn.labels).tolist() == list(expected)


def test_tables_of_the_paper_agree_with_the_samplers():
    tables = json.loads(shared_path("paper/tables.json").read_text(encoding="utf-8"))
    for sampler in ("undersample", "oversample"):
        before = tables["table_IV_train_before_sampling"][sampler]
        after = tables["table_V_train_after_sampling"][sampler]
        names = tables["class_order"]
        delivered = expected_counts(sampler, [before[name] for name in names])
        assert delivered.tolist() == [after[name] for name in names]


@given(st.sampled_from(("weighted", "rejection")), counts_lists, st.data())
def test_expected_counts_follow_the_target(sampler, counts, data):
    target = data.draw(
        st.lists(st.integers(0, 9), min_size=len(counts), max_size=len(counts)).filter(any)
    )
    shares = np.array(target) / sum(target)
    expected = expected_counts(sampler, counts, target)
    length = len(plan(sampler, counts, target=target).labels)
    assert expected.sum() == length
    assert (np.abs(expected - shares * length) < 1).all()
    drawn = np.bincount(plan(sampler, counts, target=target).labels, minlength=len(counts))
    assert (drawn[shares == 0] == 0).all()


@pytest.mark.parametrize("target", [None, (0.1, 0.2, 0.3, 0.4)])
@pytest.mark.parametrize("sampler", ["weighted", "rejection"])
def test_realised_shares_follow_the_target_over_many_epochs(sampler, target):
    counts = (24, 38, 65, 8)
    drawn = [plan(sampler, counts, target=target, epoch=epoch) for epoch in range(400)]
    observed = sum(np.bincount(p.labels, minlength=4) for p in drawn)
    shares = np.full(4, 0.25) if target is None else np.array(target)
    assert np.abs(observed / observed.sum() - shares).max() < 0.01
    if sampler == "weighted":  # classes are drawn independently, so chi-square holds exactly
        assert scipy.stats.chisquare(observed, shares * observed.sum()).pvalue > 1e-3


def simulated_rejection(counts, target, length, rng):
    """tf.data's rejection by its own formula, one record at a time; labels of an epoch."""
    natural = np.array(counts) / sum(counts)
    ratio = np.array(target) / natural
    labels = []
    while True:
        for label in rng.permutation(np.repeat(np.arange(len(counts)), counts)):
            if rng.random() < ratio[label] / ratio.max():
                labels.append(label)
                if len(labels) == length:
                    return np.array(labels)


def test_rejection_is_distributed_as_rejecting_one_record_at_a_time():
    counts, target, length, draws = (8, 12, 20, 4), (0.4, 0.1, 0.3, 0.2), 20, 3000
    rng = np.random.default_rng(0)
    ours = [plan("rejection", counts, target=target, epoch=e) for e in range(draws)]
    theirs = [simulated_rejection(counts, target, length, rng) for _ in range(draws)]
    assert all(len(p.labels) == length for p in ours)
    for statistic in (
        lambda labels: labels[0],  # which class comes first
        lambda labels: labels[-1],  # and last, where a second pass may have begun
        lambda labels: (labels == 0).sum(),  # class counts: mean and spread
        lambda labels: (labels == 2).sum(),
    ):
        left = np.bincount([statistic(p.labels) for p in ours], minlength=length + 1)
        right = np.bincount([statistic(labels) for labels in theirs], minlength=length + 1)
        table = np.stack([left, right])[:, (left + right) >= 10]
        assert scipy.stats.chi2_contingency(table).pvalue > 1e-3


def test_rejection_keeps_each_record_of_a_class_equally_often():
    counts = (8, 12, 20, 4)
    drawn = [plan("rejection", counts, epoch=epoch) for epoch in range(2000)]
    for label, size in enumerate(counts):
        kept = sum(repeats(p, label, size) for p in drawn)
        assert scipy.stats.chisquare(kept).pvalue > 1e-3


@pytest.mark.parametrize("sampler", [name for name in SAMPLERS if name != "none"])
def test_class_without_a_record_is_refused_by_name(sampler):
    with pytest.raises(UserError, match=r"class 1 \(Lung_Opacity\).*--sampler=none"):
        plan(sampler, (5, 0, 9, 3), class_names=CLASSES)
    with pytest.raises(UserError, match=f"--sampler={sampler}: class 1 has no record"):
        expected_counts(sampler, (5, 0, 9, 3))


@pytest.mark.parametrize("sampler", ["weighted", "rejection"])
def test_class_without_a_record_may_have_the_share_zero(sampler):
    drawn = plan(sampler, (0, 5, 9, 0), target=(0, 0.5, 0.5, 0))
    assert set(drawn.labels.tolist()) == {1, 2}


def test_none_passes_over_a_class_without_a_record():
    assert np.bincount(plan("none", (3, 0, 2)).labels).tolist() == [3, 0, 2]


def test_batch_larger_than_the_epoch_is_refused_with_its_flag():
    with pytest.raises(UserError, match=r"--batch_size=17 .* 16 images .* --sampler=undersample"):
        plan("undersample", (8, 12, 20, 4), batch_size=17)
    assert plan("undersample", (8, 12, 20, 4), batch_size=16).steps == 1


@pytest.mark.parametrize(
    ("sampler", "target", "message"),
    [
        ("weighted", (0.5, 0.5), "4 classes"),
        ("rejection", (1, -1, 0, 0), "0 or more"),
        ("weighted", (0, 0, 0, 0), "not all"),
        ("rejection", (1, 1, float("nan"), 1), "0 or more"),
        ("oversample", (1, 1, 1, 1), "no meaning with --sampler=oversample"),
        ("smote", None, "--sampler=smote is not one of none, undersample"),
    ],
)
def test_targets_and_samplers_that_make_no_sense_are_refused(sampler, target, message):
    with pytest.raises(UserError, match=message):
        plan(sampler, (8, 12, 20, 4), target=target)
