"""Small tensors and a small training on them, for tests of the parts below the loop.

Run as a command it trains on virtual devices, whose number a process cannot change once
TensorFlow runs: `python -m tests.trainer.toy NUM_REPLICAS [SETTINGS]` prints `train_toy`'s outcome
as JSON; with a run's config in the place of its settings, it does that run.
"""

from __future__ import annotations

import json
import sys

import numpy as np

from tests.trainer import processes

NUM_CLASSES = 4
BATCH = 16


def images_and_labels(count: int, size: int = 32, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """uint8 [count, size, size, 1] with a bright quarter that tells the int32 [count] class."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, NUM_CLASSES, count).astype(np.int32)
    images = rng.integers(0, 150, (count, size, size, 1)).astype(np.uint8)
    half = size // 2
    for image, label in zip(images, labels, strict=True):
        row, column = divmod(int(label), 2)
        image[row * half : (row + 1) * half, column * half : (column + 1) * half] += 60
    return images, labels


def distributed(strategy, *arrays, batch: int = BATCH):
    """Arrays as a distributed data set, in order, without the last part of a batch."""
    import tensorflow as tf

    per_replica = batch // strategy.num_replicas_in_sync
    dataset = tf.data.Dataset.from_tensor_slices(arrays).batch(per_replica, drop_remainder=True)
    return strategy.distribute_datasets_from_function(lambda context: dataset)


def train_toy(
    strategy,
    *,
    momentum: float = 0.9,
    policy: str = "adapt",
    epochs: int = 3,
    synchronized: bool = True,
) -> dict:
    """Trains `tiny` on 96 toy images and evaluates those, in both modes."""
    import tensorflow as tf

    from trainer.evaluation.predictions import Predictions, collect, labels_in_order
    from trainer.models import batch_norm, classifier
    from trainer.training import steps

    images, labels = images_and_labels(96)
    with strategy.scope():
        network = classifier.create_model(
            "tiny", image_size=32, channels=1, num_classes=NUM_CLASSES
        )
        for layer in batch_norm.find_layers(network):
            layer.momentum = momentum
        batch_norm.apply_policy(
            network, policy, strategy.num_replicas_in_sync, synchronized=synchronized
        )
        optimizer = steps.create_optimizer("sgd", 0.02, network)
        meters = steps.Meters(NUM_CLASSES)
    train_steps = steps.make_train_steps(strategy, network, optimizer, meters, BATCH)
    losses = []
    for _ in range(epochs):
        meters.reset()
        train_steps(iter(distributed(strategy, images, labels)), tf.constant(6))
        losses.append(meters.read().loss)
    trained = _statistics(network)
    batch_norm.average_statistics(strategy, network)
    averaged = _statistics(network)
    if policy == "adapt":
        moments = batch_norm.MomentEstimator(strategy, network)
        moments.estimate(iter(distributed(strategy, images, labels)), 6)

    # Three padded rows at the end, in batches of 16: 93 real ones.
    order = np.argsort(labels[:93], kind="stable")
    index = np.full(96, -1, np.int32)
    index[:93][order] = np.arange(93)
    counts = np.bincount(labels[:93], minlength=NUM_CLASSES).tolist()
    predict_batch = steps.make_predict_step(strategy, network)
    answers = (
        [tensor.numpy() for tensor in predict_batch(batch)]
        for batch in distributed(strategy, images, labels, index)
    )
    logits = collect(answers, counts)
    predictions = Predictions([""] * 93, labels_in_order(counts), logits)
    training_mode = [
        steps.cross_entropy(labels[i : i + BATCH], network(images[i : i + BATCH], training=True))
        for i in range(0, 96, BATCH)
    ]
    return {
        "losses": losses,
        "confusion": meters.read().confusion.tolist(),
        "logits": predictions.logits.tolist(),
        "evaluation_loss": predictions.loss,
        "training_mode_loss": float(np.mean(training_mode)),
        "spread_over_replicas": _spread(_statistics(network)),
        "spread_when_trained": _spread(trained),
        "spread_when_averaged": _spread(averaged),
        "off_the_mean_when_averaged": max(
            float(np.abs(after[0] - before.mean(0)).max())
            for before, after in zip(trained, averaged, strict=True)
        ),
    }


def _statistics(network) -> list[np.ndarray]:
    """[replicas, channels] of every moving mean and variance."""
    from trainer.models import batch_norm

    return [
        np.stack([copy.numpy() for copy in getattr(variable.value, "values", [variable.value])])
        for layer in batch_norm.find_layers(network)
        for variable in (layer.moving_mean, layer.moving_variance)
    ]


def _spread(statistics: list[np.ndarray]) -> float:
    return float(max(np.ptp(copies, axis=0).max() for copies in statistics))


def train_toy_replicated(num_replicas: int, **settings) -> dict:
    """`train_toy` on so many virtual devices, in a process of its own."""
    return json.loads(_run_toy(str(num_replicas), json.dumps(settings)).splitlines()[-1])


def run_replicated(config, num_replicas: int) -> None:
    """`run.run` on so many virtual devices, in a process of its own."""
    _run_toy(str(num_replicas), json.dumps(config.to_json()))


def _run_toy(*arguments: str) -> str:
    result = processes.run("tests.trainer.toy", *arguments)
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


if __name__ == "__main__":
    from cxr_tfrecords.console.quiet import quiet_tensorflow

    quiet_tensorflow()
    from cxr_tfrecords import dataset_dir
    from trainer.distribution import strategies
    from trainer.settings.config import TrainConfig
    from trainer.training.run import run

    mirrored = strategies.create_strategy("mirrored", virtual_devices=int(sys.argv[1]))
    given = json.loads(sys.argv[2]) if len(sys.argv) > 2 else {}
    if "data_dir" in given:
        run_config = TrainConfig.from_json(given)
        run(run_config, dataset_dir.load(run_config.data_dir), mirrored)
    else:
        print(json.dumps(train_toy(mirrored, **given)))
