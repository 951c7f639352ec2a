"""The class shares that probabilities are said to assume are those of the labels trained on."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from trainer.balancing.loss_table import LOSSES
from trainer.balancing.sampler_table import SAMPLERS
from trainer.epochs.plan import EpochPlanner
from trainer.runs.finished_run import FinishedRun
from trainer.runs.training_priors import planned_in_last_epoch, training_priors
from trainer.settings.config import TrainConfig
from trainer.training.losses import TrainingLoss

NAMES, COUNTS = ("a", "b", "c"), [18_000, 5_000, 1_000]
MIXUPS = {
    "unmixed": {},
    "plain": {"mixup_alpha": 0.4},
    "balanced 0.2": {"mixup": "balanced", "mixup_alpha": 0.2},
    "balanced 2": {"mixup": "balanced", "mixup_alpha": 2.0},
}
EPOCHS = 5


def _run(best=3, **settings) -> FinishedRun:
    """A finished run that kept the weights of epoch `best`, from 1."""
    config = TrainConfig("d", batch_size=32, epochs=EPOCHS, **settings)
    losses = [float(epoch != best) for epoch in range(1, EPOCHS + 1)]
    history = [{"epoch": i + 1, "validation_loss": loss} for i, loss in enumerate(losses)]
    data = {"class_names": list(NAMES)}
    return FinishedRun("run", config, {}, data, history, {}, {"natural": COUNTS})


def _label_mass(run: FinishedRun, epoch: int) -> np.ndarray:
    """Labels of each class in an epoch as drawn, each counted by the weight of its image."""
    planner = EpochPlanner(run.config, NAMES, COUNTS)
    plan = planner.plan(epoch)
    mixing = planner.partners(plan, epoch)
    if mixing is None:
        mass = np.bincount(plan.labels, minlength=3)
    else:
        mass = np.bincount(plan.labels, mixing.lam, 3)
        mass += np.bincount(mixing.partner.labels, 1.0 - mixing.lam, 3)
    return mass


@pytest.mark.parametrize("mixup", MIXUPS)
@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("steps", [0, 500])
def test_shares_are_the_label_mass_of_the_epoch_that_was_kept(sampler, mixup, steps):
    for best in (1, 3, EPOCHS):
        run = _run(best, sampler=sampler, steps_per_epoch=steps, **MIXUPS[mixup])
        drawn = _label_mass(run, best - 1)
        # Four times the largest standard error of a share.
        tolerance = 4 * 0.5 / np.sqrt(drawn.sum())
        np.testing.assert_allclose(training_priors(run), drawn / drawn.sum(), atol=tolerance)


def test_balanced_mixup_gives_the_rare_class_more_than_its_natural_share():
    # (0.0417 + 0.2 / 3) / 1.2
    run = _run(mixup="balanced", mixup_alpha=0.2)
    assert training_priors(run)[2] == pytest.approx(0.0903, abs=1e-4)
    natural = np.array(COUNTS) / sum(COUNTS)
    np.testing.assert_allclose(training_priors(_run(mixup_alpha=0.2)), natural)


@pytest.mark.parametrize("mixup", MIXUPS)
@pytest.mark.parametrize("sampler", ["none", "undersample", "progressive"])
@pytest.mark.parametrize(
    "loss", [name for name, row in LOSSES.items() if not row.changes_confidence]
)
def test_a_model_without_images_learns_these_shares_from_the_loss(loss, sampler, mixup):
    # Equal logits for every image: the loss of the epoch is least where they are the log shares.
    run = _run(sampler=sampler, loss=loss, ldam_max_margin=0.0, drw_epoch=2, **MIXUPS[mixup])
    criterion = TrainingLoss(run.config, COUNTS)
    criterion.start_epoch(3)
    mass = EpochPlanner(run.config, NAMES, COUNTS).label_shares(2)
    logits = tf.Variable(np.log(training_priors(run)), dtype=tf.float32)
    with tf.GradientTape() as tape:
        losses = criterion(tf.range(3), tf.tile(logits[tf.newaxis], (3, 1)))
        mean = tf.tensordot(losses, tf.constant(mass, tf.float32), 1)
    np.testing.assert_allclose(tape.gradient(mean, logits), 0, atol=1e-5)


def test_the_last_epoch_of_progressive_sampling_is_planned_at_equal_shares():
    planned = planned_in_last_epoch(_run(sampler="progressive"))
    assert max(planned) - min(planned) <= 1
    fixed = dataclasses.replace(_run(sampler="weighted"), samples={"planned": [7, 7, 7]})
    assert planned_in_last_epoch(fixed) == [7, 7, 7]
