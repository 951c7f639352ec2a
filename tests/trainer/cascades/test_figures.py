"""Products, routing, and the figures of stages, by hand on a few images."""

import dataclasses

import numpy as np
import pytest

from trainer.cascades import description, figures, leaf_answers, staged_deployment
from trainer.deployment.corrected_probabilities import Deployment
from trainer.evaluation.predictions import Predictions

LEAVES = ("A", "B", "C")
CASCADE = description.parse(["first: A, rest", "rest: B, C"], LEAVES)
ORDER = {"first": ("rest", "A"), "rest": ("B", "C")}
# The share of rest, then that of B within it.
REST, B = np.array([0.1, 0.55, 0.9, 0.8]), np.array([0.5, 0.6, 0.3, 0.9])


def log_probabilities():
    pairs = {"first": REST, "rest": B}
    return {name: np.log(np.stack([p, 1 - p], axis=1)) for name, p in pairs.items()}


def test_a_leaf_has_the_product_along_its_path():
    product = np.exp(leaf_answers.multiply(CASCADE, LEAVES, log_probabilities(), ORDER))
    np.testing.assert_allclose(product[:, 0], 1 - REST)
    np.testing.assert_allclose(product[:, 1], REST * B)
    np.testing.assert_allclose(product[:, 2], REST * (1 - B))
    np.testing.assert_allclose(product.sum(axis=1), 1)


def test_balancing_within_stages_does_not_balance_the_leaves():
    half = np.array([0.5, 0.5])
    plans = dict.fromkeys(("first", "rest"), Deployment(half, half, half, 1.0))
    shares = leaf_answers.leaf_shares(CASCADE, LEAVES, ORDER, plans, "trained_at")
    np.testing.assert_allclose(shares, [0.5, 0.25, 0.25])


def test_what_the_stages_said_is_found_again_in_their_product():
    product = leaf_answers.multiply(CASCADE, LEAVES, log_probabilities(), ORDER)
    found = staged_deployment.split(CASCADE, LEAVES, product, ORDER)
    for name, expected in log_probabilities().items():
        np.testing.assert_allclose(found[name], expected, rtol=1e-12)
    shares = np.array([0.3, 0.7])
    plans = {
        "first": Deployment(shares, shares[::-1], shares, 1.5),
        "rest": Deployment(shares, shares, shares[::-1], 0.7),
    }
    plan = staged_deployment.StagedDeployment.of(CASCADE, LEAVES, ORDER, plans)
    expected = leaf_answers.leaf_variants(CASCADE, LEAVES, log_probabilities(), ORDER, plans)
    for variant, values in plan.variants(product).items():
        np.testing.assert_allclose(values, expected[variant], rtol=1e-12)


def test_a_temperature_at_its_bound_is_told_with_its_stage():
    half = np.array([0.5, 0.5])
    plans = {"first": Deployment(half, half, half, 1.0), "rest": Deployment(half, half, half, 0.1)}
    plan = staged_deployment.StagedDeployment.of(CASCADE, LEAVES, ORDER, plans)
    assert plan.temperatures == (1.0, 0.1)
    (warning,) = plan.temperature_warnings()
    assert warning.startswith("stage rest: the temperature is at its bound of 0.1")


def test_hard_routing_follows_each_stage_where_the_product_may_not():
    chosen, arrives = leaf_answers.route(CASCADE, LEAVES, log_probabilities(), ORDER)
    assert chosen.tolist() == [0, 1, 2, 1]
    assert arrives["first"].all()
    assert arrives["rest"].tolist() == [False, True, True, True]
    product = leaf_answers.multiply(CASCADE, LEAVES, log_probabilities(), ORDER)
    assert product.argmax(axis=1).tolist() == [0, 0, 2, 1]  # 0.45 for A against 0.33 for B
    assert leaf_answers.as_logits(chosen, 3).argmax(axis=1).tolist() == [0, 1, 2, 1]


def test_a_stage_is_scored_on_its_own_images_and_on_those_that_arrive():
    # Images: A that stays, two A that are sent on, B that is lost at the first stage, B, and C that
    # is taken for B.
    labels = np.array([0, 0, 0, 1, 1, 2], np.int32)
    arrives = np.array([False, True, True, False, True, True])
    chosen = np.array([0, 1, 1, 0, 1, 1], np.int32)
    logits = np.array([[0, 1], [1, 0], [1, 0], [0, 1], [1, 0], [1, 0]], np.float32)
    answered = Predictions(list("abcdef"), labels, logits, list("abcdef"))
    first, rest = CASCADE.stages
    one = figures.measure_stage(CASCADE, rest, ("B", "C"), answered, LEAVES, arrives, chosen)
    assert one["arrived"] == 4
    shares = {name: one[name]["estimate"] for name in ("reach", "pure", "right")}
    assert shares == pytest.approx({"reach": 2 / 3, "pure": 2 / 4, "right": 1 / 4})
    assert one["belonging"]["confusion_matrix"] == [[1, 1], [1, 0]]
    assert one["arriving"]["confusion_matrix"] == [[1, 0], [1, 0]]
    assert one["arriving"]["accuracy"]["estimate"] == 0.5
    nobody = np.zeros(6, bool)
    one = figures.measure_stage(CASCADE, rest, ("B", "C"), answered, LEAVES, nobody, chosen)
    assert one["arriving"] == {"images": 0}
    assert one["right"]["estimate"] is None
    whole = figures.measure_stage(CASCADE, first, ("rest", "A"), answered, LEAVES, ~nobody, chosen)
    assert whole["belonging"]["confusion_matrix"] == [[2, 1], [2, 1]]


def test_a_difference_is_paired_on_the_same_images():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3, dtype=np.int32), 40)
    logits = rng.normal(0, 1, (120, 3)).astype(np.float32) + np.eye(3, dtype=np.float32)[labels]
    names = [f"i{k}" for k in range(120)]
    ours = Predictions(names, labels, logits, names)
    same = figures.compare(ours, ours, LEAVES, 100)
    assert same["accuracy"]["estimate"] == 0
    assert same["accuracy"]["low"] in (0, None)
    worse = dataclasses.replace(ours, logits=logits + rng.normal(0, 0.1, (120, 3)))
    one = figures.compare(ours, worse, LEAVES, 100)["accuracy"]
    alone = figures.measure(ours, LEAVES)["accuracy"]
    assert one["high"] - one["low"] < (alone["high"] - alone["low"]) / 2
