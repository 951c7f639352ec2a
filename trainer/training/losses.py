"""Training losses for imbalanced classes: `loss(labels, logits)` gives float32 [b].

    cross_entropy     -log p_y
    class_weighted    w_y (-log p_y), w_c = n / (k n_c), as scikit-learn's "balanced"
    effective_number  the same with w_c = (1 - beta) / (1 - beta^n_c), sum k (Cui et al. 2019)
    focal             (1 - p_y)^gamma (-log p_y) (Lin et al. 2017)
    balanced_softmax  cross-entropy of logits + log n_c (Ren et al. 2020)
    logit_adjusted    cross-entropy of logits + tau log prior (Menon et al. 2021)
    ldam_drw          a margin of C / n_c^(1/4) for the true class, later weighted (Cao et al. 2019)

`balanced_softmax` is `logit_adjusted` with tau = 1: they differ by a constant that the softmax
takes out. Both, and `ldam_drw`, act in training alone: predictions come from the model's raw
logits. Validation and evaluation always use plain cross-entropy at natural prevalence.

LDAM is defined on cosines: with it `models.classifier` normalises the features and the weights of
the output layer, drops its bias and multiplies the cosines by `--ldam_scale`. So the logits here
are s cos, and the margin is taken off as s times itself.

The mean over a batch divides by its size, not by the sum of its weights: otherwise the loss of an
image would depend on which others share its batch and its replica.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from trainer.balancing import class_weights
from trainer.balancing.class_weights import adjust_logits
from trainer.settings.config import TrainConfig

__all__ = ["TrainingLoss", "adjust_logits", "cross_entropy", "focal"]


def cross_entropy(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """float32 [b] in nats, of int32 [b] labels and float32 [b, classes] logits."""
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)


def focal(labels: tf.Tensor, logits: tf.Tensor, gamma: float) -> tf.Tensor:
    """float32 [b], (1 - p_y)^gamma (-log p_y) (Lin et al., Focal Loss for Dense Object Detection,
    2017, equation 4, over all classes; no alpha).

    1 - p_y is taken as a logarithm, from the logits of the other classes: so neither the value nor
    the gradient is lost where p_y rounds to 0 or 1, whatever gamma is.
    """
    true = tf.one_hot(labels, logits.shape[-1], on_value=True, off_value=False, dtype=tf.bool)
    others = tf.where(true, tf.constant(logits.dtype.min / 4, logits.dtype), logits)
    log_wrong = tf.reduce_logsumexp(others, axis=-1) - tf.reduce_logsumexp(logits, axis=-1)
    return tf.exp(gamma * log_wrong) * cross_entropy(labels, logits)


class TrainingLoss:
    """The loss that a config asks for. Make it in the strategy's scope: `ldam_drw` has a variable.

    Everything is a function of config, metadata and epoch, so nothing of it is in a checkpoint.
    """

    def __init__(
        self, config: TrainConfig, counts: Sequence[int], class_names: Sequence[str] | None = None
    ) -> None:
        """Args: counts: training images of each class at natural prevalence.

        Raises:
          UserError: a class that the loss needs a count of has none.
        """
        self._name = config.loss
        self._config = config
        self._weights: tf.Variable | tf.Tensor | None = None
        self._offsets: tf.Tensor | None = None
        self._margins: tf.Tensor | None = None
        self._deferred: np.ndarray | None = None
        if self._name in class_weights.PRIOR_AWARE:
            class_weights.check_counts(counts, self._name, class_names)
        if self._name == "class_weighted":
            self._weights = _constant(class_weights.balanced_weights(counts))
        elif self._name == "effective_number":
            self._weights = _constant(
                class_weights.effective_number_weights(counts, config.effective_number_beta)
            )
        elif self._name in ("balanced_softmax", "logit_adjusted"):
            tau = config.logit_adjustment_tau if self._name == "logit_adjusted" else 1.0
            self._offsets = _constant(tau * class_weights.log_priors(counts))
        elif self._name == "ldam_drw":
            margins = class_weights.ldam_margins(counts, config.ldam_max_margin)
            self._margins = _constant(config.ldam_scale * margins)
            self._deferred = class_weights.effective_number_weights(
                counts, config.effective_number_beta
            ).astype(np.float32)
            self._weights = tf.Variable(tf.ones(len(counts)), trainable=False, name="drw_weights")

    def __call__(self, labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        """float32 [b], of int32 [b] labels and float32 [b, classes] logits; static shapes."""
        if self._name == "focal":
            return focal(labels, logits, self._config.focal_gamma)
        if self._offsets is not None:
            logits += self._offsets
        if self._margins is not None:
            logits -= self._margins * tf.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
        losses = cross_entropy(labels, logits)
        if self._weights is not None:
            losses *= tf.gather(self._weights, labels)
        return losses

    def start_epoch(self, epoch: int) -> None:
        """Sets what depends on the epoch (counted from 1); call it outside of the replicas.

        `ldam_drw`: deferred re-weighting (Cao et al. 2019, algorithm 1) weighs all classes alike
        before `config.first_drw_epoch` and by effective numbers from there on.
        """
        if self._deferred is None or self._weights is None:
            return
        late = epoch >= self._config.first_drw_epoch
        self._weights.assign(self._deferred if late else np.ones_like(self._deferred))


def _constant(values: np.ndarray) -> tf.Tensor:
    return tf.constant(values, tf.float32)
