"""What `benchmarks.training` times inside a process: our loop, a plain step, Keras' `fit`.

Every system has a process of its own, because what `--strategy=cpu` switches on for all of
TensorFlow, determinism, is ours alone.
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from cxr_tfrecords import dataset_dir
from trainer.distribution import preemption, strategies
from trainer.input import split_batches
from trainer.runs.progress import Progress
from trainer.settings.config import TrainConfig
from trainer.training import loop, losses, steps, trace_file
from trainer.training.learner import Trainer, create_learner, create_planner, create_trainer
from trainer.training.passes import training_batches

Answer = dict[str, Any]
VERSIONS = {"tensorflow": tf.__version__, "keras": keras.__version__}


class Loop:
    """An epoch of `trainer.main`, without its validation and checkpoint."""

    def __init__(self, config: TrainConfig) -> None:
        strategy = strategies.create_strategy(config.strategy)
        data = dataset_dir.load(config.data_dir)
        self._trainer = create_trainer(config, data, strategy)
        steps.spread_seeds(strategy, self._trainer.learner.model)
        self._notices = preemption.Notices(strategy)
        self._train_batch = self._make_train_batch()

    def measure(
        self, steps: int, steps_per_loop: int = 0, waiting: bool = False, traced: bool = False
    ) -> Answer:
        """An epoch of so many steps, from planning it to reading its totals.

        Args:
          steps_per_loop: 0: as chosen for an epoch of so many steps.
          waiting: instead train in single steps and return what share of their time the host
            waits for a batch.
          traced: instead return the share of waiting for images in a trace, see
            `trace_file.measure_shares`.
        """
        config = dataclasses.replace(
            self._trainer.config, steps_per_epoch=steps, steps_per_loop=steps_per_loop
        )
        trainer = dataclasses.replace(self._trainer, config=config)
        if waiting:
            return {"share": self._waiting(trainer, steps)}
        if traced:
            with tempfile.TemporaryDirectory() as folder:
                with trace_file.session(folder), trace_file.host_loop(0):
                    self._train_epoch(trainer)
                return {"share": trace_file.measure_shares(folder).input}
        started = time.monotonic()
        totals = self._train_epoch(trainer)
        return {"images": totals.examples, "seconds": time.monotonic() - started}

    def _train_epoch(self, trainer: Trainer) -> steps.Totals:
        progress = Progress(learning_rate=trainer.config.scaled_learning_rate)
        return loop._train_epoch(trainer, progress, loop._create_audit(trainer), self._notices)

    def _waiting(self, trainer: Trainer, steps: int) -> float:
        """Share of the time that passes in `next(batches)`, the start of the epoch included."""
        waited, started = 0.0, time.monotonic()
        batches = training_batches(trainer, trainer.planner.plan(0))
        for _ in range(steps):
            asked = time.monotonic()
            batch = next(batches)
            waited += time.monotonic() - asked
            self._train_batch(batch)
        return waited / (time.monotonic() - started)

    def _make_train_batch(self) -> Callable:
        trainer = self._trainer
        replica_step = steps.make_replica_step(
            trainer.learner.model,
            trainer.learner.optimizer,
            trainer.learner.meters,
            trainer.config.batch_size,
            trainer.learner.loss,
        )
        return tf.function(lambda batch: trainer.strategy.run(replica_step, args=batch))


class Bare:
    """The step as a tutorial writes it, called from Python on one batch that lies in memory."""

    def __init__(self, config: TrainConfig) -> None:
        data = dataset_dir.load(config.data_dir)
        learner = create_learner(config, data, tf.distribute.get_strategy(), 1)
        model, optimizer = learner.model, learner.optimizer
        self.parameters = sum(v.shape.num_elements() or 1 for v in model.trainable_variables)
        batches = _source(config).training(
            create_planner(config, data).plan(0), batch_size=config.batch_size
        )
        self._images, self._labels = next(iter(batches))

        @tf.function
        def step(images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(losses.cross_entropy(labels, model(images, training=True)))
            variables = model.trainable_variables
            optimizer.apply(tape.gradient(loss, variables), variables)
            return loss

        self._step = step

    def measure(self, steps: int) -> Answer:
        started = time.monotonic()
        for _ in range(steps):
            loss = self._step(self._images, self._labels)
        float(loss)
        return {"images": steps * len(self._labels), "seconds": time.monotonic() - started}


class Fit:
    """`model.fit` on our batches from memory, without callbacks."""

    def __init__(self, config: TrainConfig, steps_per_execution: int = 1) -> None:
        self._config, self._data = config, dataset_dir.load(config.data_dir)
        self._source = _source(config)
        learner = create_learner(config, self._data, tf.distribute.get_strategy(), 1)
        self._model = learner.model
        self._model.compile(
            learner.optimizer,
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],  # for the confusion matrix that our step counts
            steps_per_execution=steps_per_execution,
        )
        self.jit_compile = self._model.jit_compile

    def measure(self, steps: int) -> Answer:
        started = time.monotonic()
        config = dataclasses.replace(self._config, steps_per_epoch=steps)
        plan = create_planner(config, self._data).plan(0)
        batches = self._source.training(plan, batch_size=config.batch_size)
        self._model.fit(batches, epochs=1, shuffle=False, verbose=0)  # the plan has shuffled
        return {"images": len(plan.labels), "seconds": time.monotonic() - started}


def _source(config: TrainConfig) -> split_batches.SplitSource:
    return split_batches.SplitSource(dataset_dir.load(config.data_dir), "train", cache="memory")


SYSTEMS: dict[str, Callable[..., Loop | Bare | Fit]] = {"loop": Loop, "bare": Bare, "fit": Fit}
