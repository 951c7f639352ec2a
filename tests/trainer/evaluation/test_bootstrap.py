import numpy as np
import pytest
from statsmodels.stats.multitest import multipletests

from trainer.evaluation import bootstrap
from trainer.evaluation.bootstrap import group_weights

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


def test_holm_by_hand_skips_what_was_not_tested():
    adjusted = bootstrap.holm([0.01, None, 0.04, 0.03])
    assert adjusted == pytest.approx([0.03, None, 0.06, 0.06])
    assert bootstrap.holm([None]) == [None]


def test_holm_agrees_with_statsmodels():
    p_values = np.random.default_rng(0).random(12).round(2) ** 3  # with ties
    expected = multipletests(p_values, method="holm")[1]
    np.testing.assert_allclose(bootstrap.holm(p_values.tolist()), expected)
