"""BatchNormalization policies, and moments re-estimated before every evaluation.

keras.applications ship a momentum of 0.99 to 0.999: after a few hundred steps of fine-tuning the
moving statistics are still those of ImageNet, training looks fine and evaluation is garbage.
`adapt` replaces them by the training images' own moments ("precise BatchNorm", Wu and Johnson,
Rethinking "Batch" in BatchNorm, 2021, section 3): layer by layer, with the layers before it
normalising by their batch as they do in training. Those images come from the training stream as
the sampler leaves it, because the weights were fitted to features normalised in that way;
`adapt_natural` takes them at natural prevalence, which suits evaluation less than one would
think (docs/batch_norm.md has the figures).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

import keras
import tensorflow as tf

from trainer.models.classifier import features_model
from trainer.models.tf_internals import replace_batch_moments


def find_layers(model: keras.Model) -> list[keras.layers.BatchNormalization]:
    """All BatchNormalization layers, those of nested models too, in the order of the model."""
    return _find(model, keras.layers.BatchNormalization)


def apply_policy(
    model: keras.Model, policy: str, num_replicas: int = 1, *, synchronized: bool = True
) -> None:
    """Sets the layers up for one of `table.BATCH_NORMS`.

    `frozen` makes them constants. The others normalise by the moments of the *global* batch.

    Args:
      synchronized: False normalises by the moments of each replica's part. Results then depend on
        the number of replicas, and moving statistics differ between them until
        `average_statistics`.
    """
    for layer in find_layers(model):
        if policy == "frozen":
            layer.trainable = False
        # Not for one replica, whose moments tf.nn.moments takes more exactly.
        layer.synchronized = synchronized and num_replicas > 1
        if layer.synchronized:
            replace_batch_moments(layer, _global_moments)


def _global_moments(axes: Sequence[int], inputs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Mean and variance, float32 [channels], over the batches of all replicas, of equal size.

    What Keras computes for `synchronized=True`, in one sum over replicas forwards and one
    backwards. Keras takes three of each (values, squares, and how many there are), and across
    hosts it is their number that costs, not their few hundred bytes.
    """
    own = tf.stack([tf.reduce_mean(inputs, axes), tf.reduce_mean(tf.square(inputs), axes)])
    context = tf.distribute.get_replica_context()
    if context is not None:  # outside of the replicas Keras, too, takes the batch for the whole
        own = context.all_reduce(tf.distribute.ReduceOp.MEAN, own)
    mean, square = tf.unstack(own)
    return mean, tf.maximum(square - tf.square(mean), 0.0)


def average_statistics(strategy: tf.distribute.Strategy, model: keras.Model) -> None:
    """Sets the moving statistics of every replica to their mean over replicas.

    They are linear in the batches' moments, so averaging now or later is the same.
    """
    if strategy.num_replicas_in_sync == 1:
        return
    variables = [
        variable.value
        for layer in find_layers(model)
        for variable in (layer.moving_mean, layer.moving_variance)
    ]

    def replica() -> None:
        context = tf.distribute.get_replica_context()
        for variable in variables:
            own = tf.convert_to_tensor(variable)
            variable.assign(context.all_reduce(tf.distribute.ReduceOp.MEAN, own))

    if variables:
        tf.function(lambda: strategy.run(replica))()


class MomentEstimator:
    """Sets the moving statistics to the moments over given batches, exactly.

    With momentum 0 a training-mode step leaves each batch's moments in the moving statistics.
    Their means E[m] and E[v + m^2] over equal batches and replicas give the moments over all
    images: mean E[m], variance E[v + m^2] - E[m]^2. Dropout neither acts nor advances its random
    state: not in the head, because only the part of the model up to the pooled features runs, and
    not in the backbone (EfficientNet drops whole blocks), because nothing is dropped in evaluation
    either and variances would be too large.
    """

    def __init__(self, strategy: tf.distribute.Strategy, model: keras.Model) -> None:
        """Call it under no strategy scope, after `apply_policy`."""
        self._strategy = strategy
        self.layers = [layer for layer in find_layers(model) if layer.trainable]
        with strategy.scope():
            self._features = features_model(model)
            self._dropouts = _find(self._features, keras.layers.Dropout)
            self._means = [_sum_variable(layer.moving_mean.shape) for layer in self.layers]
            self._squares = [_sum_variable(layer.moving_mean.shape) for layer in self.layers]
        self._accumulate = self._make_accumulate()

    def estimate(self, batches: Iterator, steps: int) -> None:
        """Re-estimates from `steps` distributed (images, labels, …) batches of equal size."""
        if not self.layers:
            return
        for variable in (*self._means, *self._squares):
            variable.assign(tf.zeros(variable.shape))
        with _all_set(self.layers, "momentum", 0.0), _all_set(self._dropouts, "rate", 0.0):
            self._accumulate(batches, tf.constant(steps))
        for layer, mean_sum, square_sum in zip(
            self.layers, self._means, self._squares, strict=True
        ):
            mean = mean_sum.read_value() / steps
            variance = tf.maximum(square_sum.read_value() / steps - tf.square(mean), 0.0)
            layer.moving_mean.assign(mean)
            layer.moving_variance.assign(variance)

    def replica_step(self, images: tf.Tensor, *_: tf.Tensor) -> None:
        """What each replica does with its part of a batch."""
        self._features(images, training=True)
        for layer, means, squares in zip(self.layers, self._means, self._squares, strict=True):
            mean = tf.convert_to_tensor(layer.moving_mean)
            means.assign_add(mean)
            squares.assign_add(tf.convert_to_tensor(layer.moving_variance) + tf.square(mean))

    def _make_accumulate(self) -> Callable:
        @tf.function
        def accumulate(batches: Iterator, steps: tf.Tensor) -> None:
            for _ in tf.range(steps):
                self._strategy.run(self.replica_step, args=next(batches))

        return accumulate


def _sum_variable(shape: Sequence[int]) -> tf.Variable:
    # MEAN: reading outside of the replicas gives the mean over them.
    return tf.Variable(
        tf.zeros(shape),
        trainable=False,
        synchronization=tf.VariableSynchronization.ON_READ,
        aggregation=tf.VariableAggregation.MEAN,
    )


def _find(model: keras.Model, kind: type[keras.layers.Layer]) -> list:
    found = []
    for layer in model.layers:
        if isinstance(layer, kind):
            found.append(layer)
        elif isinstance(layer, keras.Model):
            found += _find(layer, kind)
    return found


@contextlib.contextmanager
def _all_set(layers: Sequence[keras.layers.Layer], name: str, value: float) -> Iterator[None]:
    """For Python numbers, which tracing bakes in: momentum, rate. So set them around every call."""
    before = [getattr(layer, name) for layer in layers]
    for layer in layers:
        setattr(layer, name, value)
    try:
        yield
    finally:
        for layer, old in zip(layers, before, strict=True):
            setattr(layer, name, old)
