"""Features of a frozen backbone, computed once for each image and kept: `--cache=features`.

With --trainable=head the backbone is a fixed function of an image: its BatchNormalization uses the
statistics of its weights file, and it applies no dropout. All replicas together compute its pooled
output once at the start of a process, for every image and, with --flip, for every mirror image of
the training split; other runs can take them over, see `feature_files`. The steps then train the
layers after the backbone on these features. Samplers, losses and evaluation are the same as on
images; results differ only by the rounding of sums.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from cxr_tfrecords.dataset_dir import DatasetDir
from trainer.distribution import lost_workers
from trainer.evaluation.predictions import collect
from trainer.input.split_batches import SplitSource, distributed_evaluation
from trainer.models.classifier import features_model
from trainer.settings.config import TrainConfig
from trainer.training import feature_files, steps

_MIB = 2**20


def wanted(config: TrainConfig, data: DatasetDir, model: keras.Model) -> bool:
    """Whether the run trains on features. `auto`: if they are fixed and fit in `cache_mb`."""
    if config.cache != "auto" or not config.has_fixed_features:
        return config.cache == "features"
    width = features_model(model).output.shape[-1]
    return _mib(data.num_examples("train") * (1 + config.flip), width) <= config.cache_mb


def open_sources(
    config: TrainConfig,
    data: DatasetDir,
    strategy: tf.distribute.Strategy,
    backbone_of: keras.Model | None,
) -> dict[str, SplitSource]:
    """Opens every split for reading and prints a line about each.

    Args:
      backbone_of: the classifier whose backbone's features replace the images; None: the sources
        give images.

    Raises:
      UserError: a shard is damaged or does not match the metadata.
    """
    sources = {}
    cache = "none" if backbone_of else config.cache
    network = features_model(backbone_of) if backbone_of else None
    extract = _make_extract(strategy, network) if network else None
    for split in data.counts:
        source = SplitSource(data, split, cache=cache, cache_mb=config.cache_mb)
        if extract:
            mirrored = config.flip and split == "train"
            batches = distributed_evaluation(source, strategy, batch_size=config.batch_size)
            path = feature_files.path_of(config, data, split, network, strategy)
            source = _with_features(source, extract, batches, data.counts[split], mirrored, path)
        print(source.description, flush=True)
        sources[split] = source
    return sources


def _make_extract(
    strategy: tf.distribute.Strategy, network: keras.Model
) -> Callable[[tuple, bool], tuple]:
    """Returns `extract(batch, mirrored)`: a predict step that gives features in place of logits,
    float32 [B, F], or [B, 2F] with the features of the mirror images in the second half."""
    with strategy.scope():
        # A variable, so that one graph serves both: tracing a second one would take seconds.
        mirror = tf.Variable(0.0, trainable=False)

    def features_of(images: tf.Tensor, training: bool) -> tf.Tensor:
        inputs = tf.cond(mirror > 0.0, lambda: tf.reverse(images, axis=[2]), lambda: images)
        return tf.cast(network(inputs, training=training), tf.float32)

    predict = steps.make_predict_step(strategy, features_of)

    def extract(batch: tuple, mirrored: bool) -> tuple:
        mirror.assign(0.0)
        features, labels, index = predict(batch)
        if mirrored:
            mirror.assign(1.0)
            features = tf.concat([features, predict(batch)[0]], axis=1)
        return features, labels, index

    return extract


def _with_features(
    source: SplitSource,
    extract: Callable[[tuple, bool], tuple],
    batches: Iterator,
    counts: Sequence[int],
    mirrored: bool,
    path: str,
) -> SplitSource:
    started = time.monotonic()

    def compute_batches() -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        # disable=None: no bar where the output is not a terminal (a file, a pipe).
        title = f"features {source.split}"
        with tqdm(total=sum(counts), desc=title, unit="image", leave=False, disable=None) as bar:
            for batch in batches:
                features, labels, index = extract(batch, mirrored)
                lost_workers.beat(f"a batch of features of {source.split}")
                bar.update(len(features))
                yield features.numpy(), labels.numpy(), index.numpy()

    def compute() -> np.ndarray:
        features = collect(compute_batches(), counts)
        return np.concatenate(np.split(features, 2, axis=1)) if mirrored else features

    rows, was_read = feature_files.read_or_compute(path, sum(counts) * (1 + mirrored), compute)
    featured = source.with_features(rows)
    featured.description = (
        f"{source.split}: features of {sum(counts):,} images"
        f"{' and their mirror images' if mirrored else ''} "
        f"{f'read from {path}' if was_read else 'computed once and kept in memory'} "
        f"({_mib(*rows.shape):,.1f} MiB, {time.monotonic() - started:.1f} s)"
    )
    return featured


def _mib(rows: int, width: int) -> float:
    return rows * width * 4 / _MIB
