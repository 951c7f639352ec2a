"""What a run has done so far: its history, best epoch, patience and learning rate.

Plain values that every checkpoint stores, so that a resumed run makes the same decisions as one
without interruption.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import Any

# As in Keras' ReduceLROnPlateau: a smaller improvement does not count.
_PLATEAU_MIN_DELTA = 1e-4


@dataclasses.dataclass
class Progress:
    """A run's state after any step.

    Attributes:
      epoch, step: epochs and optimizer steps done.
      epoch_step: how many of the steps belong to the epoch after `epoch`, which is not finished.
      meters: `steps.Meters.state` over these steps; None at the start of an epoch.
      epoch_seconds: duration of these steps, summed over the processes that did some of them.
      learning_rate: learning rate of the next epoch.
      history: one row for each epoch, with the columns of history.csv.
      best_epoch: epoch of the best monitored value, 0 before the first; best_value: that value.
      epochs_since_best: for early stopping.
      plateau_best, plateau_epochs: best value and epochs since then for lowering the learning rate,
        where small improvements do not count.
      stopped: early stopping has ended the training.
    """

    epoch: int = 0
    step: int = 0
    epoch_step: int = 0
    meters: dict[str, Any] | None = None
    epoch_seconds: float = 0.0
    learning_rate: float = 0.0
    history: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    best_epoch: int = 0
    best_value: float | None = None
    epochs_since_best: int = 0
    plateau_best: float | None = None
    plateau_epochs: int = 0
    stopped: bool = False

    def to_json(self) -> str:
        """All fields as JSON text."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Progress:
        """The progress that `to_json` wrote."""
        return cls(**json.loads(text))

    def finish_epoch(
        self,
        value: float,
        *,
        maximize: bool,
        early_stopping_patience: int,
        reduce_lr_patience: int,
        reduce_lr_factor: float,
    ) -> bool:
        """Counts an epoch and applies the rules of Keras' EarlyStopping and ReduceLROnPlateau.

        Args:
          value: the monitored value after this epoch.
          maximize: larger is better.
          early_stopping_patience, reduce_lr_patience: epochs without improvement until training
            stops, or the learning rate is reduced; 0: never.
          reduce_lr_factor: factor by which the learning rate is then multiplied.

        Returns:
          Whether this epoch is the best so far.
        """
        self.epoch += 1
        self.epoch_step, self.meters, self.epoch_seconds = 0, None, 0.0
        improved = _better(value, self.best_value, maximize, 0.0)
        if improved:
            self.best_value, self.best_epoch, self.epochs_since_best = value, self.epoch, 0
        else:
            self.epochs_since_best += 1
        self.stopped = 0 < early_stopping_patience <= self.epochs_since_best
        if _better(value, self.plateau_best, maximize, _PLATEAU_MIN_DELTA):
            self.plateau_best, self.plateau_epochs = value, 0
        else:
            self.plateau_epochs += 1
            if 0 < reduce_lr_patience <= self.plateau_epochs:
                self.learning_rate *= reduce_lr_factor
                self.plateau_epochs = 0
        return improved


def history_row(
    *,
    epoch: int,
    step: int,
    learning_rate: float,
    loss: float,
    accuracy: float,
    validation: Mapping[str, Any],
    seconds: float,
    images_per_second: float,
) -> dict[str, Any]:
    """One epoch's row of history.csv, in the order of its columns.

    Args:
      epoch, step: epochs and steps done so far.
      loss, accuracy: means over the epoch's training steps.
      validation: what `predictions.compute_metrics` gives for the validation split.
      seconds: duration of training and validation.
    """
    return {
        "epoch": epoch,
        "step": step,
        "learning_rate": learning_rate,
        "loss": loss,
        "accuracy": accuracy,
        "validation_loss": validation["log_loss"],
        "validation_accuracy": validation["accuracy"],
        "validation_balanced_accuracy": validation["balanced_accuracy"],
        "seconds": round(seconds, 2),
        "images_per_second": round(images_per_second, 1),
    }


def _better(value: float, best: float | None, maximize: bool, margin: float) -> bool:
    if not math.isfinite(value):
        return False
    if best is None:
        return True
    return value > best + margin if maximize else value < best - margin
