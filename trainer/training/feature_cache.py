"""What a frozen backbone makes of each image, computed once and kept: `--cache=features`.

With --trainable=head the backbone is a fixed function of an image: its BatchNormalization uses the
statistics of its weights file and nothing in it is dropped. So its pooled output for every image,
and for every mirror image where training mirrors, is computed once at the start of a process, by
all replicas together, and the steps train what follows on these features. Samplers, losses and
evaluation are what they are on images; results differ by the rounding of sums.
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
from trainer.training import steps

_MIB = 2**20


def wanted(config: TrainConfig, data: DatasetDir, model: keras.Model) -> bool:
    """Whether the run trains on features: `auto` does where they never change and fit."""
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
    """All splits, ready to be read, and a line printed about each.

    Args:
      backbone_of: the classifier whose features take the place of images; None: images.

    Raises:
      UserError: a shard is damaged or not what the metadata say.
    """
    sources = {}
    cache = "none" if backbone_of else config.cache
    extract = _make_extract(strategy, backbone_of) if backbone_of else None
    for split in data.counts:
        source = SplitSource(data, split, cache=cache, cache_mb=config.cache_mb)
        if extract:
            mirrored = config.flip and split == "train"
            batches = distributed_evaluation(source, strategy, batch_size=config.batch_size)
            source = _with_features(source, extract, batches, data.counts[split], mirrored)
        print(source.description, flush=True)
        sources[split] = source
    return sources


def _make_extract(
    strategy: tf.distribute.Strategy, model: keras.Model
) -> Callable[[tuple, bool], tuple]:
    """Returns `extract(batch, mirrored)`: as `steps.make_predict_step`, with features for logits;
    float32 [B, F], or [B, 2F] with those of the mirror images after them."""
    with strategy.scope():
        network = features_model(model)
        # Decides in the graph: a second one for mirrored images would take seconds to trace.
        mirror = tf.Variable(0.0, trainable=False)

    def look(images: tf.Tensor, training: bool) -> tf.Tensor:
        seen = tf.cond(mirror > 0.0, lambda: tf.reverse(images, axis=[2]), lambda: images)
        return tf.cast(network(seen, training=training), tf.float32)

    predict = steps.make_predict_step(strategy, look)

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
) -> SplitSource:
    started = time.monotonic()

    def answers() -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        # disable=None: no bar where nobody watches (a file, a pipe).
        title = f"features {source.split}"
        with tqdm(total=sum(counts), desc=title, unit="image", leave=False, disable=None) as bar:
            for batch in batches:
                features, labels, index = extract(batch, mirrored)
                lost_workers.beat(f"a batch of features of {source.split}")
                bar.update(len(features))
                yield features.numpy(), labels.numpy(), index.numpy()

    features = collect(answers(), counts)
    rows = np.concatenate(np.split(features, 2, axis=1)) if mirrored else features
    featured = source.with_features(rows)
    featured.description = (
        f"{source.split}: features of {sum(counts):,} images"
        f"{' and their mirror images' if mirrored else ''} computed once and kept in memory "
        f"({_mib(*rows.shape):,.1f} MiB, {time.monotonic() - started:.1f} s)"
    )
    return featured


def _mib(rows: int, width: int) -> float:
    return rows * width * 4 / _MIB
