import os

import numpy as np
import pytest
import tensorflow as tf

from cxr_tfrecords.errors import UserError
from tests.trainer import toy
from trainer import steps, strategies
from trainer.checkpoints import Checkpoints
from trainer.model import create_model
from trainer.progress import Progress


class _Run:
    """A small model with dropout, an optimizer and its checkpoints."""

    def __init__(self, directory, seed: int = 0, **settings) -> None:
        strategy = strategies.create_strategy("cpu")
        self.model = create_model(
            "tiny",
            image_size=32,
            channels=1,
            num_classes=toy.NUM_CLASSES,
            dropout=0.5,
            seed=seed,
            **settings,
        )
        self.optimizer = steps.create_optimizer("adamax", 0.001, self.model)
        self._steps = steps.make_train_steps(
            strategy, self.model, self.optimizer, steps.Meters(toy.NUM_CLASSES), toy.BATCH
        )
        self._data = toy.distributed(strategy, *toy.images_and_labels(32))
        self.checkpoints = Checkpoints(str(directory), self.model, self.optimizer, keep=2)

    def train(self) -> None:
        self._steps(iter(self._data), tf.constant(2))

    def state(self) -> list[np.ndarray]:
        return [np.asarray(v) for v in (*self.model.variables, *self.optimizer.variables)]


def _assert_same(first: list[np.ndarray], second: list[np.ndarray]) -> None:
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


def test_training_goes_on_from_a_checkpoint_bit_for_bit(tmp_path):
    run = _Run(tmp_path)
    run.train()
    run.optimizer.learning_rate = 0.0005
    run.checkpoints.save_epoch(Progress(epoch=1, step=2, history=[{"epoch": 1, "loss": 0.1}]))
    run.train()

    resumed = _Run(tmp_path, seed=9)  # other weights and random states until restored
    progress = resumed.checkpoints.restore_latest()
    assert progress == Progress(epoch=1, step=2, history=[{"epoch": 1, "loss": 0.1}])
    resumed.train()
    _assert_same(run.state(), resumed.state())


def test_no_checkpoint_yet_is_none(tmp_path):
    assert _Run(tmp_path).checkpoints.restore_latest() is None


def test_best_weights_come_back_by_epoch_even_if_a_later_one_was_saved(tmp_path):
    run = _Run(tmp_path)
    run.checkpoints.save_best(1)
    best = [np.asarray(v) for v in run.model.variables]
    run.train()
    run.checkpoints.save_best(2)
    run.checkpoints.restore_best(1)
    _assert_same(best, [np.asarray(v) for v in run.model.variables])


def test_only_the_last_epochs_stay_on_disk(tmp_path):
    run = _Run(tmp_path)
    for epoch in (1, 2, 3):
        run.checkpoints.save_epoch(Progress(epoch=epoch))
    names = sorted(n for n in os.listdir(tmp_path / "epochs") if n.endswith(".index"))
    assert names == ["epoch-2.index", "epoch-3.index"]


def test_checkpoint_of_another_model_or_damaged_is_one_line(tmp_path):
    run = _Run(tmp_path)
    run.checkpoints.save_epoch(Progress(epoch=1))
    with pytest.raises(UserError, match=r"epoch-1 cannot be restored") as caught:
        _Run(tmp_path, head_units=(8,)).checkpoints.restore_latest()
    assert "\n" not in str(caught.value)
    with open(tmp_path / "epochs" / "epoch-1.data-00000-of-00001", "r+b") as file:
        file.truncate(1000)
    with pytest.raises(UserError, match=r"epoch-1 cannot be restored"):
        run.checkpoints.restore_latest()
