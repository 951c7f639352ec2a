import itertools

import numpy as np
import pytest
import scipy.stats

from trainer.comparison.paired_bounds import paired_bounds, paired_sentence
from trainer.evaluation.paired_tests import mcnemar


def _right_answers(matrix):
    """For each class, every way of choosing the images that were classified correctly."""
    matrix = np.array(matrix)
    return [
        [
            np.isin(range(row.sum()), chosen)
            for chosen in itertools.combinations(range(row.sum()), k)
        ]
        for row, k in zip(matrix, np.diag(matrix), strict=True)
    ]


def _all_tests(a, b):
    """McNemar's test of every pair of predictions with these two matrices; the first model's images
    are fixed, since only the overlap counts."""
    first = np.concatenate([ways[0] for ways in _right_answers(a)])
    return [mcnemar(first, np.concatenate(ways)) for ways in itertools.product(*_right_answers(b))]


@pytest.mark.parametrize(
    ("a", "b"),
    [
        # Errors that fit beside each other, errors that must be shared (3 + 4 of 5 images), equal
        # numbers of errors, and no error of one model.
        ([[5, 1], [2, 4]], [[3, 3], [1, 5]]),
        ([[2, 3], [1, 4]], [[1, 4], [3, 2]]),
        ([[4, 1], [1, 3]], [[4, 1], [1, 3]]),
        ([[5, 0], [0, 5]], [[2, 3], [4, 1]]),
    ],
)
def test_bounds_are_those_of_all_predictions_that_the_matrices_allow(a, b):
    (bounds,) = paired_bounds({"A": np.array(a), "B": np.array(b)})
    tests = _all_tests(a, b)
    p_values = [test.p_value for test in tests]
    assert (bounds.p_low, bounds.p_high) == pytest.approx((min(p_values), max(p_values)))
    assert bounds.only_first == max(test.only_a for test in tests)
    assert bounds.only_second == max(test.only_b for test in tests)
    exact = [
        scipy.stats.binomtest(test.only_a, test.only_a + test.only_b).pvalue
        for test in tests
        if test.only_a + test.only_b
    ]
    assert bounds.exact_high == pytest.approx(max(exact))


def test_models_without_errors_do_not_differ():
    (bounds,) = paired_bounds({"A": np.diag([3, 4]), "B": np.diag([3, 4])})
    assert (bounds.p_low, bounds.p_high, bounds.exact_high) == (1, 1, 1)


def test_models_on_other_numbers_of_images_are_left_out():
    assert paired_bounds({"A": np.diag([3, 4]), "B": np.diag([4, 3])}) == []


@pytest.mark.parametrize(
    ("wrong_b", "words"),
    [
        (60, "They differ beyond chance, whichever"),
        (20, "Whether they differ beyond chance depends on"),
        (11, "They do not differ beyond chance, whichever"),
    ],
)
def test_sentence_says_whether_the_pairing_matters(wrong_b, words):
    models = {"A": np.array([[90, 10], [0, 9]]), "B": np.array([[100 - wrong_b, wrong_b], [0, 9]])}
    (bounds,) = paired_bounds(models)
    sentence = paired_sentence(bounds)
    assert words in sentence
    assert f"at most 10 were wrong by A alone and {wrong_b} by B alone" in sentence
