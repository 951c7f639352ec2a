"""Saves checkpoints; weights that are NaN or infinite become an error that names the images."""

from __future__ import annotations

import os

import numpy as np

from cxr_tfrecords.errors import DivergedError
from trainer.models import batch_norm
from trainer.runs import remote_run, run_directory
from trainer.runs.progress import Progress
from trainer.training.learner import Trainer

BAD_STEP = "not_finite.json"
_MAX_NAMED_IMAGES = 32


def save(trainer: Trainer, progress: Progress) -> None:
    """Saves a checkpoint; all workers must call it, the chief writes.

    Raises:
      DivergedError: see `check_finite`; the checkpoint before is kept.
    """
    if progress.epoch_step:
        check_finite(trainer, progress)
        if not trainer.config.sync_batch_norm:  # a checkpoint holds only the first replica's
            batch_norm.average_statistics(trainer.strategy, trainer.learner.model)
        progress.meters = trainer.learner.meters.state()
    if trainer.is_chief:
        trainer.checkpoints.save(progress)
        remote_run.upload(trainer.config.run_dir)


def check_finite(trainer: Trainer, progress: Progress) -> None:
    """Checks the weights after the last step; they can be NaN although its loss was finite.

    Raises:
      DivergedError: they are NaN or infinite; the message names the step and its images.
    """
    variables = (*trainer.learner.model.variables, *trainer.learner.optimizer.variables)
    values = (variable.value for variable in variables)
    if not all(np.isfinite(v.numpy()).all() for v in values if v.dtype.is_floating):
        raise explain_bad_step(trainer, progress, progress.step)


def explain_bad_step(trainer: Trainer, progress: Progress, bad_step: int) -> DivergedError:
    """Returns the error that names a step, counted from 1 over the whole run, and its images.

    The message names the first images; RUN/not_finite.json lists all of them.
    """
    config, epoch = trainer.config, progress.epoch
    plan = trainer.planner.plan(epoch)
    steps_before = progress.step - progress.epoch_step
    source, step = trainer.sources["train"], bad_step - 1 - steps_before
    ids = source.training_ids(plan, step)
    content = {
        "step": bad_step,
        "epoch": epoch + 1,
        "learning_rate": progress.learning_rate,
        "image_ids": ids,
    }
    mixing = trainer.planner.partners(plan, epoch)
    if mixing is not None:
        content["partner_ids"] = source.training_ids(mixing.partner, step)
    path = os.path.join(config.run_dir, BAD_STEP)
    if trainer.is_chief:
        run_directory.write_json(path, content)
    more = f", and {len(ids) - _MAX_NAMED_IMAGES} more" if len(ids) > _MAX_NAMED_IMAGES else ""
    return DivergedError(
        f"the loss or the weights became NaN or infinite at step {bad_step} (epoch {epoch + 1}), "
        f"images {', '.join(ids[:_MAX_NAMED_IMAGES])}{more} (all of them in {path}); checkpoints "
        "before it are kept. Look at these images, or try a lower --learning_rate than "
        f"{progress.learning_rate:g} in another --run_dir"
    )
