"""The training loop: epochs, exact validation, checkpoints, resuming.

A host loop is one call from the host that runs several training steps on the devices.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import tensorflow as tf
from tqdm import tqdm

from trainer.balancing import mixup, samplers
from trainer.distribution import lost_workers, preemption, strategies
from trainer.epochs.audit import SamplerAudit, check_trained, describe_epoch
from trainer.evaluation.predictions import compute_metrics
from trainer.runs import remote_run, run_directory
from trainer.runs.progress import Progress, history_row
from trainer.runs.same_run import why_epochs_are_fixed
from trainer.settings.config import TrainConfig
from trainer.training import saving, schedule, steps
from trainer.training.learner import Trainer
from trainer.training.passes import estimate_moments, predict_split, training_batches
from trainer.training.step_profile import StepProfile


def train(trainer: Trainer) -> Progress:
    """Trains to the end, from the latest checkpoint if there is one; restores the best weights.

    Raises:
      TemporaryError, KeyboardInterrupt: a signal asked the process to stop; the progress is saved.
      UserError: the loss became NaN or infinite, an epoch has no full batch, …
    """
    config = trainer.config
    progress = trainer.checkpoints.restore_latest() or Progress(
        learning_rate=config.scaled_learning_rate
    )
    steps.spread_seeds(trainer.strategy, trainer.learner.model)
    if progress.step:
        print(f"resuming after {_describe_position(progress)}", flush=True)
    board = None
    if trainer.is_chief:
        # A process killed just after saving a checkpoint has not written the rows of its epoch.
        run_directory.write_history(config.run_dir, progress.history)
        board = run_directory.TensorBoard(config.run_dir, progress.history)
    audit = _start_audit(trainer, progress)
    notices = preemption.Notices(trainer.strategy)
    with preemption.deferred():
        try:
            _run_epochs(trainer, progress, audit, board, notices)
        except preemption.NoticedError:
            saving.save(trainer, progress)
            strategies.wait_for_all(trainer.strategy)
            raise preemption.ending(f"saved after {_describe_position(progress)}") from None
    strategies.wait_for_all(trainer.strategy)
    if progress.best_epoch:
        trainer.checkpoints.restore_best(progress.best_epoch)
    print(_describe_end(progress, config), flush=True)
    return progress


def _run_epochs(
    trainer: Trainer,
    progress: Progress,
    audit: SamplerAudit,
    board: run_directory.TensorBoard | None,
    notices: preemption.Notices,
) -> None:
    config = trainer.config
    while progress.epoch < config.epochs and not progress.stopped:
        row, is_best = _run_epoch(trainer, progress, audit, notices)
        # The best weights are saved first: a process killed between the two saves resumes from the
        # checkpoint before, repeats this validation and loses nothing.
        if is_best and trainer.is_chief:
            trainer.checkpoints.save_best(progress.epoch)
        saving.save(trainer, progress)
        if board is not None:
            run_directory.write_history(config.run_dir, progress.history)
            run_directory.write_audit(config.run_dir, audit)
            board.add(row)
            remote_run.upload(config.run_dir)
        print(_describe_epoch(row, config, progress, is_best), flush=True)
        notices.check()


def _start_audit(trainer: Trainer, progress: Progress) -> SamplerAudit:
    """Returns the audit of the epochs done so far; prints what the next epoch will contain."""
    config, audit = trainer.config, _create_audit(trainer)
    audit.catch_up(progress.epoch)
    if audit.rows and trainer.is_chief:
        run_directory.write_audit(config.run_dir, audit)
    if progress.epoch < config.epochs and not progress.stopped:
        row = audit.measure(audit.plan(progress.epoch))
        print(f"audit: {describe_epoch(audit.to_json(), row.to_json())}", flush=True)
    return audit


def _create_audit(trainer: Trainer) -> SamplerAudit:
    """An audit of the run's epochs that knows whether images are read from shards."""
    streamed = trainer.sources["train"].streamed
    # With decode servers, each server reads the shards once for each host.
    readers = strategies.num_hosts(trainer.strategy) * max(1, len(trainer.services.addresses))
    planner = trainer.planner
    return SamplerAudit(
        trainer.config,
        planner.class_names,
        planner.counts,
        streaming_hosts=readers if streamed else 0,
    )


def _run_epoch(
    trainer: Trainer,
    progress: Progress,
    audit: SamplerAudit,
    notices: preemption.Notices,
) -> tuple[dict[str, Any], bool]:
    """Trains and validates one epoch; returns its history row and whether it is the best."""
    config = trainer.config
    learning_rate = progress.learning_rate
    schedule.set_learning_rate(trainer.learner.optimizer, learning_rate)
    totals = _train_epoch(trainer, progress, audit, notices)
    trained = time.monotonic()
    training_seconds = progress.epoch_seconds
    estimate_moments(trainer, progress.epoch)
    notices.check_alone()
    validation = predict_split(
        trainer, "validation", with_ids=False, after_batch=notices.check_alone
    )
    metrics = compute_metrics(validation, trainer.data.class_names)
    row = history_row(
        epoch=progress.epoch + 1,
        step=progress.step,
        learning_rate=float(
            learning_rate * trainer.planner.learning_rates.factor(progress.step - 1.0)
        ),
        loss=totals.loss,
        accuracy=totals.accuracy,
        validation=metrics,
        seconds=training_seconds + time.monotonic() - trained,
        images_per_second=totals.examples / max(training_seconds, 1e-9),
    )
    is_best = progress.finish_epoch(
        row[config.monitor],
        maximize=config.monitor != "validation_loss",
        early_stopping_patience=config.stopping_patience,
        reduce_lr_patience=config.lowering_patience,
        reduce_lr_factor=config.reduce_lr_factor,
    )
    progress.history.append(row)
    return row, is_best


def _train_epoch(
    trainer: Trainer,
    progress: Progress,
    audit: SamplerAudit,
    notices: preemption.Notices,
) -> steps.Totals:
    """Trains on the remaining steps of an epoch; returns the totals of the whole epoch."""
    plan = trainer.planner.plan(progress.epoch)
    mixing = trainer.planner.partners(plan, progress.epoch)
    trainer.learner.loss.start_epoch(progress.epoch + 1)
    trainer.learner.meters.reset()
    if progress.meters is not None:
        trainer.learner.meters.restore(progress.meters)
    if progress.epoch_step < plan.steps:
        _train_steps(trainer, progress, plan, mixing, notices)
        saving.check_finite(trainer, progress)
    totals = trainer.learner.meters.read()
    audited = audit.add(plan)
    if mixing is None:  # the confusion matrix counts one image of a mixed pair, not both
        check_trained(audited, totals.confusion)
    return totals


def _train_steps(
    trainer: Trainer,
    progress: Progress,
    plan: samplers.EpochPlan,
    mixing: mixup.Mixing | None,
    notices: preemption.Notices,
) -> None:
    config = trainer.config
    batches = training_batches(trainer, plan, mixing, progress.epoch_step)
    loop = config.steps_per_loop or max(1, min(100, plan.steps // 20))
    title = f"epoch {progress.epoch + 1}/{config.epochs}"
    is_first = not trainer.train_steps.experimental_get_tracing_count()  # of this process
    if is_first:
        print("building the graph of the training step, which takes seconds to minutes", flush=True)
    started, first, before = time.monotonic(), progress.epoch_step, progress.epoch_seconds
    loops: list[tuple[int, float]] = []  # (steps done, seconds) after each host loop
    # disable=None: no bar where the output is not a terminal (a file, a pipe).
    with (
        StepProfile(trainer, progress) as profile,
        tqdm(
            total=plan.steps, initial=first, desc=title, unit="step", leave=False, disable=None
        ) as bar,
    ):
        while progress.epoch_step < plan.steps:
            count = min(loop, plan.steps - progress.epoch_step)
            if config.checkpoint_every:
                count = min(count, -progress.step % config.checkpoint_every or count)
            count = profile.before(count)
            trainer.train_steps(batches, tf.constant(count))
            progress.step += count
            progress.epoch_step += count
            totals = trainer.learner.meters.read()
            profile.after(count)
            progress.epoch_seconds = before + time.monotonic() - started
            loops.append((progress.epoch_step, time.monotonic() - started))
            lost_workers.beat(f"step {progress.step}")
            if totals.first_bad_step is not None:
                raise saving.explain_bad_step(trainer, progress, totals.first_bad_step)
            images = (progress.epoch_step - first) * config.batch_size
            speed = images / (time.monotonic() - started)
            bar.set_postfix_str(f"loss {totals.loss:.4f}, {speed:.0f} img/s", refresh=False)
            bar.update(count)
            if is_first and len(loops) == 2:
                _print_forecast(loops, plan.steps, config.epochs - progress.epoch)
            notices.check()
            due = config.checkpoint_every and progress.step % config.checkpoint_every == 0
            if due and progress.epoch_step < plan.steps:
                saving.save(trainer, progress)


def _print_forecast(loops: Sequence[tuple[int, float]], steps: int, epochs: int) -> None:
    """Prints how long all training steps take, if that is a minute or more.

    Args:
      loops: (steps done, seconds) after the first host loop, which built the graph, and after the
        second one.
      steps: of an epoch; epochs: still to train, with the current one.
    """
    (before, start), (after, end) = loops
    minutes = steps * (end - start) / (after - before) / 60
    if minutes * epochs >= 1:
        with tqdm.external_write_mode():  # in the middle of the epoch's bar
            print(
                f"about {_time(minutes)} an epoch, {_time(minutes * epochs)} in all, "
                "without validations",
                flush=True,
            )


def _time(minutes: float) -> str:
    return f"{minutes:.1f} minutes" if minutes >= 1 else f"{60 * minutes:.0f} seconds"


def _describe_position(progress: Progress) -> str:
    """`epoch 2 (32 steps)`, `step 40 (8 of epoch 3)`."""
    if progress.epoch_step:
        return f"step {progress.step} ({progress.epoch_step} of epoch {progress.epoch + 1})"
    return f"epoch {progress.epoch} ({progress.step} steps)"


def _describe_epoch(
    row: dict[str, Any], config: TrainConfig, progress: Progress, is_best: bool
) -> str:
    text = (
        f"epoch {row['epoch']:2d}/{config.epochs}: loss {row['loss']:.4f}, accuracy "
        f"{row['accuracy']:.3f} | validation loss {row['validation_loss']:.4f}, accuracy "
        f"{row['validation_accuracy']:.3f}, balanced {row['validation_balanced_accuracy']:.3f} | "
        f"{row['seconds']:.1f} s, {row['images_per_second']:.0f} img/s"
    )
    if is_best:
        text += " | best"
    goes_on = progress.epoch < config.epochs and not progress.stopped
    if goes_on and progress.learning_rate < row["learning_rate"]:  # not so with a schedule
        text += f" | learning rate to {progress.learning_rate:g}"
    return text


def _describe_end(progress: Progress, config: TrainConfig) -> str:
    reason = (
        f"stopped early: {config.stopping_patience} epochs without a better {config.monitor}"
        if progress.stopped
        else "all epochs done"
    )
    text = f"{reason}; restored the weights of the best epoch, {progress.best_epoch}"
    if progress.best_epoch == config.epochs and not why_epochs_are_fixed(config):
        text += f", which is the last: more epochs may do better (--epochs={2 * config.epochs})"
    return text
