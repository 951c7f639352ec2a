"""A whole run: open its directory, train, evaluate exactly, write the results and show them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import keras
import tensorflow as tf

from cxr_tfrecords.concurrency import locks
from cxr_tfrecords.dataset_dir import DatasetDir
from cxr_tfrecords.pages import class_lists
from cxr_tfrecords.pages.class_lists import few
from trainer.distribution import strategies
from trainer.evaluation.predictions import Predictions, compute_metrics, write_predictions
from trainer.input import split_batches
from trainer.models.network_parts import network_parts
from trainer.runs import (
    file_hashes,
    initial_run,
    remote_run,
    report,
    report_pictures,
    run_directory,
    run_files,
    same_run,
)
from trainer.runs.finished_run import check_results, read_metrics
from trainer.settings import balance_summary, chosen_classes, image_size
from trainer.settings.config import TrainConfig
from trainer.training import loop
from trainer.training.learner import Trainer, create_planner, create_trainer
from trainer.training.passes import predict_split


def run(
    config: TrainConfig, data: DatasetDir, strategy: tf.distribute.Strategy
) -> dict[str, dict[str, Any]]:
    """Trains and evaluates into `config.run_dir`; continues a run that is there, also a finished
    one with fewer epochs.

    Returns:
      The content of metrics.json: `validation` and `test`, see `predictions.compute_metrics`.

    Raises:
      UserError: the message says what to do; finished epochs are kept.
      TemporaryError: another process trains into the directory, or the run was interrupted.
    """
    data = config.shown(data)
    # Only the chief writes. A finished run is only read, perhaps from a disk without write access.
    writes = strategies.is_chief(strategy) and not same_run.has_nothing_to_train(config)
    lock = locks.held(config.run_dir, f"--run_dir={config.run_dir}") if writes else nullcontext()
    with run_directory.explained_failures(config), split_batches.explained_reads(data), lock:
        same_run.check_same_run(config, data)
        # Asked again, because another process may have ended before the lock was free.
        if same_run.has_nothing_to_train(config):
            check_results(config.run_dir)  # a history.csv that was cut is not one that ended early
            early = same_run.stopped_early(config.run_dir)
            reason = ", because it stopped early" if early else ""
            address = remote_run.address_of(config.run_dir)
            print(f"{address} is finished: nothing to train{reason}", flush=True)
        else:
            _train_and_evaluate(config, data, strategy)
        if not strategies.is_chief(strategy):
            return {}
        metrics = read_metrics(config.run_dir, list(data.class_names))
    print(describe_results(remote_run.address_of(config.run_dir), metrics), flush=True)
    return metrics


def _train_and_evaluate(
    config: TrainConfig, data: DatasetDir, strategy: tf.distribute.Strategy
) -> None:
    """The stages of a run in their order. All workers call it; only the chief writes files."""
    # Show what the first epoch contains, before anything slow begins.
    planner = create_planner(config, data)
    samples = planner.count_samples()
    print(_describe_data(config, data, samples), flush=True)
    last = planner.planned_counts(config.epochs - 1).tolist()  # class shares may change by epoch
    warning = balance_summary.double_balancing(config, samples["natural"], last)
    for text in filter(None, (warning, initial_run.other_data(config))):
        print(f"warning: {text}", flush=True)

    # Model, optimizer, data and compiled steps. The run directory is written once they fit.
    trainer = create_trainer(config, data, strategy)
    print(_describe_model(trainer), flush=True)
    if trainer.is_chief:
        run_directory.reopen(config.run_dir)
        run_directory.start_run(config, data, samples)

    # Train all epochs, or those after the latest checkpoint; ends with the best weights.
    loop.train(trainer)

    # Predict every image of validation and test exactly once.
    predictions = {split: predict_split(trainer, split) for split in run_files.SPLITS}
    if trainer.is_chief:
        write_results(config.run_dir, predictions, trainer.learner.model, data.class_names)


def write_results(
    run_dir: str,
    predictions: Mapping[str, Predictions],
    model: keras.Model,
    class_names: Sequence[str],
) -> None:
    """Writes predictions, model, metrics, pictures and report, in that order."""
    metrics = {}
    for split, of_split in predictions.items():
        metrics[split] = compute_metrics(of_split, class_names)
        write_predictions(run_files.predictions_path(run_dir, split), of_split, class_names)
    run_directory.save_model(run_dir, model)
    parts = {"parts": network_parts(model)}
    run_directory.write_json(os.path.join(run_dir, run_files.NETWORK), parts)
    run_directory.write_json(os.path.join(run_dir, run_files.METRICS), metrics)
    file_hashes.write(run_dir)
    report_pictures.write_pictures(run_dir)
    report.write_report(run_dir)


def _describe_data(config: TrainConfig, data: DatasetDir, samples: Mapping[str, list[int]]) -> str:
    splits = ", ".join(f"{split} {data.num_examples(split):,}" for split in data.counts)
    steps = sum(samples["realised"]) // config.batch_size
    changes = few(
        f"{name} {before:,}" + (f" → {after:,}" if after != before else "")
        for name, before, after in zip(
            data.class_names, samples["natural"], samples["planned"], strict=True
        )
    )
    chosen = chosen_classes.describe(config.classes, config.map_classes)
    size = image_size.describe(data.image_size, config.image_size)
    fold = "" if data.fold is None else f"test fold {data.fold} of {data.folds}; "
    return (
        f"data: {data.path}, {size}, {'gray' if data.channels == 1 else 'RGB'}; "
        f"{f'{chosen}; ' if chosen else ''}{fold}{splits} images\n"
        f"sampler {config.sampler}: {changes}; "
        f"{steps:,} step{'s' if steps != 1 else ''} of {config.batch_size} an epoch\n"
        f"loss {balance_summary.describe_loss(config)}"
    )


def _describe_model(trainer: Trainer) -> str:
    config = trainer.config
    trained = sum(v.shape.num_elements() or 1 for v in trainer.learner.model.trainable_variables)
    return (
        f"model: {config.backbone}, {initial_run.describe(config, trainer.data.class_names)}, "
        f"{trained:,} trained parameters, "
        f"BatchNormalization {config.batch_norm}, on {strategies.describe(trainer.strategy)}; "
        f"into {remote_run.address_of(config.run_dir)}"
    )


def describe_results(run_dir: str, metrics: Mapping[str, Mapping[str, Any]]) -> str:
    """A table of the main metrics, and where to find all results."""
    per_class = metrics["test"]["per_class"]
    of_all = list(per_class)
    shown = class_lists.shown_classes([per_class[name]["support"] for name in of_all])
    names = [of_all[label] for label in shown]
    width = max(map(len, [*names, "balanced accuracy"])) + 8
    lines = ["", f"{'':{width}}" + "".join(f"{split:>12}" for split in metrics)]
    for key in ("accuracy", "balanced_accuracy"):
        values = "".join(_percent(m[key]) for m in metrics.values())
        lines.append(f"{key.replace('_', ' '):{width}}{values}")
    for name in names:
        values = "".join(_percent(m["per_class"][name]["recall"]) for m in metrics.values())
        lines.append(f"{'recall ' + name:{width}}{values}")
    lines += filter(None, [class_lists.left_out(len(of_all), run_files.METRICS)])
    lines += ["", f"{run_dir}/report.md has all results; the model is {run_dir}/model.keras"]
    return "\n".join(lines)


def _percent(value: float | None) -> str:
    """A cell of the table; a dash where a metric is undefined, as without images of a class."""
    return f"{'–':>12}" if value is None else f"{value:12.1%}"
