"""BatchNormalization policies, and moments re-estimated before every evaluation.

The networks of keras.applications have a momentum of 0.99 to 0.999. After a few hundred steps of
fine-tuning their moving statistics are still close to those of ImageNet: training looks fine, and
evaluation gives useless results. `adapt` replaces them by the moments of training images ("precise
BatchNorm", Wu and Johnson, Rethinking "Batch" in BatchNorm, 2021, section 3). While a layer's
moments are measured, the layers before it normalise by the batch, as in training. The images come
from the training stream after the sampler, because the weights were fitted to features that were
normalised in that way. `adapt_natural` takes images at natural prevalence instead;
docs/batch_norm.md compares the two.
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
    """Prepares the model's BatchNormalization layers for a policy.

    `frozen` freezes them. With the other policies they normalise by the moments of the *global*
    batch, over all replicas.

    Args:
      policy: one of `table.BATCH_NORMS`.
      num_replicas: number of replicas that train together.
      synchronized: False: each replica normalises by the moments of its part of the batch. Results
        then depend on the number of replicas, and moving statistics differ between replicas until
        `average_statistics` is called.
    """
    for layer in find_layers(model):
        if policy == "frozen":
            layer.trainable = False
        # Not for one replica: there Keras uses tf.nn.moments, which is more exact.
        layer.synchronized = synchronized and num_replicas > 1
        if layer.synchronized:
            replace_batch_moments(layer, _global_moments)


def _global_moments(axes: Sequence[int], inputs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Mean and variance, float32 [channels], over the equally large batches of all replicas.

    Keras computes the same for `synchronized=True`, but with three sums over replicas (of values,
    of squares and of counts) in the forward pass and three in the backward pass. Here it is one in
    each. Between hosts the number of sums is what takes time, not their few hundred bytes.
    """
    moments = tf.stack([tf.reduce_mean(inputs, axes), tf.reduce_mean(tf.square(inputs), axes)])
    context = tf.distribute.get_replica_context()
    if context is not None:  # None outside of replicas, where the batch is the global batch
        moments = context.all_reduce(tf.distribute.ReduceOp.MEAN, moments)
    mean, square = tf.unstack(moments)
    return mean, tf.maximum(square - tf.square(mean), 0.0)


def average_statistics(strategy: tf.distribute.Strategy, model: keras.Model) -> None:
    """Sets the moving statistics of every replica to their mean over replicas.

    They are linear in the moments of the batches. So averaging them once, before they are used,
    gives the same as averaging after every step.
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
            value = tf.convert_to_tensor(variable)
            variable.assign(context.all_reduce(tf.distribute.ReduceOp.MEAN, value))

    if variables:
        tf.function(lambda: strategy.run(replica))()


class MomentEstimator:
    """Sets the moving statistics to the exact moments over given batches.

    With momentum 0, a step in training mode stores the mean m and the variance v of its batch in
    the moving statistics. The averages E[m] and E[v + m^2] over batches of equal size and over
    replicas give the moments over all images: mean E[m], variance E[v + m^2] - E[m]^2.

    Dropout is off, and its random state does not change. The head, which has dropout, does not run:
    only the model up to the pooled features does. In the backbone (EfficientNet drops whole blocks)
    the rate is set to 0, because evaluation drops nothing and variances would be too large.
    """

    def __init__(self, strategy: tf.distribute.Strategy, model: keras.Model) -> None:
        """Call it outside of a strategy scope, after `apply_policy`."""
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
    layers = []
    for layer in model.layers:
        if isinstance(layer, kind):
            layers.append(layer)
        elif isinstance(layer, keras.Model):
            layers += _find(layer, kind)
    return layers


@contextlib.contextmanager
def _all_set(layers: Sequence[keras.layers.Layer], name: str, value: float) -> Iterator[None]:
    """Sets an attribute of all layers within the context, and restores it afterwards.

    `momentum` and `rate` are Python numbers, which a traced function keeps as constants. So they
    must be set whenever the function may be traced.
    """
    before = [getattr(layer, name) for layer in layers]
    for layer in layers:
        setattr(layer, name, value)
    try:
        yield
    finally:
        for layer, old in zip(layers, before, strict=True):
            setattr(layer, name, old)
