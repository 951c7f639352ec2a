"""The names of `--loss` and what sets each apart. A new loss is one more row here.

Flags, checks, training, audits, reports and studies read the row; no other list of losses is kept.
A row says in NumPy what class counts do to softmax cross-entropy; `trainer.training.losses` makes
the TensorFlow function of it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from trainer.balancing import class_weights


class LossSettings(Protocol):
    """The settings that losses read, as `TrainConfig` has them; their flags' help explains them."""

    @property
    def effective_number_beta(self) -> float: ...
    @property
    def focal_gamma(self) -> float: ...
    @property
    def logit_adjustment_tau(self) -> float: ...
    @property
    def ldam_max_margin(self) -> float: ...
    @property
    def ldam_scale(self) -> float: ...
    @property
    def first_drw_epoch(self) -> int: ...


@dataclasses.dataclass(frozen=True)
class LossTerms:
    """What a loss adds to softmax cross-entropy; arrays are float64 [classes], None adds nothing.

    Attributes:
      weights: the loss of an image is multiplied by the weight of its class.
      late_weights: the same from epoch `first_drw_epoch` on; before it all classes weigh 1.
      prior_power: tau log(n_c / n) is added to the logits in training, where tau is this number.
        The model's own logits are then at class shares of prior^(1 - tau).
      margins: subtracted from the logit of the true class, in training.
      per_image: replaces cross-entropy. Takes int32 [b] labels and float32 [b, classes] logits
        (TensorFlow tensors of static shape), and gives float32 [b] in nats. It imports TensorFlow
        when it is called, so that --help stays quick.
    """

    weights: np.ndarray | None = None
    late_weights: np.ndarray | None = None
    prior_power: float | None = None
    margins: np.ndarray | None = None
    per_image: Callable[[Any, Any], Any] | None = None


@dataclasses.dataclass(frozen=True)
class Loss:
    """One row.

    Attributes:
      help: what it does, with its source where it has one; the text of --loss is made of these.
      terms: what it adds to cross-entropy, of the training images of each class at natural
        prevalence and the settings.
      needs_counts: every class must have training images, and the loss corrects the class mix.
      settings_text: its settings in a few words, a format string of which {0} is the settings.
      has_cosines: its logits are `ldam_scale` times cosines, see `models.classifier`.
      has_late_weights: it gives `late_weights`, which early stopping must not come before.
      changes_confidence: probabilities are more or less certain than the data say, at any class
        mix.
    """

    help: str
    terms: Callable[[Sequence[int], LossSettings], LossTerms] = lambda counts, settings: LossTerms()
    needs_counts: bool = False
    settings_text: str = ""
    has_cosines: bool = False
    has_late_weights: bool = False
    changes_confidence: bool = False

    @property
    def study_flags(self) -> dict[str, str]:
        """Flags of `trainer.main` that a study sets beside --loss."""
        return {"early_stopping_patience": "0"} if self.has_late_weights else {}


def focal(labels: Any, logits: Any, gamma: float) -> Any:
    """float32 [b], (1 - p_y)^gamma (-log p_y) (Lin et al., Focal Loss for Dense Object Detection,
    2017, equation 4, over all classes, without its alpha).

    1 - p_y is computed as a logarithm, from the logits of the other classes: so neither the value
    nor the gradient is lost where p_y rounds to 0 or 1, whatever gamma is.

    Args:
      labels: int32 [b].
      logits: float32 [b, classes].
    """
    import tensorflow as tf

    true = tf.one_hot(labels, logits.shape[-1], on_value=True, off_value=False, dtype=tf.bool)
    others = tf.where(true, tf.constant(logits.dtype.min / 4, logits.dtype), logits)
    log_wrong = tf.reduce_logsumexp(others, axis=-1) - tf.reduce_logsumexp(logits, axis=-1)
    nll = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
    return tf.exp(gamma * log_wrong) * nll


def _effective_number(counts: Sequence[int], settings: LossSettings) -> np.ndarray:
    return class_weights.effective_number_weights(counts, settings.effective_number_beta)


def _ldam_drw(counts: Sequence[int], settings: LossSettings) -> LossTerms:
    # The logits are scaled cosines, and so the margin, whose unit is the cosine's, is scaled too.
    margins = class_weights.ldam_margins(counts, settings.ldam_max_margin)
    return LossTerms(
        margins=settings.ldam_scale * margins, late_weights=_effective_number(counts, settings)
    )


LOSSES = {
    "cross_entropy": Loss("-log p_y, where p_y is the probability of the true class"),
    "class_weighted": Loss(
        'weights n/(k n_c) of k classes, as scikit-learn\'s "balanced"',
        lambda counts, _: LossTerms(class_weights.balanced_weights(counts)),
        needs_counts=True,
    ),
    "effective_number": Loss(
        "weights (1-beta)/(1-beta^n_c) (Cui et al. 2019)",
        lambda counts, settings: LossTerms(_effective_number(counts, settings)),
        needs_counts=True,
        settings_text="beta {0.effective_number_beta:g}",
    ),
    "focal": Loss(
        "well-classified images count less, by the factor (1-p_y)^gamma (Lin et al. 2017)",
        lambda _, settings: LossTerms(per_image=lambda y, z: focal(y, z, settings.focal_gamma)),
        settings_text="gamma {0.focal_gamma:g}",
        changes_confidence=True,
    ),
    "class_balanced_focal": Loss(
        "focal with the weights of effective_number as alpha (Cui et al. 2019, equation 12, but "
        "with a softmax over the classes, not a sigmoid of each)",
        lambda counts, settings: LossTerms(
            _effective_number(counts, settings),
            per_image=lambda y, z: focal(y, z, settings.focal_gamma),
        ),
        needs_counts=True,
        settings_text="gamma {0.focal_gamma:g}, beta {0.effective_number_beta:g}",
        changes_confidence=True,
    ),
    "balanced_softmax": Loss(
        "the logarithm of the class counts is added to the logits in training (Ren et al. 2020)",
        # log n_c and log(n_c / n) differ by a constant, which the softmax takes out.
        lambda _, settings: LossTerms(prior_power=1.0),
        needs_counts=True,
    ),
    "logit_adjusted": Loss(
        "tau times the logarithm of the class shares is added (Menon et al. 2021)",
        lambda _, settings: LossTerms(prior_power=settings.logit_adjustment_tau),
        needs_counts=True,
        settings_text="tau {0.logit_adjustment_tau:g}",
    ),
    "ldam_drw": Loss(
        "larger margins for rare classes, on an output layer of cosines; weights as "
        "effective_number, but only in late epochs (Cao et al. 2019)",
        _ldam_drw,
        needs_counts=True,
        settings_text="largest margin {0.ldam_max_margin:g}, scale {0.ldam_scale:g}, from epoch "
        "{0.first_drw_epoch} weighted with beta {0.effective_number_beta:g}",
        has_cosines=True,
        has_late_weights=True,
    ),
}
