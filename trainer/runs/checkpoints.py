"""Checkpoints, which store everything that the next step depends on.

RUN/checkpoints/resume/epoch-N         after epoch N: model, optimizer (learning rate and step count
                                       too), random states of dropout, and `Progress`
RUN/checkpoints/resume/epoch-N-step-K  the same after K steps of the epoch that follows; `Progress`
                                       then also stores the sums of the meters
RUN/checkpoints/best/epoch-N           the model's variables after the best epoch, as evaluated

Each is a folder that is written under another name, flushed to the disk and then renamed, so that
it is complete or does not exist. The folders themselves list what can be resumed: there is no index
file that could be lost or contradict them (`tf.train.CheckpointManager` relies on one and starts
again without it). TensorFlow's checksums detect a checkpoint that is damaged nevertheless.

Best weights are kept for every epoch that a kept checkpoint names as its best.
"""

from __future__ import annotations

import os
import shutil
import sys

import keras
import tensorflow as tf

from cxr_tfrecords.errors import UserError, first_line
from trainer.runs.progress import Progress
from trainer.runs.run_files import RESUME, list_checkpoints

_BEST = "best"
_UNFINISHED = ".unfinished"
_STATE = "state"  # prefix of TensorFlow's files in a folder
_FAILURES = (tf.errors.OpError, ValueError, TypeError, IndexError, KeyError, AssertionError)


class Checkpoints:
    """Saves and restores one run's state."""

    def __init__(
        self, directory: str, model: keras.Model, optimizer: keras.Optimizer, keep: int = 2
    ) -> None:
        """Prepares saving and restoring; writes nothing yet.

        Args:
          directory: created by the first save.
          model, optimizer: their variables are saved and restored.
          keep: how many checkpoints are kept to resume from.
        """
        # Lists of variables and not Keras objects: layer names differ between processes, the order
        # of layers does not. `model.variables` includes the random states of dropout.
        weights = [variable.value for variable in model.variables]
        self._host = _HostState()
        self._whole = tf.train.Checkpoint(
            model=weights,
            optimizer=[variable.value for variable in optimizer.variables],
            progress=self._host,
        )
        self._model = tf.train.Checkpoint(model=weights)
        self._resume = os.path.join(directory, RESUME)
        self._best = os.path.join(directory, _BEST)
        self._keep = keep
        self._last: tuple[int, int] | None = None

    def save(self, progress: Progress) -> None:
        """Saves the run's state, unless this position was saved or restored last."""
        position = (progress.epoch, progress.epoch_step)
        if position == self._last:
            return
        self._host.text = progress.to_json()
        _write(self._whole, os.path.join(self._resume, _name(position)))
        _prune(self._resume, position, self._keep)
        self._last = position

    def save_best(self, epoch: int) -> None:
        """Saves the model's variables as those of the best epoch."""
        _write(self._model, os.path.join(self._best, _name((epoch, 0))))
        # Each kept checkpoint names its best epoch; the next checkpoint will name this one.
        _prune(self._best, (epoch, 0), self._keep + 1)

    def restore_latest(self) -> Progress | None:
        """Restores the newest checkpoint that is not damaged; None if there is no checkpoint.

        Damaged ones are skipped, with a warning on standard error.

        Raises:
          UserError: there are checkpoints, but none of them can be restored.
        """
        positions = list_checkpoints(self._resume)
        failures: list[str] = []
        for position in reversed(positions):
            path = os.path.join(self._resume, _name(position))
            try:
                self._whole.read(os.path.join(path, _STATE)).assert_consumed()
                progress = Progress.from_json(self._host.text)
            except _FAILURES as error:
                failures.append(f"checkpoint {path} cannot be restored ({first_line(error, 160)})")
                continue
            for failure in failures:
                print(f"warning: {failure}; going back to {_name(position)}", file=sys.stderr)
            self._last = position
            return progress
        if failures:
            others = f", nor can the {len(failures) - 1} before it" if len(failures) > 1 else ""
            raise UserError(f"{failures[0]}{others}: start again with another --run_dir")
        return None

    def restore_best(self, epoch: int) -> None:
        """Sets the model's variables to those after `epoch`, which was the best.

        Raises:
          UserError: that checkpoint is missing or damaged.
        """
        path = os.path.join(self._best, _name((epoch, 0)))
        try:
            self._model.read(os.path.join(path, _STATE)).assert_consumed()
        except _FAILURES as error:
            raise UserError(
                f"checkpoint {path} cannot be restored ({first_line(error, 160)}): start again "
                "with another --run_dir"
            ) from error


class _HostState(tf.train.experimental.PythonState):
    """A string that is saved and restored with the tensors."""

    def __init__(self) -> None:
        self.text = ""

    def serialize(self) -> bytes:
        return self.text.encode()

    def deserialize(self, string_value: bytes) -> None:
        self.text = string_value.decode()


def _name(position: tuple[int, int]) -> str:
    epoch, step = position
    return f"epoch-{epoch}-step-{step}" if step else f"epoch-{epoch}"


def _write(checkpoint: tf.train.Checkpoint, path: str) -> None:
    directory = os.path.dirname(path)
    temporary = os.path.join(directory, _UNFINISHED)
    shutil.rmtree(temporary, ignore_errors=True)  # left by a process that was killed
    os.makedirs(temporary)
    checkpoint.write(os.path.join(temporary, _STATE))
    for name in (*os.listdir(temporary), ""):
        _flush(os.path.join(temporary, name))
    shutil.rmtree(path, ignore_errors=True)  # a damaged checkpoint, whose steps were trained again
    os.rename(temporary, path)
    _flush(directory)


def _flush(path: str) -> None:
    # Otherwise, a machine that fails just after the rename may leave a file of zeros.
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _prune(directory: str, current: tuple[int, int], keep: int) -> None:
    """Keeps `current` and the newest before it; later ones were skipped because of damage."""
    positions = list_checkpoints(directory)
    kept = [position for position in positions if position <= current][-keep:]
    for position in positions:
        if position not in kept:
            shutil.rmtree(os.path.join(directory, _name(position)), ignore_errors=True)
