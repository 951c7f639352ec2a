import numpy as np
import pytest
import scipy.stats
import statsmodels.stats.proportion
from hypothesis import given
from hypothesis import strategies as st

from trainer.evaluation.shares import grouped_share, two_proportions, wilson


@given(st.integers(1, 60), st.data())
def test_wilson_agrees_with_statsmodels(count, data):
    successes = data.draw(st.integers(0, count))
    expected = statsmodels.stats.proportion.proportion_confint(successes, count, method="wilson")
    interval = wilson(successes, count)
    assert (interval.low, interval.high) == pytest.approx(expected, abs=1e-9)
    assert wilson(0, 0).low is None


@pytest.mark.parametrize("sides", [((56, 70), (48, 80)), ((690, 694), (673, 694))])
def test_two_proportions_agree_with_statsmodels(sides):
    (x1, n1), (x2, n2) = sides
    interval = two_proportions(*sides)
    ends = statsmodels.stats.proportion.confint_proportions_2indep(x1, n1, x2, n2, method="newcomb")
    assert (interval.low, interval.high) == pytest.approx(ends)
    z = statsmodels.stats.proportion.proportions_ztest([x1, x2], [n1, n2])[1]
    assert (interval.method, interval.p_value) == ("z", pytest.approx(z))


def test_two_rare_proportions_get_fishers_test():
    interval = two_proportions((3, 10), (0, 12))
    assert interval.method == "Fisher"
    assert interval.p_value == pytest.approx(scipy.stats.fisher_exact([[3, 7], [0, 12]]).pvalue)
    assert two_proportions((0, 0), (1, 2)).p_value is None


@given(st.integers(6, 60), st.data())
def test_a_share_of_single_images_is_wilsons_with_students_quantile(count, data):
    successes = data.draw(st.integers(1, count - 1))
    hits = np.arange(count) < successes
    interval = grouped_share(hits, np.arange(count))
    level = 1 - 2 * scipy.stats.norm.sf(scipy.stats.t.ppf(0.975, count - 1))
    expected = wilson(successes, count, level)
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high), abs=1e-6)


def test_images_of_a_group_that_agree_count_as_one():
    hits = np.array([1, 1, 0, 1, 0, 1, 1, 0], bool)
    once = grouped_share(hits, np.arange(8))
    thrice = grouped_share(np.repeat(hits, 3), np.repeat(np.arange(8), 3))
    assert (thrice.low, thrice.high) == pytest.approx((once.low, once.high))
    alone = grouped_share(np.repeat(hits, 3), np.arange(24))
    assert alone.high - alone.low < 0.7 * (once.high - once.low)


def test_8_of_8_is_not_certain():
    interval = grouped_share(np.ones(8, bool), np.arange(8))
    quantile = scipy.stats.t.ppf(0.975, 7)
    assert interval.high == 1.0
    assert interval.low == pytest.approx(8 / (8 + quantile**2))
    assert grouped_share(np.ones(0, bool), np.arange(0)).low is None
    weights = np.r_[np.ones(8), 0.0]
    weighted = grouped_share(np.r_[np.ones(8, bool), False], np.arange(9), weights)
    assert weighted.low == pytest.approx(interval.low)
