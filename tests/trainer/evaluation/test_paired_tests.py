import numpy as np
import pytest
import scipy.stats
import sklearn.metrics
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar

from trainer.evaluation.bootstrap import group_weights
from trainer.evaluation.paired_tests import delong, mcnemar


@pytest.mark.parametrize("discordant", [(3, 9), (40, 25), (0, 1), (8, 8)])
def test_mcnemars_mid_p_is_the_exact_one_less_the_chance_of_what_was_seen(discordant):
    only_a, only_b = discordant
    a = np.r_[np.ones(50 + only_a, bool), np.zeros(only_b + 7, bool)]
    b = np.r_[np.ones(50, bool), np.zeros(only_a, bool), np.ones(only_b, bool), np.zeros(7, bool)]
    test = mcnemar(a, b)
    exact = statsmodels_mcnemar([[50, only_a], [only_b, 7]], exact=True).pvalue
    seen = scipy.stats.binom(sum(discordant), 0.5).pmf(only_a)
    expected = 1.0 if only_a == only_b else exact - seen
    assert test.p_value == pytest.approx(expected)
    assert (test.only_a, test.only_b) == discordant


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
    test = delong(positive, *both)
    assert test.auroc_a == pytest.approx(sklearn.metrics.roc_auc_score(positive, both[0]))
    assert test.difference == pytest.approx(x_a.mean() - x_b.mean())
    assert test.standard_error == pytest.approx(variance**0.5)
    assert test.p_value == pytest.approx(
        2 * scipy.stats.norm.sf(abs(test.difference) / variance**0.5)
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
