"""Sets that hold the true class with the promised probability, for each class by itself."""

import numpy as np
import pytest

from trainer.evaluation.conformal import choose_thresholds, prediction_sets, upper_bound

SHARES = (0.6, 0.3, 0.08, 0.02)


def _images(count, rng):
    """Labels, and probabilities of a model that hardly sees the rare classes."""
    labels = rng.choice(4, count, p=SHARES)
    logits = rng.normal(size=(count, 4)) + np.log(SHARES)
    logits[np.arange(count), labels] += 1.5
    exponentials = np.exp(logits)
    return labels, exponentials / exponentials.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("coverage", [0.8, 0.9])
def test_every_class_is_covered_as_promised_also_the_rare_one(coverage):
    rng = np.random.default_rng(0)
    held = []
    for _ in range(150):
        thresholds = choose_thresholds(*_images(1500, rng), coverage)
        labels, probabilities = _images(3000, rng)
        sets = prediction_sets(probabilities, thresholds)
        held.append([sets[labels == c, c].mean() for c in range(4)])
    # Between the promise and the promise + 1 / (n + 1), up to the noise of 150 repetitions.
    counts = 1500 * np.array(SHARES)
    mean, noise = np.mean(held, axis=0), 3 * np.std(held, axis=0) / np.sqrt(150)
    assert (mean >= coverage - noise).all()
    assert (mean <= coverage + 1.3 / counts + noise).all()


def test_images_of_one_group_count_once():
    rng = np.random.default_rng(1)
    held = {True: [], False: []}
    for _ in range(300):
        # A patient's images are all alike; the harder the patient, the more images.
        hardness = rng.normal(size=60)
        repeats = np.where(hardness > 0.5, 12, 1)
        probabilities = np.repeat(1 / (1 + np.exp(hardness)), repeats)[:, np.newaxis]
        groups = [str(patient) for patient in np.repeat(np.arange(60), repeats)]
        labels = np.zeros(len(probabilities), int)
        new = 1 / (1 + np.exp(rng.normal(size=500)))[:, np.newaxis]
        for grouped in held:
            thresholds = choose_thresholds(labels, probabilities, 0.9, groups if grouped else ())
            held[grouped].append(prediction_sets(new, thresholds).mean())
    assert np.mean(held[True]) == pytest.approx(0.9, abs=0.015)
    assert np.mean(held[False]) > 0.93, "groups would not matter here"


@pytest.mark.parametrize(("count", "in_every_set"), [(8, True), (9, False)])
def test_a_class_of_too_few_images_is_in_every_set(count, in_every_set):
    probabilities = np.linspace(0.4, 0.6, count)[:, np.newaxis]
    thresholds = choose_thresholds(np.zeros(count, int), probabilities, 0.9)
    assert (prediction_sets(np.array([[0.0]]), thresholds)[0, 0]) == in_every_set
    assert thresholds[0] == (0 if in_every_set else 0.4)


def test_the_ends_of_coverage_take_all_classes_and_hardly_any():
    labels, probabilities = _images(200, np.random.default_rng(2))
    everything = prediction_sets(probabilities, choose_thresholds(labels, probabilities, 1.0))
    assert everything.all()
    nothing = prediction_sets(probabilities, choose_thresholds(labels, probabilities, 0.0))
    assert nothing[np.arange(200), labels].sum() <= 4, "the most probable image of each class"


def test_groups_of_one_class_are_those_of_its_images_alone():
    """A patient's healthy images say nothing of the number of images of the disease."""
    labels = np.repeat([0, 1], 9)
    probabilities = np.tile(np.linspace(0.4, 0.6, 9), 2)[:, np.newaxis].repeat(2, axis=1)
    apart, one = [str(i) for i in range(18)], ["a"] * 9
    for groups, expected in ((apart, (0.4, 0.4)), ([*apart[:9], *one], (0.4, 0))):
        np.testing.assert_allclose(choose_thresholds(labels, probabilities, 0.9, groups), expected)


@pytest.mark.parametrize("coverage", [0.75, 0.9, 0.95])
def test_one_class_with_equal_groups_is_the_quantile_of_one_image_each(coverage):
    scores = np.random.default_rng(3).normal(size=40)
    thrice = upper_bound(np.repeat(scores, 3), coverage, np.repeat(np.arange(40), 3))
    assert (
        thrice == upper_bound(scores, coverage) == np.sort(scores)[round(coverage * 41 + 0.49) - 1]
    )


@pytest.mark.parametrize("coverage", [0.8, 0.9, 0.95])
def test_sets_hold_the_classes_whose_p_value_in_crepes_is_above_the_error_rate(coverage):
    crepes = pytest.importorskip("crepes", reason="an independent program to compare with")
    rng = np.random.default_rng(4)
    labels, probabilities = _images(800, rng)
    new = _images(400, rng)[1]
    fitted = crepes.ConformalClassifier()
    fitted.fit(1 - probabilities[np.arange(800), labels], bins=labels)
    p_values = [
        fitted.predict_p(1 - new[:, [c]], bins=np.full(400, c), smoothing=False)[:, 0]
        for c in range(4)
    ]
    ours = prediction_sets(new, choose_thresholds(labels, probabilities, coverage))
    assert 400 < ours.sum() < 1600
    # Above and not equal to it (Vovk 2012, section 2), up to rounding.
    np.testing.assert_array_equal(ours, np.column_stack(p_values) > 1 - coverage + 1e-9)
