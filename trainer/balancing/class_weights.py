"""What class counts mean for a loss: weights, margins, priors. Only NumPy is needed.

Counts are those of the training split at natural prevalence, from a data set's metadata; no
record is ever read for them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cxr_tfrecords.errors import UserError


def check_counts(
    counts: Sequence[int], loss: str, class_names: Sequence[str] | None = None
) -> np.ndarray:
    """float64 [classes] of the counts.

    Raises:
      UserError: a class has no training image, so that the loss has no weight or prior for it.
    """
    sizes = np.asarray(counts, np.float64)
    empty = np.flatnonzero(sizes <= 0)
    if len(empty):
        label = int(empty[0])
        name = f" ({class_names[label]})" if class_names else ""
        raise UserError(
            f"--loss={loss}: class {label}{name} has no image in the training split (class counts "
            f"{[int(n) for n in sizes]}): use a loss that needs no class "
            "counts, such as --loss=cross_entropy, or build the data set without that class"
        )
    return sizes


def balanced_weights(counts: Sequence[int]) -> np.ndarray:
    """float64 [classes], n / (k n_c): scikit-learn's `class_weight="balanced"` (after King and
    Zeng, Logistic Regression in Rare Events Data, 2001). Their mean over the images is 1."""
    sizes = check_counts(counts, "class_weighted")
    return sizes.sum() / (len(sizes) * sizes)


def effective_number_weights(counts: Sequence[int], beta: float) -> np.ndarray:
    """float64 [classes], (1 - beta) / (1 - beta^n_c), scaled to the sum k (Cui et al.,
    Class-Balanced Loss Based on Effective Number of Samples, 2019, equation 2 and section 4.1).

    beta = 0 weighs all classes alike; beta -> 1 gives weights proportional to 1 / n_c. Unlike
    `balanced_weights` their mean over the images is not 1, which acts as another learning rate.

    Args:
      beta: within [0, 1).
    """
    sizes = check_counts(counts, "effective_number")
    weights = (1.0 - beta) / (1.0 - beta**sizes)
    return weights * len(sizes) / weights.sum()


def log_priors(counts: Sequence[int]) -> np.ndarray:
    """float64 [classes], log(n_c / n)."""
    sizes = check_counts(counts, "logit_adjusted")
    return np.log(sizes / sizes.sum())


def ldam_margins(counts: Sequence[int], max_margin: float) -> np.ndarray:
    """float64 [classes], C / n_c^(1/4) with C such that the rarest class has `max_margin` (Cao et
    al., Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss, 2019, section 3).
    The unit is that of the cosine."""
    margins = check_counts(counts, "ldam_drw") ** -0.25
    return margins * max_margin / margins.max()


def adjust_logits(
    logits: np.ndarray, priors: Sequence[float] | np.ndarray, tau: float = 1.0
) -> np.ndarray:
    """Post hoc logit adjustment, logits - tau log(prior): what a model that was trained by plain
    cross-entropy would say if all classes were equally frequent (Menon et al., Long-Tail Learning
    via Logit Adjustment, 2021, equation 9).

    Not for a model trained by `logit_adjusted` or `balanced_softmax`: it has done so already.

    Args:
      logits: float [n, classes].
      priors: share of each class in training, or its count: they are scaled to the sum 1.
      tau: 0 changes nothing, 1 is the adjustment that is consistent for the balanced error.

    Returns:
      float64 [n, classes].

    Raises:
      UserError: a prior is missing, 0 or not finite.
    """
    shares = np.asarray(priors, np.float64)
    logits = np.asarray(logits, np.float64)
    valid = shares.ndim == 1 and shares.shape == logits.shape[-1:]
    if not valid or not np.isfinite(shares).all() or (shares <= 0).any():
        raise UserError(
            f"priors {list(priors)} must give each of the {logits.shape[-1]} classes a share above "
            "0: a class without training images cannot be adjusted"
        )
    return logits - tau * np.log(shares / shares.sum())
