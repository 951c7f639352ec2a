"""Intervals over seeds and images against published analyses and against simpler formulas."""

import dataclasses

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from trainer.evaluation import study_size
from trainer.evaluation.bootstrap import FIXED, RANDOM, group_weights
from trainer.evaluation.crossed_seeds import CrossedSeeds, Estimate

SEEDS = (0, 1, 2)
# Van Dyke et al. (1993), 2 ways of imaging x 5 readers x 114 patients, as analysed in the guide of
# the R package MRMCaov: `mrmc(empirical_auc(truth, rating), treatment, reader, case, VanDyke)`.
AREAS = [
    [0.91964573, 0.85877621, 0.90386473, 0.97310789, 0.82979066],
    [0.94782609, 0.90531401, 0.92173913, 0.99935588, 0.92995169],
]
VARIANCE, COV1, COV3 = 0.0008022883, 0.0003466137, 0.0002390284
COV2 = (0.0004839618, 0.0002041879)


def _with_covariance(estimates, covariance, resamples=400):
    """Values of which row 0 is `estimates` and the resamples have exactly this covariance."""
    estimates = np.asarray(estimates)
    noise = np.random.default_rng(0).normal(size=(len(covariance), resamples))
    noise -= noise.mean(axis=1, keepdims=True)
    white = np.linalg.solve(np.linalg.cholesky(np.cov(noise)), noise)
    resampled = np.linalg.cholesky(covariance) @ white + estimates.reshape(-1, 1)
    values = np.concatenate([estimates.reshape(-1, 1), resampled], axis=1)
    return list(values.reshape(*estimates.shape, -1))


def _van_dyke():
    covariance = np.empty((10, 10))
    for i in range(2):
        for k in range(2):
            block = np.full((5, 5), COV2[i] if i == k else COV3)
            np.fill_diagonal(block, VARIANCE if i == k else COV1)
            covariance[5 * i : 5 * i + 5, 5 * k : 5 * k + 5] = block
    values = _with_covariance(AREAS, covariance)
    return CrossedSeeds(values, [tuple(range(5))] * 2, groups=10**9)


def test_a_difference_is_that_of_the_published_analysis():
    interval = _van_dyke().difference(0, 1).interval()
    assert interval.estimate == pytest.approx(-0.04380032, abs=1e-8)
    assert interval.standard_error == pytest.approx(0.02074862, abs=1e-8)
    assert interval.df == pytest.approx(15.25967, abs=1e-4)
    assert (interval.low, interval.high) == pytest.approx((-0.0879594986, 0.0003588544), abs=1e-8)
    assert interval.p_value == pytest.approx(0.05166569, abs=1e-6)
    assert interval.seeds == RANDOM


def test_intervals_of_one_method_are_those_of_the_published_analysis():
    for i, published in enumerate(
        (
            (0.8970370, 0.03317360, 12.74465, 0.8252236, 0.9688505),
            (0.9408374, 0.02156637, 12.71019, 0.8941378, 0.9875369),
        )
    ):
        one = _van_dyke().mean(i).interval()
        assert (one.estimate, one.standard_error, one.low, one.high) == pytest.approx(
            (published[0], published[1], published[3], published[4]), abs=1e-6
        )
        assert one.df == pytest.approx(published[2], abs=1e-4)


def _resampled(rng, estimates, sd=0.02, resamples=300):
    """Values of one method whose images move all seeds together."""
    estimates = np.asarray(estimates, float)[:, np.newaxis]
    return np.concatenate([estimates, estimates + rng.normal(0, sd, (1, resamples))], axis=1)


def test_without_variance_over_images_it_is_students_paired_test():
    a, b = np.array([0.7, 0.75, 0.74]), np.array([0.68, 0.70, 0.73])
    values = [np.repeat(x[:, np.newaxis], 101, axis=1) for x in (a, b)]
    test = CrossedSeeds(values, [SEEDS] * 2, 10**9).difference(0, 1)
    student = scipy.stats.ttest_rel(a, b)
    assert test.p_value == pytest.approx(student.pvalue)
    ends = student.confidence_interval()
    assert (test.interval().low, test.interval().high) == pytest.approx((ends.low, ends.high))


def test_what_images_do_to_both_methods_cancels():
    rng = np.random.default_rng(0)
    shift = rng.normal(0, 0.05, (1, 501))
    shift[:, 0] = 0
    a = np.array([[0.80], [0.81], [0.79]]) + shift
    b = np.array([[0.75], [0.76], [0.74]]) + shift
    study = CrossedSeeds([a, b], [SEEDS] * 2, 400)
    difference, mean = study.difference(0, 1), study.mean(0)
    assert difference.standard_error < 0.01 < mean.standard_error
    back = study.difference(1, 0)
    assert back.value == pytest.approx(-difference.value)
    assert back.standard_error == pytest.approx(difference.standard_error)


def test_other_methods_lend_degrees_of_freedom():
    rng = np.random.default_rng(1)
    values = [_resampled(rng, rng.normal(0.8, 0.02, 3), sd=1e-6) for _ in range(7)]
    many = CrossedSeeds(values, [SEEDS] * 7, 10**6).difference(1, 0)
    two = CrossedSeeds(values[:2], [SEEDS] * 2, 10**6).difference(1, 0)
    assert (many.seed_df, two.seed_df) == (12, 2)


def test_a_pair_whose_seeds_differ_much_more_keeps_to_itself():
    rng = np.random.default_rng(2)
    quiet = [_resampled(rng, 0.8 + rng.normal(0, 0.002, 3), sd=1e-6) for _ in range(6)]
    wild = _resampled(rng, [0.70, 0.90, 0.82], sd=1e-6)
    study = CrossedSeeds([*quiet, wild], [SEEDS] * 7, 10**6)
    assert study.difference(6, 0).seed_df == 2
    assert study.difference(6, 0).standard_error > 10 * 0.002


def test_different_seeds_are_welchs_test():
    a, b = np.array([0.7, 0.75, 0.74]), np.array([0.68, 0.70])
    values = [np.repeat(x[:, np.newaxis], 101, axis=1) for x in (a, b)]
    test = CrossedSeeds(values, [SEEDS, (5, 6)], 10**9).difference(0, 1)
    assert test.p_value == pytest.approx(scipy.stats.ttest_ind(a, b, equal_var=False).pvalue)


def test_one_seed_is_a_statement_about_models():
    rng = np.random.default_rng(0)
    shared = rng.normal(0, 1, 2001)
    a, b = (x[np.newaxis] for x in (shared + 0.3 + rng.normal(0, 0.1, 2001), shared))
    difference = CrossedSeeds([a, b], [(0,), (0,)], 500).difference(0, 1)
    assert difference.interval().seeds == FIXED
    assert difference.standard_error == pytest.approx(0.1, rel=0.05)
    three = np.repeat(a, 3, axis=0)
    assert CrossedSeeds([three, b], [SEEDS, (0,)], 500).difference(0, 1).seed_df == 0


def test_undefined_metrics_have_no_interval_and_spoil_no_other():
    rng = np.random.default_rng(0)
    good, other = (_resampled(rng, [0.8, 0.82, 0.81]) for _ in range(2))
    never = np.full_like(good, np.nan)
    seldom = good.copy()
    seldom[0, 50:] = np.nan
    study = CrossedSeeds([good, never, other, seldom], [SEEDS] * 4, 100)
    assert study.mean(1).interval().estimate is None
    assert study.difference(1, 0).interval().low is None
    assert study.mean(3).interval().estimate == pytest.approx(0.81)
    assert study.mean(3).interval().low is None
    assert study.difference(2, 0).interval().low is not None
    few = good.copy()
    few[:, 1:11] = np.nan
    assert CrossedSeeds([few, other], [SEEDS] * 2, 100).mean(0).left_out == 10


def test_perfect_recall_of_8_groups_is_not_certain():
    values = [np.ones((3, 101))] * 2
    one = CrossedSeeds(values, [SEEDS] * 2, groups=8).mean(0).share_interval(rare=True)
    assert one.high == 1.0
    assert one.low == pytest.approx(8 / (8 + scipy.stats.t.ppf(0.975, 7) ** 2))


@given(st.floats(0, 1), st.floats(1e-6, 0.3), st.integers(2, 300), st.booleans())
def test_a_share_and_its_ends_stay_in_order(value, error, groups, rare):
    one = Estimate(value, 0.0, error**2, 0.0, 1, 0, groups, 100, 0).share_interval(rare=rare)
    assert 0 <= one.low <= value <= one.high <= 1
    assert one.low < one.high


def test_smallest_difference_is_found_with_the_stated_power():
    one = Estimate(0.0, 0.0003, 0.0002, 0.0001, 3, 12, 350, 1000, 0)
    smallest = study_size.smallest_difference(one)
    rng = np.random.default_rng(0)
    # Student's t of a study whose true difference is the smallest one.
    t = (smallest + rng.normal(0, one.standard_error, 40_000)) / (
        one.standard_error * np.sqrt(rng.chisquare(one.df, 40_000) / one.df)
    )
    power = (t > scipy.stats.t.ppf(0.975, one.df)).mean()
    assert power == pytest.approx(0.8, abs=0.02)
    assert study_size.smallest_difference(one, tests=6) > smallest


def test_more_seeds_and_more_images_are_enough_exactly_when_said():
    one = Estimate(0.0, 0.0003, 0.0001, 0.0001, 3, 12, 350, 1000, 0)
    margin = 0.03
    seeds = study_size.seeds_needed(one, margin)
    enough = [
        study_size.smallest_difference(
            dataclasses.replace(
                one, seed_variance=0.0009 / n, noise=0.0003 / n, seeds=n, seed_df=6 * (n - 1)
            )
        )
        <= margin
        for n in (seeds - 1, seeds)
    ]
    assert enough == [False, True]
    assert study_size.seeds_needed(dataclasses.replace(one, image_variance=0.01), margin) is None
    times = study_size.images_needed(one, 0.06)
    assert 0 < times < 2
    assert study_size.images_needed(one, 0.001) is None  # seeds differ on any number of images
    # Methods that predict nearly the same: two groups of images are enough.
    alike = Estimate(0.0, 1e-17, 1e-17, 1e-18, 3, 12, 350, 1000, 0)
    assert study_size.images_needed(alike, margin) == 2 / 350


def test_two_seeds_that_agree_by_chance_do_not_look_exact():
    """The noise of single images alone makes seeds differ, and the bootstrap knows how much."""
    covariance = np.diag(np.full(4, 0.01**2))
    values = _with_covariance([[0.8, 0.8], [0.7, 0.7]], covariance)
    study = CrossedSeeds(values, [(0, 1)] * 2, groups=10**9)
    assert study.difference(0, 1).standard_error == pytest.approx(0.01)
    assert study.mean(0).standard_error == pytest.approx(0.01 / 2**0.5)


def test_variance_over_groups_is_that_of_a_mean():
    """The bootstrap's is (groups - 1) / groups of it, which matters where there are few."""
    rng = np.random.default_rng(0)
    images = rng.normal(0, 1, 10)
    weights = group_weights(np.arange(10), 20_000, seed=0)
    values = (images @ weights.T / weights.sum(axis=1))[np.newaxis]
    one = CrossedSeeds([values], [(0,)], groups=10).mean(0)
    assert one.standard_error == pytest.approx(images.std(ddof=1) / 10**0.5, rel=0.02)
