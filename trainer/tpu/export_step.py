"""Exports the steps of `trainer.main` as they would run on each chip of a TPU slice.

This needs no strategy: the replica functions of `training.steps` and `models.batch_norm` are traced
inside a replica context whose `all_reduce` is XLA's own operation. All sums over replicas go
through that context (of gradients in Keras's optimizer, of moments in synchronized
BatchNormalization, forwards and backwards, and of the loss), so the export contains all of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import tensorflow as tf
from tensorflow.compiler.tf2xla.ops import gen_xla_ops

from cxr_tfrecords.dataset_dir import DatasetDir
from trainer.settings.config import TrainConfig
from trainer.tpu import host_ops
from trainer.training import steps
from trainer.training.learner import create_learner

STEPS = ("train", "evaluate", "moments")
# Losses need class counts, but any will do. These are of Wuisan et al. 2022, Table IV.
_COUNTS = (2379, 3825, 6509, 832)


@dataclasses.dataclass(frozen=True)
class Exported:
    """One step of one replica.

    Attributes:
      stablehlo: the program, serialized; None if it has operations that XLA cannot export.
      audit: the parts of the step that a TPU would refuse.
    """

    stablehlo: bytes | None
    audit: host_ops.Audit


class SliceContext(tf.distribute.ReplicaContext):
    """The context of one replica, whose `all_reduce` is an operation of the compiled program."""

    def __init__(self, num_replicas: int) -> None:
        super().__init__(tf.distribute.get_strategy(), replica_id_in_sync_group=0)
        self._num_replicas = num_replicas

    @property
    def num_replicas_in_sync(self) -> int:
        return self._num_replicas

    def all_reduce(self, reduce_op: Any, value: Any, options: Any = None) -> Any:
        """Sum or mean over replicas of a nest of tensors; differentiable, as in a strategy."""
        op = tf.distribute.ReduceOp(reduce_op)

        @tf.custom_gradient
        def reduced(*tensors: tf.Tensor) -> tuple:
            def gradient(*upstream: tf.Tensor) -> list[tf.Tensor]:
                return [self._sum(tensor, op) for tensor in upstream]

            return [self._sum(tensor, op) for tensor in tensors], gradient

        return tf.nest.pack_sequence_as(value, reduced(*tf.nest.flatten(value)))

    def _sum(self, tensor: tf.Tensor, op: tf.distribute.ReduceOp) -> tf.Tensor:
        total = gen_xla_ops.xla_all_reduce(
            input=tensor,
            group_assignment=tf.constant([list(range(self._num_replicas))], tf.int32),
            reduce_op="Add",
            mode="CrossReplica",
        )
        mean = op == tf.distribute.ReduceOp.MEAN
        return total / tf.cast(self._num_replicas, total.dtype) if mean else total


def describe_data(image_size: int, channels: int, num_classes: int) -> DatasetDir:
    """The metadata of a data set that does not exist; the steps need only shapes and counts."""
    names = tuple(f"class{index}" for index in range(num_classes))
    counts = tuple(_COUNTS[index % len(_COUNTS)] for index in range(num_classes))
    return DatasetDir(
        path="",
        class_names=names,
        class_slugs=names,
        image_size=image_size,
        channels=channels,
        encoding="raw",
        counts={"train": counts},
        fingerprint="",
        mean=(0.0,) * channels,
        std=(1.0,) * channels,
        shards=(),
    )


class Exporter:
    """Builds the model of a config once and exports its steps for a number of replicas."""

    def __init__(self, config: TrainConfig, data: DatasetDir, num_replicas: int) -> None:
        """Builds model, optimizer and meters as `trainer.main` does.

        Raises:
          UserError: the backbone cannot take such images, or the config does not fit it.
        """
        self._config = config
        self._data = data
        self._num_replicas = num_replicas
        # Not `create_strategy("cpu")`, which makes operations deterministic (`tpu` does not): then
        # TensorFlow refuses to export the gradient of max pooling.
        strategy = tf.distribute.OneDeviceStrategy("CPU:0")
        self.learner = create_learner(config, data, strategy, num_replicas)

    @property
    def steps(self) -> tuple[str, ...]:
        """Names of the steps that the config runs; `moments` only with `--batch_norm=adapt*`."""
        moments = self.learner.moments
        return STEPS if moments is not None and moments.layers else STEPS[:2]

    def trace(self, step: str, per_replica: int) -> tuple[Any, tuple[tf.TensorSpec, ...]]:
        """The step as a `tf.function` for XLA, and the specs of its arguments.

        Args:
          step: one of `steps`.
          per_replica: images of one replica in a step.
        """
        function, num_arguments = self._replica_function(step, per_replica)
        side, channels = self._data.image_size, self._data.channels
        specs = (
            tf.TensorSpec((per_replica, side, side, channels), tf.uint8),
            tf.TensorSpec((per_replica,), tf.int32),
            tf.TensorSpec((per_replica,), tf.int32),
            tf.TensorSpec((per_replica,), tf.float32),
        )[:num_arguments]

        def on_slice(*arguments: tf.Tensor) -> Any:
            with SliceContext(self._num_replicas):
                return function(*arguments)

        on_slice.__name__ = step
        return tf.function(on_slice, jit_compile=True, autograph=False), specs

    def audit(self, step: str, per_replica: int) -> host_ops.Audit:
        """Audits the step without exporting it."""
        function, specs = self.trace(step, per_replica)
        return host_ops.audit(function.get_concrete_function(*specs))

    def export(self, step: str, per_replica: int) -> Exported:
        """The step as StableHLO, with its audit."""
        function, specs = self.trace(step, per_replica)
        audit = host_ops.audit(function.get_concrete_function(*specs))
        if audit.unsupported or audit.host:
            return Exported(None, audit)
        program = function.experimental_get_compiler_ir(*specs)(stage="stablehlo_serialized")
        return Exported(program, audit)

    def _replica_function(self, step: str, per_replica: int) -> tuple[Callable[..., Any], int]:
        learner = self.learner
        if step == "evaluate":
            return steps.make_replica_predict(learner.model), 1
        if step == "moments":
            assert learner.moments is not None
            return learner.moments.replica_step, 1
        global_batch = per_replica * self._num_replicas
        train = steps.make_replica_step(
            learner.model, learner.optimizer, learner.meters, global_batch, learner.loss
        )
        return train, 4 if self._config.mixup_alpha else 2
