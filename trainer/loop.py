"""The training loop: epochs of host loops, exact validation, checkpoints, resuming."""

from __future__ import annotations

import time
from typing import Any

import tensorflow as tf
from tqdm import tqdm

from cxr_tfrecords.errors import UserError
from trainer import evaluation, run_directory, sampler_audit, schedule, steps, strategies
from trainer.assembly import (
    Trainer,
    create_audit,
    estimate_moments,
    plan_epoch,
    plan_mixing,
    predict,
    training_batches,
)
from trainer.config import TrainConfig
from trainer.learning_rate import warmed_up
from trainer.progress import Progress


def train(trainer: Trainer) -> Progress:
    """Trains to the end, from the last checkpoint if there is one; leaves the best weights set.

    Raises:
      UserError: the loss stopped being finite, an epoch has no full batch, …
    """
    config = trainer.config
    progress = trainer.checkpoints.restore_latest() or Progress(
        learning_rate=config.scaled_learning_rate
    )
    steps.spread_seeds(trainer.strategy, trainer.model)
    if progress.epoch:
        print(f"resuming after epoch {progress.epoch} ({progress.step} steps)", flush=True)
    board = run_directory.TensorBoard(config.run_dir, progress.history) if trainer.chief else None
    audit = _start_audit(trainer, progress)
    while progress.epoch < config.epochs and not progress.stopped:
        row, is_best = _run_epoch(trainer, progress, audit)
        if trainer.chief and board is not None:
            # Best before epoch: a kill between them replays the epoch and loses nothing.
            if is_best:
                trainer.checkpoints.save_best(progress.epoch)
            trainer.checkpoints.save_epoch(progress)
            run_directory.write_history(config.run_dir, progress.history)
            run_directory.write_audit(config.run_dir, audit)
            board.add(row)
        print(_describe_epoch(row, config, progress, is_best), flush=True)
    strategies.wait_for_all(trainer.strategy)
    if progress.best_epoch:
        trainer.checkpoints.restore_best(progress.best_epoch)
    print(_describe_end(progress, config), flush=True)
    return progress


def _start_audit(trainer: Trainer, progress: Progress) -> sampler_audit.SamplerAudit:
    """The audit of the epochs done so far; prints what the next one will be."""
    config, audit = trainer.config, create_audit(trainer)
    audit.catch_up(progress.epoch)
    if audit.rows and trainer.chief:
        run_directory.write_audit(config.run_dir, audit)
    if progress.epoch < config.epochs and not progress.stopped:
        row = audit.measure(audit.plan(progress.epoch))
        print(f"audit: {sampler_audit.describe_epoch(audit.to_json(), row.to_json())}", flush=True)
    return audit


def _run_epoch(
    trainer: Trainer, progress: Progress, audit: sampler_audit.SamplerAudit
) -> tuple[dict[str, Any], bool]:
    """Trains and validates one epoch; returns its history row and whether it is the best."""
    config = trainer.config
    started = time.monotonic()
    learning_rate = progress.learning_rate
    schedule.set_learning_rate(trainer.optimizer, learning_rate)
    totals = _train_epoch(trainer, progress, audit)
    trained = time.monotonic()
    estimate_moments(trainer, progress.epoch)
    validation = predict(trainer, "validation", with_ids=False)
    metrics = evaluation.compute_metrics(validation, trainer.data.class_names)
    row = {
        "epoch": progress.epoch + 1,
        "step": progress.step,
        "learning_rate": warmed_up(learning_rate, progress.step, config.warmup_steps),
        "loss": totals.loss,
        "accuracy": totals.accuracy,
        "validation_loss": metrics["log_loss"],
        "validation_accuracy": metrics["accuracy"],
        "validation_balanced_accuracy": metrics["balanced_accuracy"],
        "seconds": round(time.monotonic() - started, 2),
        "images_per_second": round(totals.examples / (trained - started), 1),
    }
    is_best = progress.finish_epoch(
        row[config.monitor],
        maximize=config.monitor != "validation_loss",
        early_stopping_patience=config.early_stopping_patience,
        reduce_lr_patience=config.reduce_lr_patience,
        reduce_lr_factor=config.reduce_lr_factor,
    )
    progress.history.append(row)
    return row, is_best


def _train_epoch(
    trainer: Trainer, progress: Progress, audit: sampler_audit.SamplerAudit
) -> steps.Totals:
    config = trainer.config
    plan = plan_epoch(config, trainer.data, progress.epoch)
    mixing = plan_mixing(config, trainer.data, plan, progress.epoch)
    batches = training_batches(trainer, plan, mixing)
    trainer.loss.start_epoch(progress.epoch + 1)
    loop = config.steps_per_loop or max(1, min(100, plan.steps // 20))
    trainer.meters.reset()
    started, done = time.monotonic(), 0
    totals = trainer.meters.read()
    title = f"epoch {progress.epoch + 1}/{config.epochs}"
    # disable=None: no bar where nobody watches (a file, a pipe).
    with tqdm(total=plan.steps, desc=title, unit="step", leave=False, disable=None) as bar:
        while done < plan.steps:
            count = min(loop, plan.steps - done)
            trainer.train_steps(batches, tf.constant(count))
            done += count
            totals = trainer.meters.read()
            if totals.first_bad_step is not None:
                raise UserError(
                    f"the loss was not finite at step {totals.first_bad_step} (epoch "
                    f"{progress.epoch + 1}); nothing of this epoch is kept. Try a lower "
                    f"--learning_rate than {progress.learning_rate:g} in another --run_dir"
                )
            speed = done * config.batch_size / (time.monotonic() - started)
            bar.set_postfix_str(f"loss {totals.loss:.4f}, {speed:.0f} img/s", refresh=False)
            bar.update(count)
    audited = audit.add(plan)
    if mixing is None:  # of mixed images, the confusion matrix counts the one that weighs more
        sampler_audit.check_trained(audited, totals.confusion)
    progress.step += plan.steps
    return totals


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
    if progress.learning_rate < row["learning_rate"]:  # above it while it warms up
        text += f" | learning rate to {progress.learning_rate:g}"
    return text


def _describe_end(progress: Progress, config: TrainConfig) -> str:
    reason = (
        f"stopped early: {config.early_stopping_patience} epochs without a better {config.monitor}"
        if progress.stopped
        else "all epochs done"
    )
    return f"{reason}; weights of epoch {progress.best_epoch}, the best, restored"
