"""Training losses for imbalanced classes, built from the rows of `balancing.loss_table`.

Class counts affect training only: predictions come from the model's own logits, and validation and
evaluation always use plain cross-entropy at natural prevalence.

The mean over a batch divides by its size, not by the sum of its weights: otherwise the loss of an
image would depend on the other images in its batch and on its replica.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from trainer.balancing import class_weights
from trainer.balancing.loss_table import LOSSES
from trainer.settings.config import TrainConfig


def cross_entropy(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Softmax cross-entropy, float32 [b] in nats; labels int32 [b], logits float32 [b, classes]."""
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)


class TrainingLoss:
    """The loss that a config asks for. Create it in the strategy's scope: class weights that begin
    in a later epoch are a variable.

    It depends only on config, metadata and epoch, so checkpoints store nothing of it.
    """

    def __init__(
        self, config: TrainConfig, counts: Sequence[int], class_names: Sequence[str] | None = None
    ) -> None:
        """Prepares the class weights, margins and offsets of `config.loss`.

        Args:
          counts: training images of each class at natural prevalence.
          class_names: for messages.

        Raises:
          UserError: the loss needs class counts, and a class has no training images.
        """
        row = LOSSES[config.loss]
        if row.needs_counts:
            class_weights.check_counts(counts, config.loss, class_names)
        terms = row.terms(counts, config)
        self._per_image = terms.per_image
        self._weights: tf.Variable | tf.Tensor | None = None
        self._offsets: tf.Tensor | None = None
        self._margins: tf.Tensor | None = None
        self._late_weights: np.ndarray | None = None
        self._late_epoch = config.first_drw_epoch
        if terms.weights is not None:
            self._weights = _constant(terms.weights)
        if terms.prior_power is not None:
            self._offsets = _constant(terms.prior_power * class_weights.log_priors(counts))
        if terms.margins is not None:
            self._margins = _constant(terms.margins)
        if terms.late_weights is not None:
            self._late_weights = terms.late_weights.astype(np.float32)
            self._weights = tf.Variable(tf.ones(len(counts)), trainable=False, name="drw_weights")

    def __call__(self, labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        """Loss of each image, float32 [b]; labels int32 [b], logits float32 [b, classes]."""
        if self._offsets is not None:
            logits += self._offsets
        if self._margins is not None:
            logits -= self._margins * tf.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
        losses = (self._per_image or cross_entropy)(labels, logits)
        if self._weights is not None:
            losses *= tf.gather(self._weights, labels)
        return losses

    def start_epoch(self, epoch: int) -> None:
        """Sets the class weights of an epoch (counted from 1); call it outside of the replicas.

        Deferred re-weighting (Cao et al. 2019, algorithm 1): all classes have weight 1 before
        `config.first_drw_epoch`, and their class weights from that epoch on.
        """
        if self._late_weights is None or self._weights is None:
            return
        late = epoch >= self._late_epoch
        self._weights.assign(self._late_weights if late else np.ones_like(self._late_weights))


def _constant(values: np.ndarray) -> tf.Tensor:
    return tf.constant(values, tf.float32)
