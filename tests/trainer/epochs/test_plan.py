"""An epoch of fixed steps is the next piece of the sampler's endless stream."""

import dataclasses

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.balancing.sampler_table import SAMPLERS
from trainer.epochs.plan import EpochPlanner
from trainer.settings.config import TrainConfig

NAMES, COUNTS = ("a", "b", "c"), (20, 33, 9)


@settings(max_examples=40, deadline=None)
@given(
    sampler=st.sampled_from([s for s in SAMPLERS if s != "progressive"]),
    steps=st.integers(1, 40),
    batch_size=st.sampled_from([4, 7]),
)
def test_fixed_steps_cut_the_same_stream_anew(sampler, steps, batch_size):
    config = TrainConfig(data_dir="", sampler=sampler, batch_size=batch_size)
    fixed = dataclasses.replace(config, steps_per_epoch=steps)
    stream, epoch = [], 0
    while len(stream) < 3 * steps * batch_size:
        plan = EpochPlanner(config, NAMES, COUNTS).plan(epoch)
        stream += zip(
            plan.labels.tolist(), plan.ordinals.tolist(), plan.flips.tolist(), strict=True
        )
        epoch += 1
    for number in range(3):
        plan = EpochPlanner(fixed, NAMES, COUNTS).plan(number)
        assert plan.steps == steps
        own = list(
            zip(plan.labels.tolist(), plan.ordinals.tolist(), plan.flips.tolist(), strict=True)
        )
        assert own == stream[number * len(own) : (number + 1) * len(own)]


@settings(max_examples=40, deadline=None)
@given(epochs=st.integers(2, 12), steps=st.sampled_from([0, 1, 5, 40]))
def test_progressive_goes_from_natural_to_equal_shares_over_the_epochs_of_the_run(epochs, steps):
    config = TrainConfig(
        data_dir="", sampler="progressive", batch_size=6, steps_per_epoch=steps, epochs=epochs
    )
    planner, natural = EpochPlanner(config, NAMES, COUNTS), np.array(COUNTS) / sum(COUNTS)
    for epoch in range(epochs):
        planned, plan = planner.planned_counts(epoch), planner.plan(epoch)
        drawn = np.bincount(plan.labels, minlength=3)
        way = epoch / (epochs - 1)
        shares = (1 - way) * natural + way / 3
        assert (np.abs(planned - shares * planned.sum()) < 1).all()
        if steps:
            assert drawn.tolist() == planned.tolist()
            assert plan.steps == steps
        else:
            assert (drawn <= planned).all()
    assert np.ptp(planned) <= (0 if steps else 1)  # 6 images a step are a multiple of 3 classes


@settings(max_examples=20, deadline=None)
@given(sampler=st.sampled_from(list(SAMPLERS)), steps=st.integers(1, 40))
def test_planned_counts_of_fixed_steps_sum_to_their_images(sampler, steps):
    config = TrainConfig(data_dir="", sampler=sampler, batch_size=4, steps_per_epoch=steps)
    planner = EpochPlanner(config, NAMES, COUNTS)
    for epoch in (0, 19, 25):
        planned = planner.planned_counts(min(epoch, config.epochs - 1))
        assert planned.sum() == 4 * steps
        plan = planner.plan(epoch)
        assert np.bincount(plan.labels, minlength=3).sum() == 4 * steps


@settings(max_examples=20, deadline=None)
@given(sampler=st.sampled_from(list(SAMPLERS)), steps=st.sampled_from([0, 3]))
def test_a_cosine_ends_with_the_last_step_and_a_cycle_with_its_last_epoch(sampler, steps):
    config = TrainConfig(
        **{"data_dir": "", "sampler": sampler, "batch_size": 7, "steps_per_epoch": steps},
        **{"epochs": 3, "lr_schedule": "cosine"},
    )
    planner = EpochPlanner(config, NAMES, COUNTS)
    assert planner.learning_rates.steps == sum(planner.plan(epoch).steps for epoch in range(3))
    config = dataclasses.replace(config, lr_schedule="triangular", lr_cycle_epochs=2)
    rates = EpochPlanner(config, NAMES, COUNTS).learning_rates
    assert rates.steps == sum(planner.plan(epoch).steps for epoch in range(2))
    assert rates.lowest == 0.25


def test_schedules_are_not_cut_short_by_early_stopping_nor_lowered_at_a_plateau():
    patience = {
        name: (config.stopping_patience, config.lowering_patience)
        for name in ("plateau", "cosine", "triangular")
        for config in [TrainConfig("", lr_schedule=name)]
    }
    assert patience == {"plateau": (3, 1), "cosine": (0, 0), "triangular": (4, 0)}
    assert (
        TrainConfig("", lr_schedule="triangular", early_stopping_patience=0).stopping_patience == 0
    )
