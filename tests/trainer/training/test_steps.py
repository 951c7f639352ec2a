import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.trainer import toy
from trainer.models.classifier import create_model
from trainer.settings import learning_rate
from trainer.settings.learning_rate import CONSTANT, Schedule
from trainer.training import schedule, steps


def _train_steps(
    strategy, optimizer: str = "sgd", rate: float = 0.1, rates: Schedule = CONSTANT, **settings
):
    model = create_model("tiny", image_size=32, channels=1, num_classes=toy.NUM_CLASSES, **settings)
    optimizer = steps.create_optimizer(optimizer, rate, model, rates)
    meters = steps.Meters(toy.NUM_CLASSES)
    return (
        model,
        optimizer,
        meters,
        steps.make_train_steps(strategy, model, optimizer, meters, toy.BATCH),
    )


@pytest.mark.slow
def test_four_replicas_train_and_predict_as_one_cpu(strategy):
    alone, replicated = toy.train_toy(strategy), toy.train_toy_replicated(4)
    np.testing.assert_allclose(alone["losses"], replicated["losses"], rtol=1e-5)
    # Where rounding puts an input of a ReLU on the other side of 0, its gradient jumps: with one
    # thread of TensorFlow logits then differ by 1e-3, with two by 2e-6 (docs/distributed.md).
    np.testing.assert_allclose(alone["logits"], replicated["logits"], atol=2e-3)
    assert alone["confusion"] == replicated["confusion"]


def test_a_step_descends_the_mean_loss_of_the_batch(strategy):
    model, _, meters, train_steps = _train_steps(strategy)
    images, labels = toy.images_and_labels(toy.BATCH)
    with tf.GradientTape() as tape:
        logits = model(images, training=True)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(labels, logits)
    expected = [
        variable.numpy() - 0.1 * np.asarray(gradient)
        for variable, gradient in zip(
            model.trainable_variables, tape.gradient(loss, model.trainable_variables), strict=True
        )
    ]
    train_steps(iter(toy.distributed(strategy, images, labels)), tf.constant(1))
    for variable, value in zip(model.trainable_variables, expected, strict=True):
        np.testing.assert_allclose(variable, value, atol=1e-5)
    totals = meters.read()
    assert totals.loss == pytest.approx(float(loss), rel=1e-5)
    assert totals.examples == toy.BATCH
    assert totals.accuracy == np.mean(logits.numpy().argmax(1) == labels)
    assert totals.confusion.sum(axis=1).tolist() == np.bincount(labels, minlength=4).tolist()


def test_loops_of_any_length_and_new_epochs_are_traced_once(strategy):
    _, optimizer, meters, train_steps = _train_steps(strategy)
    images, labels = toy.images_and_labels(96)
    for parts in ((4, 2), (1, 5)):
        batches = iter(toy.distributed(strategy, images, labels))
        for part in parts:
            train_steps(batches, tf.constant(part))
    assert train_steps.experimental_get_tracing_count() == 1
    assert int(optimizer.iterations) == 12
    assert meters.read().examples == 192
    meters.reset()
    assert meters.read().examples == 0


def test_learning_rate_can_be_changed_between_loops(strategy):
    model, optimizer, _, train_steps = _train_steps(strategy)
    images, labels = toy.images_and_labels(32)
    batches = iter(toy.distributed(strategy, images, labels))
    train_steps(batches, tf.constant(1))
    optimizer.learning_rate = 0.0
    # Momentum keeps its velocity: an SGD step of rate 0 adds 0.9 v, so start it from rest.
    for slot in optimizer.variables[2:]:
        slot.assign(np.zeros(slot.shape))
    before = model.get_layer("logits").kernel.numpy()
    train_steps(batches, tf.constant(1))
    np.testing.assert_array_equal(model.get_layer("logits").kernel, before)


def test_rates_change_in_every_step_of_a_host_loop_and_go_on_from_the_count_of_steps(strategy):
    rates = Schedule("triangular", 4, 0.25, warmup_steps=2)
    images, labels = toy.images_and_labels(96)
    by_hand, optimizer, _, train_steps = _train_steps(strategy, rate=0.0)
    batches = iter(toy.distributed(strategy, images, labels))
    for step in range(1, 7):
        factor = (0.125, 0.625, 1.0, 0.625, 0.25, 0.625)[step - 1]
        optimizer.learning_rate = (0.1 if step <= 5 else 0.05) * factor
        train_steps(batches, tf.constant(1))

    warmed, optimizer, _, train_steps = _train_steps(strategy, rates=rates)
    batches = iter(toy.distributed(strategy, images, labels))
    train_steps(batches, tf.constant(3))
    train_steps(batches, tf.constant(2))
    schedule.set_learning_rate(optimizer, 0.05)
    train_steps(batches, tf.constant(1))
    for first, second in zip(by_hand.trainable_variables, warmed.trainable_variables, strict=True):
        np.testing.assert_allclose(first, second, atol=1e-6)


@pytest.mark.parametrize(
    ("rates", "expected"),
    [
        (Schedule(), [1, 1, 1, 1, 1, 1]),
        (Schedule(warmup_steps=4), [0.25, 0.5, 0.75, 1, 1, 1]),
        (Schedule("cosine", 4), [1, (2 + 2**0.5) / 4, 0.5, (2 - 2**0.5) / 4, 0, 0]),
        (Schedule("cosine", 4, warmup_steps=2), [0.5, (2 + 2**0.5) / 4, 0.5]),
        (Schedule("triangular", 4, 0.2), [0.2, 0.6, 1, 0.6, 0.2, 0.6]),
        (Schedule("triangular", 5, 0.0), [0, 0.4, 0.8, 0.8, 0.4, 0]),
    ],
)
def test_factors_of_schedules_are_those_computed_by_hand(rates, expected):
    np.testing.assert_allclose([rates.factor(float(n)) for n in range(len(expected))], expected)
    on_device = [float(rates.factor(tf.constant(float(n)), tf)) for n in range(len(expected))]
    np.testing.assert_allclose(on_device, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("scaling", "expected"), [("none", 0.1), ("linear", 0.8), ("sqrt", 0.1 * 8**0.5)]
)
def test_learning_rate_scales_with_the_batch(scaling, expected):
    assert learning_rate.scaled_learning_rate(0.1, scaling, 256, 32) == pytest.approx(expected)


def test_first_loss_that_is_not_finite_is_remembered_with_its_step(strategy):
    _, _, meters, train_steps = _train_steps(strategy, rate=1e30)
    images, labels = toy.images_and_labels(96)
    train_steps(iter(toy.distributed(strategy, images, labels)), tf.constant(6))
    assert meters.read().first_bad_step in (2, 3)
    meters.reset()
    assert meters.read().first_bad_step is None
