"""Checkpoints that hold everything the next epoch depends on.

RUN/checkpoints/epoch-N   model, optimizer (learning rate and step count too), random states of
                          dropout and `Progress`, after epoch N
RUN/checkpoints/best-N    the model's variables after the best epoch, as they were evaluated

A checkpoint gets its name when it is whole, and is listed (`checkpoint` file) after that: a kill
at any moment leaves the one before. Best weights carry their epoch and the last two are kept,
because a kill between the two saves replays the epoch, and `Progress` then still names the older.
"""

from __future__ import annotations

import os

import keras
import tensorflow as tf

from cxr_tfrecords.errors import UserError
from trainer.progress import Progress


class Checkpoints:
    """Saves and restores one run's state."""

    def __init__(
        self, directory: str, model: keras.Model, optimizer: keras.Optimizer, keep: int = 2
    ) -> None:
        """Args: directory: made when first needed; keep: epoch checkpoints kept."""
        # Lists, not Keras objects: layer names differ between processes, the order does not.
        # `model.variables` holds the states of dropout's random generators as well.
        weights = [variable.value for variable in model.variables]
        self._host = _HostState()
        self._epoch = tf.train.CheckpointManager(
            tf.train.Checkpoint(
                model=weights,
                optimizer=[variable.value for variable in optimizer.variables],
                progress=self._host,
            ),
            directory=os.path.join(directory, "epochs"),
            max_to_keep=keep,
            checkpoint_name="epoch",
        )
        self._best = tf.train.CheckpointManager(
            tf.train.Checkpoint(model=weights),
            directory=os.path.join(directory, "best"),
            max_to_keep=2,
            checkpoint_name="best",
        )

    def save_epoch(self, progress: Progress) -> None:
        self._host.text = progress.to_json()
        self._epoch.save(checkpoint_number=progress.epoch)

    def save_best(self, epoch: int) -> None:
        self._best.save(checkpoint_number=epoch)

    def restore_latest(self) -> Progress | None:
        """Restores the last epoch checkpoint; None if there is none yet.

        Raises:
          UserError: it cannot be read, or is of another model.
        """
        path = self._epoch.latest_checkpoint
        if path is None:
            return None
        _restore(self._epoch.checkpoint, path)
        return Progress.from_json(self._host.text)

    def restore_best(self, epoch: int) -> None:
        """Sets the model's variables to those after `epoch`, which was the best.

        Raises:
          UserError: that checkpoint is missing, damaged or of another model.
        """
        directory = os.path.join(os.fspath(self._best.directory), f"best-{epoch}")
        _restore(self._best.checkpoint, directory)


class _HostState(tf.train.experimental.PythonState):
    """A string that is saved and restored with the tensors."""

    def __init__(self) -> None:
        self.text = ""

    def serialize(self) -> bytes:
        return self.text.encode()

    def deserialize(self, string_value: bytes) -> None:
        self.text = string_value.decode()


def _restore(checkpoint: tf.train.Checkpoint, path: str) -> None:
    try:
        checkpoint.restore(path).assert_consumed()
    except (tf.errors.OpError, ValueError, IndexError, AssertionError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
        raise UserError(
            f"checkpoint {path} cannot be restored ({reason}): start again with another --run_dir"
        ) from error
