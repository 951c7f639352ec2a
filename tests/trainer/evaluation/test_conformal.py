"""Sets that hold the true class with the promised probability, for each class by itself."""

import numpy as np
import pytest

from trainer.evaluation.conformal import choose_thresholds, prediction_sets

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
