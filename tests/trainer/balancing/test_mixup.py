"""Mixing plans, the images that they give, and training on those, resumed and on several hosts."""

import csv
import dataclasses

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from tests import helpers
from tests.trainer import toy
from trainer.balancing import mixup, samplers
from trainer.balancing.class_shares import Sampling
from trainer.input.split_batches import SplitSource
from trainer.models.classifier import create_model
from trainer.settings.config import TrainConfig
from trainer.training import loop, losses, passes, steps
from trainer.training.learner import create_trainer
from trainer.training.run import run

COUNTS = (400, 600, 900, 100)
SPLITS = {"train": (16, 16, 24, 8), "validation": (6, 8, 10, 4), "test": (6, 7, 10, 4)}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return helpers.write_dataset(tmp_path_factory.mktemp("data"), SPLITS)


def _plan(sampler="none", counts=COUNTS, epoch=0, batch_size=8, seed=3):
    return samplers.draw_epoch(
        Sampling(sampler), counts, batch_size=batch_size, seed=seed, epoch=epoch
    )


def _mixing(kind, plan, alpha=0.3, counts=COUNTS, epoch=0, seed=3):
    return mixup.draw_partners(kind, alpha, plan, counts, seed=seed, epoch=epoch)


def _records(plan):
    return sorted(zip(plan.labels, plan.ordinals, plan.flips, strict=True))


def test_plain_partners_are_a_shuffle_of_the_same_epoch():
    plan = _plan("oversample")
    partner = _mixing("plain", plan).partner
    assert _records(partner) == _records(plan)
    assert (partner.ordinals == plan.ordinals).mean() < 0.05
    assert partner.batch_size == plan.batch_size


@pytest.mark.parametrize("sampler", ["none", "undersample", "oversample", "weighted"])
def test_balanced_partners_have_equal_shares_in_as_many_slots(sampler):
    plan = _plan(sampler)
    partner = _mixing("balanced", plan).partner
    assert len(partner.labels) == len(partner.flips) == len(plan.labels)
    shares = np.bincount(partner.labels, minlength=4) / len(partner.labels)
    np.testing.assert_allclose(shares, 0.25, atol=0.06)
    assert (partner.ordinals < np.array(COUNTS)[partner.labels]).all()
    assert 0.4 < partner.flips.mean() < 0.6
    # Not the training stream once more, which would mix an image with itself.
    assert (partner.labels == plan.labels).mean() < 0.4
    assert 0.4 < (partner.flips == plan.flips).mean() < 0.6


def test_balanced_partners_leave_out_classes_without_images():
    counts = (50, 0, 50)
    partner = _mixing("balanced", _plan(counts=counts), counts=counts).partner
    assert set(partner.labels) == {0, 2}


@pytest.mark.parametrize("alpha", [0.1, 0.4, 1.0, 3.0])
def test_weights_have_the_papers_distributions(alpha):
    plan = _plan("oversample")
    plain, balanced = (_mixing(kind, plan, alpha).lam for kind in ("plain", "balanced"))
    for lam in (plain, balanced):
        assert lam.dtype == np.float32
        assert ((lam >= 0) & (lam <= 1)).all()
    # At points, not by a test of all values: next to 1 many of them are the same float32.
    points = np.linspace(0.02, 0.98, 25)
    below = (plain[:, None] < points).mean(axis=0)
    np.testing.assert_allclose(below, scipy.stats.beta(alpha, alpha).cdf(points), atol=0.03)
    # The balanced partner's weight is Beta(alpha, 1), so most of an image is its own.
    below = (1 - balanced[:, None] < points).mean(axis=0)
    np.testing.assert_allclose(below, scipy.stats.beta(alpha, 1).cdf(points), atol=0.03)


@pytest.mark.parametrize("kind", ["plain", "balanced"])
def test_mixing_is_a_function_of_seed_and_epoch(kind):
    plan = _plan()
    first, again = _mixing(kind, plan), _mixing(kind, plan)
    np.testing.assert_array_equal(first.lam, again.lam)
    np.testing.assert_array_equal(first.partner.ordinals, again.partner.ordinals)
    for other in (_mixing(kind, plan, epoch=1), _mixing(kind, plan, seed=4)):
        assert (first.lam == other.lam).mean() < 0.1
        assert (first.partner.ordinals == other.partner.ordinals).mean() < 0.1


def test_weights_stay_what_they_were_in_every_release():
    lam = _mixing("balanced", _plan(counts=(4, 4)), alpha=1.0, counts=(4, 4)).lam
    words = np.random.Philox(key=np.array([2**62 + 3, 0], np.uint64)).random_raw(8)
    np.testing.assert_array_equal(lam, (1 - (words >> np.uint64(11)) * 2.0**-53).astype("f4"))


# The kind is the plan's alone, the cache the source's: two cases have all of both.
@pytest.mark.parametrize(("kind", "cache"), [("plain", "memory"), ("balanced", "none")])
def test_images_are_mixed_by_their_weights_with_both_flips(kind, cache, data):
    counts = SPLITS["train"]
    plan = _plan(counts=counts)
    mixing = _mixing(kind, plan, counts=counts)
    assert mixing.partner.flips.any()
    source = SplitSource(data, "train", cache=cache)
    mixed = list(source.training(plan, batch_size=8, mixing=mixing).as_numpy_iterator())
    own = source.training(plan, batch_size=8).as_numpy_iterator()
    partners = source.training(mixing.partner, batch_size=8).as_numpy_iterator()
    assert len(mixed) == plan.steps
    for step, (images, labels, partner_labels, lam) in enumerate(mixed):
        slots = slice(8 * step, 8 * step + 8)
        np.testing.assert_array_equal(lam, mixing.lam[slots])
        np.testing.assert_array_equal(labels, plan.labels[slots])
        np.testing.assert_array_equal(partner_labels, mixing.partner.labels[slots])
        weight = lam[:, None, None, None]
        exact = weight * next(own)[0] + (1 - weight) * next(partners)[0]
        np.testing.assert_allclose(images, exact, atol=0.501)


@pytest.mark.parametrize("cache", ["memory", pytest.param("none", marks=pytest.mark.slow)])
def test_mixed_batches_are_static_and_the_same_for_any_number_of_replicas(cache, data):
    counts = SPLITS["train"]
    plan = _plan(counts=counts)
    mixing = _mixing("balanced", plan, counts=counts)
    source = SplitSource(data, "train", cache=cache)
    whole = list(source.training(plan, batch_size=8, mixing=mixing).as_numpy_iterator())
    rest = source.training(plan, batch_size=8, mixing=mixing, start_step=5).as_numpy_iterator()
    for left, right in zip(whole[5:], rest, strict=True):
        for one, other in zip(left, right, strict=True):
            np.testing.assert_array_equal(one, other)
    hosts = []
    for host in range(2):
        context = tf.distribute.InputContext(2, host, 4)
        dataset = source.training(plan, batch_size=8, mixing=mixing, context=context)
        shapes = [(spec.shape.as_list(), spec.dtype) for spec in dataset.element_spec]
        assert shapes == [
            ([2, 32, 32, 1], tf.uint8),
            ([2], tf.int32),
            ([2], tf.int32),
            ([2], tf.float32),
        ]
        hosts.append(list(dataset.as_numpy_iterator()))
    for step, batch in enumerate(whole):
        parts = [host[2 * step + r] for host in hosts for r in range(2)]
        for position, expected in enumerate(batch):
            joined = np.concatenate([part[position] for part in parts])
            np.testing.assert_array_equal(joined, expected)


def test_a_step_descends_the_weighted_mean_of_both_labels_losses(strategy):
    model = create_model("tiny", image_size=32, channels=1, num_classes=4)
    optimizer = steps.create_optimizer("sgd", 0.1, model)
    meters = steps.Meters(4)
    loss = losses.TrainingLoss(TrainConfig("d", loss="class_weighted"), COUNTS)
    train_steps = steps.make_train_steps(strategy, model, optimizer, meters, toy.BATCH, loss)
    images, labels = toy.images_and_labels(toy.BATCH)
    partners = labels[::-1].copy()
    lam = np.linspace(0, 1, toy.BATCH, dtype=np.float32)
    with tf.GradientTape() as tape:
        logits = model(images, training=True)
        log_p = tf.math.log_softmax(logits)
        weights = (500 / np.array(COUNTS, np.float32))[:, None]
        targets = lam[:, None] * np.eye(4, dtype="f4")[labels] * weights[labels]
        targets += (1 - lam[:, None]) * np.eye(4, dtype="f4")[partners] * weights[partners]
        value = -tf.reduce_mean(tf.reduce_sum(targets * log_p, axis=1))
    gradients = tape.gradient(value, model.trainable_variables)
    expected = [
        variable.numpy() - 0.1 * np.asarray(gradient)
        for variable, gradient in zip(model.trainable_variables, gradients, strict=True)
    ]
    train_steps(iter(toy.distributed(strategy, images, labels, partners, lam)), tf.constant(1))
    for variable, after in zip(model.trainable_variables, expected, strict=True):
        np.testing.assert_allclose(variable, after, atol=1e-5)
    totals = meters.read()
    assert totals.loss == pytest.approx(float(value), rel=1e-5)
    heavier = np.where(lam >= 0.5, labels, partners)
    assert totals.confusion.sum(axis=1).tolist() == np.bincount(heavier, minlength=4).tolist()


def test_moments_are_those_of_mixed_images_unless_natural_ones_are_asked_for(
    data, strategy, tmp_path, monkeypatch
):
    given = []
    monkeypatch.setattr(
        passes, "training_batches", lambda trainer, plan, mixing=None: given.append(mixing)
    )
    for policy in ("adapt", "adapt_natural"):
        config = TrainConfig(
            data.path, str(tmp_path), batch_norm=policy, batch_size=8, mixup_alpha=0.2
        )
        trainer = create_trainer(config, data, strategy)
        monkeypatch.setattr(trainer.learner.moments, "estimate", lambda *_: None)
        passes.estimate_moments(trainer, epoch=0)
    assert len(given[0].lam) == 64
    assert given[1] is None


class _KilledError(Exception):
    pass


@pytest.mark.slow
@pytest.mark.parametrize("cache", ["memory", "none"])
def test_a_resumed_run_with_deferred_weights_and_mixup_has_identical_weights(
    cache, data, strategy, tmp_path, monkeypatch
):
    whole = TrainConfig(
        data.path,
        str(tmp_path / "whole"),
        loss="ldam_drw",
        drw_epoch=2,
        effective_number_beta=0.9,
        mixup="balanced",
        mixup_alpha=0.3,
        first_layer_lr_factor=0.1,
        lr_schedule="cosine",
        warmup_steps=4,
        epochs=3,
        batch_size=16,
        cache=cache,
        early_stopping_patience=0,
    )
    run(whole, data, strategy)
    cut = dataclasses.replace(whole, run_dir=str(tmp_path / "cut"))
    run_epoch = loop._run_epoch

    def killed_in_third_epoch(trainer, progress, *others):
        if progress.epoch == 2:
            raise _KilledError
        return run_epoch(trainer, progress, *others)

    monkeypatch.setattr(loop, "_run_epoch", killed_in_third_epoch)
    with pytest.raises(_KilledError):
        run(cut, data, strategy)
    monkeypatch.undo()
    run(cut, data, strategy)
    tables = []
    for name in ("whole", "cut"):
        with open(tmp_path / name / "history.csv", newline="") as file:
            tables.append([(row["loss"], row["validation_loss"]) for row in csv.DictReader(file)])
    assert tables[0] == tables[1]
    for name in ("predictions_validation.csv", "predictions_test.csv"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "cut" / name).read_bytes()
