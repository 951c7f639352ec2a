import numpy as np
import pytest
import scipy.stats
import sklearn.metrics
import statsmodels.stats.proportion
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.multitest import multipletests

from trainer.evaluation import bootstrap, simulated_tests
from trainer.evaluation.bootstrap import (
    FIXED,
    RESAMPLED,
    group_weights,
    interval,
    paired_difference,
)
from trainer.evaluation.paired_tests import delong, mcnemar, two_proportions, wilson

GROUPS = ["a", "b", "a", "c", "c", "c"]


def test_groups_are_drawn_whole_and_row_0_is_the_sample():
    weights = group_weights(GROUPS, 200, seed=3)
    assert weights.shape == (201, 6)
    assert (weights[0] == 1).all()
    by_group = weights[:, [0, 1, 3]]
    np.testing.assert_array_equal(weights, by_group[:, [0, 1, 0, 2, 2, 2]])
    assert (by_group.sum(axis=1) == 3).all()
    assert len(np.unique(by_group, axis=0)) == 10


def test_weights_depend_on_the_seed_and_not_on_how_many_are_drawn():
    np.testing.assert_array_equal(group_weights(GROUPS, 9, 1)[:6], group_weights(GROUPS, 5, 1))
    assert not np.array_equal(group_weights(GROUPS, 9, 1), group_weights(GROUPS, 9, 2))


def test_interval_is_the_percentiles_and_counts_what_it_leaves_out():
    values = np.r_[50.0, np.arange(101), np.nan, np.nan]
    found = interval(values)
    assert (found.estimate, found.low, found.high) == pytest.approx((50.0, 2.5, 97.5))
    assert (found.resamples, found.left_out) == (101, 2)
    rare = interval(np.r_[np.nan, 1.0, 2.0, [np.nan] * 8])
    assert (rare.estimate, rare.low, rare.high, rare.left_out) == (None, None, None, 8)


def test_difference_pairs_resamples_so_that_what_both_share_cancels():
    rng = np.random.default_rng(0)
    shared = rng.normal(0, 1, 2001)
    a, b = shared + 0.3 + rng.normal(0, 0.1, 2001), shared
    paired = paired_difference(a, b)
    assert paired.high - paired.low < 0.5 < interval(a).high - interval(a).low
    assert paired.low < paired.estimate < paired.high
    assert paired.p_value < 0.05
    assert (paired.p_value < 0.05) == (paired.low > 0)
    swapped = paired_difference(b, a)
    assert (swapped.low, swapped.high) == pytest.approx((-paired.high, -paired.low))


def test_p_value_is_never_zero_and_one_without_a_difference():
    assert bootstrap.bootstrap_p_value(np.ones(999)) == pytest.approx(2 / 1000)
    assert bootstrap.bootstrap_p_value(np.zeros(999)) == 1.0
    assert bootstrap.bootstrap_p_value(np.full(9, np.nan)) is None


def test_seeds_are_averaged_within_each_resample():
    values = np.array([[1.0, 2.0, 3.0, 4.0], [3.0, 2.0, 1.0, 0.0]])
    found = interval(values, seeds=FIXED)
    assert (found.estimate, found.low, found.high) == (2.0, 2.0, 2.0)


def test_seeds_that_disagree_widen_the_interval_as_students_does():
    rng = np.random.default_rng(0)
    seeds = rng.normal(0.8, 0.02, 5)
    values = np.repeat(seeds[:, np.newaxis], 20_001, axis=1)
    found = interval(values)
    assert found.seeds == RESAMPLED
    assert found.estimate == pytest.approx(seeds.mean())
    student = scipy.stats.t(4, seeds.mean(), seeds.std(ddof=1) / 5**0.5).ppf([0.025, 0.975])
    assert found.high - found.low == pytest.approx(student[1] - student[0], rel=0.15)
    assert interval(values, seeds=FIXED).high == pytest.approx(seeds.mean())


def test_one_seed_is_called_fixed_and_seed_pairs_are_drawn_together():
    assert interval(np.arange(9.0)).seeds == FIXED
    rng = np.random.default_rng(0)
    luck = rng.normal(0, 1, (4, 1))
    a, b = np.repeat(luck + 0.1, 500, axis=1), np.repeat(luck, 500, axis=1)
    together = paired_difference(a, b)
    assert together.low == pytest.approx(0.1)
    apart = paired_difference(a, b[:3], paired_seeds=False)
    assert apart.high - apart.low > 1
    assert paired_difference(a, b[:1], paired_seeds=False).seeds == FIXED
    with pytest.raises(ValueError, match="pair"):
        paired_difference(a, b[:3])
    with pytest.raises(ValueError, match="seeds='none'"):
        interval(a, seeds="none")


def test_holm_by_hand_skips_what_was_not_tested():
    found = bootstrap.holm([0.01, None, 0.04, 0.03])
    assert found == pytest.approx([0.03, None, 0.06, 0.06])
    assert bootstrap.holm([None]) == [None]


def test_holm_agrees_with_statsmodels():
    p_values = np.random.default_rng(0).random(12).round(2) ** 3  # with ties
    expected = multipletests(p_values, method="holm")[1]
    np.testing.assert_allclose(bootstrap.holm(p_values.tolist()), expected)


@pytest.mark.parametrize("discordant", [(3, 9), (40, 25)])
def test_mcnemar_agrees_with_statsmodels_and_binomial(discordant):
    only_a, only_b = discordant
    a = np.r_[np.ones(50 + only_a, bool), np.zeros(only_b + 7, bool)]
    b = np.r_[np.ones(50, bool), np.zeros(only_a, bool), np.ones(only_b, bool), np.zeros(7, bool)]
    found = mcnemar(a, b)
    exact = sum(discordant) < 25
    table = [[50, only_a], [only_b, 7]]
    assert found.p_value == pytest.approx(statsmodels_mcnemar(table, exact=exact).pvalue)
    assert (found.only_a, found.only_b) == discordant
    assert found.method == ("exact" if exact else "chi-square")
    if exact:
        assert found.p_value == pytest.approx(scipy.stats.binomtest(only_a, 12).pvalue)


def test_mcnemar_of_equal_answers_is_one():
    assert mcnemar(np.ones(5, bool), np.ones(5, bool)).p_value == 1.0


def _scores(count=120, seed=0, decimals=1):
    rng = np.random.default_rng(seed)
    positive = rng.random(count) < 0.3
    shared = rng.normal(0, 1, count)
    a, b = (
        (shared + rng.normal(0, 1, count) + gap * positive).round(decimals) for gap in (2.0, 1.3)
    )
    return positive, a, b


def test_delong_agrees_with_its_definition_over_all_pairs():
    positive, *both = _scores()
    parts = []
    for scores in both:
        x, y = scores[positive][:, np.newaxis], scores[~positive]
        kernel = (x > y) + 0.5 * (x == y)
        parts.append((kernel.mean(axis=1), kernel.mean(axis=0)))
    (x_a, y_a), (x_b, y_b) = parts
    variance = np.var(x_a - x_b, ddof=1) / len(x_a) + np.var(y_a - y_b, ddof=1) / len(y_a)
    found = delong(positive, *both)
    assert found.auroc_a == pytest.approx(sklearn.metrics.roc_auc_score(positive, both[0]))
    assert found.difference == pytest.approx(x_a.mean() - x_b.mean())
    assert found.standard_error == pytest.approx(variance**0.5)
    assert found.p_value == pytest.approx(
        2 * scipy.stats.norm.sf(abs(found.difference) / variance**0.5)
    )


def test_delong_error_agrees_with_the_bootstraps():
    positive, a, b = _scores(400, decimals=6)
    weights = group_weights(np.arange(400), 1500, seed=0)[1:]
    up, down = weights[:, positive], weights[:, ~positive]
    above = [(s[positive][:, np.newaxis] > s[~positive]).astype(float) for s in (a, b)]
    pairs = up.sum(axis=1) * down.sum(axis=1)
    differences = ((up @ (above[0] - above[1])) * down).sum(axis=1) / pairs
    assert delong(positive, a, b).standard_error == pytest.approx(np.std(differences), rel=0.1)


def test_delong_without_a_difference_or_without_positives():
    positive, a, _ = _scores()
    same = delong(positive, a, a)
    assert (same.difference, same.p_value) == (0.0, None)
    assert delong(np.zeros(5, bool), a[:5], a[:5]) is None


@given(st.integers(1, 60), st.data())
def test_wilson_agrees_with_statsmodels(count, data):
    successes = data.draw(st.integers(0, count))
    expected = statsmodels.stats.proportion.proportion_confint(successes, count, method="wilson")
    found = wilson(successes, count)
    assert (found.low, found.high) == pytest.approx(expected, abs=1e-9)
    assert wilson(0, 0).low is None


@pytest.mark.parametrize("sides", [((56, 70), (48, 80)), ((690, 694), (673, 694))])
def test_two_proportions_agree_with_statsmodels(sides):
    (x1, n1), (x2, n2) = sides
    found = two_proportions(*sides)
    ends = statsmodels.stats.proportion.confint_proportions_2indep(x1, n1, x2, n2, method="newcomb")
    assert (found.low, found.high) == pytest.approx(ends)
    z = statsmodels.stats.proportion.proportions_ztest([x1, x2], [n1, n2])[1]
    assert (found.method, found.p_value) == ("z", pytest.approx(z))


def test_two_rare_proportions_get_fishers_test():
    found = two_proportions((3, 10), (0, 12))
    assert found.method == "Fisher"
    assert found.p_value == pytest.approx(scipy.stats.fisher_exact([[3, 7], [0, 12]]).pvalue)
    assert two_proportions((0, 0), (1, 2)).p_value is None


def test_the_simulation_itself_runs(monkeypatch):
    monkeypatch.setattr(simulated_tests, "TRUTH_GROUPS", 500)
    monkeypatch.setattr(simulated_tests, "RESAMPLES", 50)
    checks = [check for run in simulated_tests.CHECKS for check in run(2)]
    page = simulated_tests.table(checks)
    assert "95% interval: difference of mcc" in page
    assert all(check.hits <= check.repetitions == 2 for check in checks)


@pytest.mark.slow
def test_intervals_cover_and_tests_keep_their_level_in_simulated_worlds():
    """docs/statistics.md has the figures of 1,000 repetitions."""
    checks = {check.name: check for run in simulated_tests.CHECKS for check in run(250)}
    print("\n" + simulated_tests.table(list(checks.values())))
    for name, check in checks.items():
        # 0.01: percentile intervals of so small sets cover a little less than they promise.
        tolerance = 3.5 * check.error + 0.01
        if "wrong" in name:
            assert check.share < checks["95% interval: accuracy"].share - 0.02
        elif FIXED in name:
            assert check.share < 0.7, name
        elif "seeds resampled" in name:
            assert check.share > check.expected - tolerance, name
        elif "groups of" in name and "bootstrap" not in name:
            continue  # they take images as independent, and are not asked to hold here
        else:
            assert abs(check.share - check.expected) < tolerance, name
