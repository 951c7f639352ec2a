"""A second stage for a finished run: another output layer on the same features.

Kang et al., Decoupling Representation and Classifier for Long-Tailed Recognition, ICLR 2020:

    crt       a new output layer is trained on class-balanced samples, with all layers before it
              frozen (section 4.2, "classifier re-training")
    tau_norm  the weights of class c become w_c / ||w_c||^tau, the bias is dropped as in the paper
              (section 4.2, equation 4); nothing is trained

and, of the same kind, Menon et al., Long-Tail Learning via Logit Adjustment, ICLR 2021:

    posthoc_logit_adjusted
              tau times the log of each class's share in training is subtracted from its bias
              (section 4.1, equation 9); nothing is trained

Features are computed once, in inference mode (moving BatchNormalization statistics, no dropout,
no flips), and kept in memory. So `crt` takes seconds, but sees no augmented images. The paper
computes features again in every epoch and uses a cosine schedule of the learning rate; here the
rate is constant, and the epoch with the best validation balanced accuracy is kept.
"""

from __future__ import annotations

import dataclasses
import os
import time
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from cxr_tfrecords import files
from cxr_tfrecords.concurrency import locks
from cxr_tfrecords.dataset_dir import DatasetDir
from cxr_tfrecords.errors import UserError
from trainer.balancing import class_weights
from trainer.evaluation.predictions import Predictions, compute_metrics
from trainer.input import shard_reading, split_batches
from trainer.models.classifier import LOGITS
from trainer.runs import remote_run, run_directory, run_files, same_run
from trainer.runs.finished_run import FinishedRun, read_kept_run
from trainer.runs.run_data import find_data
from trainer.runs.run_files import SPLITS
from trainer.runs.training_priors import training_priors
from trainer.settings.config import AUGMENTATIONS, TrainConfig
from trainer.training import output_layer
from trainer.training.learner import create_planner
from trainer.training.run import write_results

METHODS = ("crt", "tau_norm", "posthoc_logit_adjusted")
# Kang et al. search in (0, 1); here both ends are included.
TAUS = tuple(step / 20 for step in range(21))
_BATCH = 64


@dataclasses.dataclass(frozen=True)
class _Source:
    """A finished run with its data set, model and predictions."""

    run: FinishedRun
    data: DatasetDir
    model: keras.Model
    predictions: dict[str, Predictions]

    @property
    def head(self) -> keras.layers.Dense:
        return self.model.get_layer(LOGITS)


def decouple(
    from_run: str,
    run_dir: str,
    method: str,
    *,
    tau: float | None = None,
    epochs: int = 10,
    learning_rate: float = 0.01,
    data_dir: str = "",
) -> dict[str, dict[str, Any]]:
    """Writes the run directory of a finished run with another output layer.

    Args:
      from_run: directory of the finished run, which is not changed.
      run_dir: new directory; it gets the same files as a run of `trainer.main`.
      method: one of `METHODS`.
      tau: for `tau_norm`; None: the one of `TAUS` with the best balanced accuracy on validation.
        For `posthoc_logit_adjusted`; None: 1, which is consistent for the balanced error.
      epochs, learning_rate: for `crt`, which keeps the optimizer and batch size of the run.
      data_dir: the run's data set, if it was moved.

    Returns:
      The content of metrics.json.

    Raises:
      UserError: `from_run` is not finished or has no plain output layer, the data set is not the
        one it was trained on, `run_dir` holds another run, or a setting is out of range.
      TemporaryError: another process writes `run_dir`.
    """
    if method not in METHODS:
        raise UserError(f"--method={method} is not one of {', '.join(METHODS)}")
    if tau is not None and not 0 <= tau < float("inf"):
        raise UserError(f"--tau={tau} must be a finite number of 0 or more")
    with remote_run.opened(run_dir, lambda folder: True) as folder:
        same_run.check_decoupled_run(folder)
        source = _open_run(from_run, data_dir)
        config = dataclasses.replace(source.run.config, run_dir=folder, data_dir=source.data.path)
        origin: dict[str, Any] = {
            "method": method,
            "from_run": remote_run.address_of(os.path.abspath(source.run.path)),
            "from_config": source.run.config.to_json(),
            "model_sha256": same_run.hash_file(os.path.join(source.run.path, run_files.MODEL)),
        }
        with (
            run_directory.explained_failures(config),
            split_batches.explained_reads(source.data),
            locks.held(folder, f"--run_dir={folder}"),
        ):
            same_run.check_decoupled_run(folder)  # another process may have finished it meanwhile
            if method == "tau_norm":
                return _normalise(source, config, origin, tau)
            if method == "posthoc_logit_adjusted":
                return _adjust(source, config, origin, 1.0 if tau is None else tau)
            config = _second_stage(config, source.data, epochs, learning_rate)
            return _retrain(source, config, origin)


def normalise_weights(kernel: np.ndarray, tau: float) -> np.ndarray:
    """float [features, classes], w_c / ||w_c||^tau (Kang et al. 2020, equation 4)."""
    lengths = np.linalg.norm(kernel, axis=0)
    return kernel / np.maximum(lengths, np.finfo(np.float32).tiny) ** tau


def choose_tau(features: np.ndarray, labels: np.ndarray, kernel: np.ndarray) -> dict[float, float]:
    """tau -> balanced accuracy (mean recall), for each of `TAUS`; of equal ones, use the first.

    Args:
      features: float32 [n, features]; labels: int32 [n]; kernel: float32 [features, classes].
    """
    names = [str(c) for c in range(kernel.shape[1])]
    scores = {}
    for tau in TAUS:
        logits = features @ normalise_weights(kernel, tau)
        predictions = Predictions([""] * len(labels), labels, logits)
        scores[tau] = compute_metrics(predictions, names)["balanced_accuracy"]
    return scores


def _open_run(from_run: str, data_dir: str) -> _Source:
    run = read_kept_run(from_run, "from_run")
    data = find_data(run, data_dir)
    model = run_directory.load_model(run.path, len(run.class_names))
    predictions = {split: run.predictions(split) for split in SPLITS}
    source = _Source(run, data, model, predictions)
    if not isinstance(source.head, keras.layers.Dense):
        raise UserError(
            f"--from_run={from_run} has --loss={run.config.loss}, whose output layer has weights "
            "of length 1 and no bias already: choose a run with another loss"
        )
    return source


def _compute_features(source: _Source, split: str) -> np.ndarray:
    """Inputs of the output layer, float32 [n, features], in the split's canonical order."""
    model = keras.Model(source.model.input, source.head.input)
    forward = tf.function(lambda images: tf.cast(model(images, training=False), tf.float32))
    started = time.monotonic()
    parts = []
    for batch in shard_reading.parsed_records(source.data, split).batch(_BATCH).prefetch(2):
        parts.append(forward(batch["image"]).numpy())
    features = np.concatenate(parts)
    print(
        f"{split}: features of {len(features):,} images, {features.shape[1]:,} each, in "
        f"{time.monotonic() - started:.1f} s",
        flush=True,
    )
    return features


def _normalise(
    source: _Source, config: TrainConfig, origin: dict[str, Any], tau: float | None
) -> dict[str, dict[str, Any]]:
    features = {split: _compute_features(source, split) for split in SPLITS}
    kernel = source.head.kernel.numpy()
    origin |= {"tau": tau, "tau_from": "given", "flags": {"tau": tau}}
    if tau is None:
        scores = choose_tau(features["validation"], source.predictions["validation"].labels, kernel)
        tau = max(scores, key=lambda value: scores[value])
        origin |= {
            "tau": tau,
            "tau_from": "the best balanced accuracy on validation",
            "tau_scores": [[value, score] for value, score in scores.items()],
            "flags": {},
        }
        print(f"tau {tau:g}: validation balanced accuracy {scores[tau]:.3f}", flush=True)
    run_directory.start_run(config, source.data, source.run.samples, origin)
    run_directory.write_history(config.run_dir, source.run.history)
    kernel, bias = normalise_weights(kernel, tau), np.zeros(kernel.shape[1], np.float32)
    return _finish(source, config, _predict(source, features, kernel, bias), kernel, bias)


def _adjust(
    source: _Source, config: TrainConfig, origin: dict[str, Any], tau: float
) -> dict[str, dict[str, Any]]:
    priors = training_priors(source.run)
    origin |= {"tau": tau, "priors": priors.tolist(), "flags": {"tau": tau}}
    kernel, bias = source.head.get_weights()
    predictions = {
        split: dataclasses.replace(
            given, logits=class_weights.adjust_logits(given.logits, priors, tau).astype(np.float32)
        )
        for split, given in source.predictions.items()
    }
    run_directory.start_run(config, source.data, source.run.samples, origin)
    run_directory.write_history(config.run_dir, source.run.history)
    bias = class_weights.adjust_logits(bias, priors, tau)
    return _finish(source, config, predictions, kernel, bias)


def _second_stage(
    config: TrainConfig, data: DatasetDir, epochs: int, learning_rate: float
) -> TrainConfig:
    """The settings that describe what `crt` does; `from_config` keeps those of the first stage."""
    unchanged: dict[str, Any] = {**dict.fromkeys(AUGMENTATIONS, 0.0), "augment_strength": ()}
    unchanged |= {"first_layer_lr_factor": 1.0, "lr_schedule": "plateau", "warmup_steps": 0}
    return dataclasses.replace(
        config,
        sampler="weighted",
        target_distribution=(),
        resample_each_epoch=False,
        flip=False,
        **unchanged,
        loss="cross_entropy",
        mixup="plain",
        mixup_alpha=0.0,
        trainable="head",
        batch_norm="frozen",
        dropout=0.0,
        batch_size=min(config.batch_size, data.num_examples("train")),
        epochs=epochs,
        learning_rate=learning_rate,
        early_stopping_patience=0,
        reduce_lr_patience=0,
        monitor=output_layer.MONITOR,
    )


def _retrain(
    source: _Source, config: TrainConfig, origin: dict[str, Any]
) -> dict[str, dict[str, Any]]:
    samples = create_planner(config, source.data).count_samples()
    features = {split: _compute_features(source, split) for split in ("train", *SPLITS)}
    labels = source.predictions["validation"].labels
    kernel, bias, history = output_layer.train(
        features["train"], (features["validation"], labels), config, source.data
    )
    origin |= {
        "flags": {"epochs": config.epochs, "learning_rate": config.learning_rate},
        # The history is the second stage's alone.
        "first_stage_updates": int(source.run.history[-1]["step"]),
    }
    run_directory.start_run(config, source.data, samples, origin)
    run_directory.write_history(config.run_dir, history)
    return _finish(source, config, _predict(source, features, kernel, bias), kernel, bias)


def _finish(
    source: _Source,
    config: TrainConfig,
    predictions: dict[str, Predictions],
    kernel: np.ndarray,
    bias: np.ndarray,
) -> dict[str, dict[str, Any]]:
    """Puts the output layer into the model and writes the results."""
    source.head.set_weights([kernel, bias])
    write_results(config.run_dir, predictions, source.model, source.data.class_names)
    return files.read_named_json(os.path.join(config.run_dir, run_files.METRICS))


def _predict(
    source: _Source, features: dict[str, np.ndarray], kernel: np.ndarray, bias: np.ndarray
) -> dict[str, Predictions]:
    """Predictions of an output layer. Ids and true classes are those of the run, which has the same
    data in the same order."""
    return {
        split: dataclasses.replace(
            source.predictions[split],
            logits=np.asarray(features[split] @ kernel + bias, np.float32),
        )
        for split in SPLITS
    }
