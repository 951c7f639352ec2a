import os
import re
import shutil

import numpy as np
import pytest
import tensorflow as tf

from cxr_tfrecords.errors import UserError
from tests.trainer import toy
from trainer.distribution import strategies
from trainer.models.classifier import create_model
from trainer.runs.checkpoints import Checkpoints
from trainer.runs.progress import Progress
from trainer.training import steps


class _Run:
    """A small model with dropout, an optimizer and, in a directory, its checkpoints."""

    def __init__(self, directory=None, seed: int = 0, **settings) -> None:
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
        self.optimizer = steps.create_optimizer("adamax", 0.001, self.model, first_layer_factor=0.3)
        self._steps = steps.make_train_steps(
            strategy, self.model, self.optimizer, steps.Meters(toy.NUM_CLASSES), toy.BATCH
        )
        self._data = toy.distributed(strategy, *toy.images_and_labels(32))
        if directory is not None:
            self.open(directory)

    def open(self, directory) -> "_Run":
        """The same model with the checkpoints of another directory."""
        self.checkpoints = Checkpoints(str(directory), self.model, self.optimizer, keep=2)
        return self

    def forget(self) -> None:
        """Every variable gets a value that no training leaves."""
        for variable in (*self.model.variables, *self.optimizer.variables):
            variable.assign(np.full(variable.shape, 7, variable.dtype))

    def train(self) -> None:
        self._steps(iter(self._data), tf.constant(2))

    def state(self) -> list[np.ndarray]:
        return [np.asarray(v) for v in (*self.model.variables, *self.optimizer.variables)]


@pytest.fixture(scope="module")
def model():
    """One for all tests of files alone, since making and tracing it takes a second."""
    return _Run()


def _assert_same(first: list[np.ndarray], second: list[np.ndarray]) -> None:
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


def test_training_goes_on_from_a_checkpoint_bit_for_bit(tmp_path):
    run = _Run(tmp_path)
    run.train()
    run.optimizer.learning_rate = 0.0005
    run.checkpoints.save(Progress(epoch=1, step=2, history=[{"epoch": 1, "loss": 0.1}]))
    run.train()

    resumed = _Run(tmp_path, seed=9)  # other weights and random states until restored
    progress = resumed.checkpoints.restore_latest()
    assert progress == Progress(epoch=1, step=2, history=[{"epoch": 1, "loss": 0.1}])
    resumed.train()
    _assert_same(run.state(), resumed.state())


def test_no_checkpoint_yet_is_none(model, tmp_path):
    assert model.open(tmp_path).checkpoints.restore_latest() is None


def test_best_weights_come_back_by_epoch_even_if_a_later_one_was_saved(model, tmp_path):
    run = model.open(tmp_path)
    run.checkpoints.save_best(1)
    best = [np.asarray(v) for v in run.model.variables]
    run.train()
    run.checkpoints.save_best(2)
    run.checkpoints.restore_best(1)
    _assert_same(best, [np.asarray(v) for v in run.model.variables])


def _names(directory) -> list[str]:
    return sorted(os.listdir(directory))


def test_only_the_last_checkpoints_stay_on_disk_and_none_is_written_twice(model, tmp_path):
    run = model.open(tmp_path)
    for epoch, epoch_step in ((1, 0), (1, 8), (1, 12), (2, 0)):
        run.checkpoints.save(Progress(epoch=epoch, epoch_step=epoch_step))
    assert _names(tmp_path / "resume") == ["epoch-1-step-12", "epoch-2"]
    before = os.stat(tmp_path / "resume" / "epoch-2").st_mtime_ns
    run.checkpoints.save(Progress(epoch=2))
    assert os.stat(tmp_path / "resume" / "epoch-2").st_mtime_ns == before


def test_the_order_is_of_steps_and_not_of_names(model, tmp_path):
    run = model.open(tmp_path)
    for epoch, epoch_step in ((9, 100), (10, 0), (10, 9), (10, 20)):
        run.checkpoints.save(Progress(epoch=epoch, epoch_step=epoch_step))
    progress = run.checkpoints.restore_latest()
    assert (progress.epoch, progress.epoch_step) == (10, 20)
    assert _names(tmp_path / "resume") == ["epoch-10-step-20", "epoch-10-step-9"]


_FILES = ("state.index", "state.data-00000-of-00001")


def _truncate(path) -> None:
    os.truncate(path, os.path.getsize(path) // 2)


def _empty(path) -> None:
    os.truncate(path, 0)


def _zero(path) -> None:
    path.write_bytes(bytes(os.path.getsize(path)))


@pytest.mark.parametrize("damage", [_truncate, _empty, _zero, os.remove])
@pytest.mark.parametrize("name", _FILES)
def test_damaged_checkpoint_gives_way_to_the_one_before(model, saved_twice, damage, name, capfd):
    directory, first = saved_twice
    assert set(_names(directory / "resume" / "epoch-1-step-2")) == set(_FILES)
    damage(directory / "resume" / "epoch-1-step-2" / name)
    resumed = model.open(directory)
    resumed.forget()
    progress = resumed.checkpoints.restore_latest()
    assert (progress.epoch, progress.epoch_step) == (1, 0)
    _assert_same(first, resumed.state())
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("warning")]
    assert len(lines) == 1
    assert re.search(r"epoch-1-step-2 cannot be restored .*; going back to epoch-1$", lines[0])

    # The damaged one neither stays nor takes the place of a good one.
    resumed.checkpoints.save(Progress(epoch=1, epoch_step=1))
    assert _names(directory / "resume") == ["epoch-1", "epoch-1-step-1"]


@pytest.fixture(scope="module")
def two_checkpoints(model, tmp_path_factory):
    """A directory with two checkpoints, and the state that the first one holds."""
    directory = tmp_path_factory.mktemp("two")
    run = model.open(directory)
    run.train()
    run.checkpoints.save(Progress(epoch=1, step=2))
    first = run.state()
    run.train()
    run.checkpoints.save(Progress(epoch=1, step=4, epoch_step=2))
    return directory, first


@pytest.fixture
def saved_twice(two_checkpoints, tmp_path):
    """A copy of them that a test may damage."""
    directory, first = two_checkpoints
    shutil.copytree(directory, tmp_path / "run")
    return tmp_path / "run", first


def test_nothing_left_to_fall_back_on_is_one_line(model, saved_twice):
    directory, _ = saved_twice
    for name in _names(directory / "resume"):
        _truncate(directory / "resume" / name / "state.data-00000-of-00001")
    message = r"epoch-1-step-2 cannot be restored .*nor can the 1 before it: start again"
    with pytest.raises(UserError, match=message) as caught:
        model.open(directory).checkpoints.restore_latest()
    assert "\n" not in str(caught.value)


def test_checkpoint_of_another_model_is_one_line(model, tmp_path):
    model.open(tmp_path).checkpoints.save(Progress(epoch=1))
    with pytest.raises(UserError, match=r"epoch-1 cannot be restored") as caught:
        _Run(tmp_path, head_units=(8,)).checkpoints.restore_latest()
    assert "\n" not in str(caught.value)


def test_half_written_checkpoint_is_none(model, tmp_path):
    run = model.open(tmp_path)
    run.checkpoints.save(Progress(epoch=1))
    os.rename(tmp_path / "resume" / "epoch-1", tmp_path / "resume" / ".unfinished")
    assert run.checkpoints.restore_latest() is None
    run.checkpoints.save(Progress(epoch=1, epoch_step=1))
    assert _names(tmp_path / "resume") == ["epoch-1-step-1"]


def test_missing_best_weights_are_one_line(model, tmp_path):
    with pytest.raises(UserError, match="best/epoch-3 cannot be restored"):
        model.open(tmp_path).checkpoints.restore_best(3)
