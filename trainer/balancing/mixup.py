"""MixUp as a plan: which image is mixed into which, and with what weight.

    plain     the partner is another slot of the same epoch; its weight is Beta(alpha, alpha)
              (Zhang et al., mixup: Beyond Empirical Risk Minimization, 2018)
    balanced  the partner comes from a class-balanced stream; its weight is Beta(alpha, 1), so the
              mean share of the balanced stream is alpha / (1 + alpha) (Galdran et al.,
              Balanced-MixUp for Highly Imbalanced Medical Image Classification, MICCAI 2021; which
              of the two images lambda weighs is as in the authors' code)

Like an epoch plan, it is a pure function of (seed, epoch), and every slot has its own partner:
nothing depends on the batch, the replicas or where a run was resumed. (Zhang et al. draw
one weight for a batch and permute within it.)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from trainer.balancing.augmentation import Augmentation
from trainer.balancing.class_shares import Sampling
from trainer.balancing.drawing import Streams
from trainer.balancing.samplers import NO_AUGMENTATION, EpochPlan, draw_epoch, join_plans

# Added to the run's seed, so that these random numbers are not those of the training stream: from
# the same numbers, the partner of a `weighted` stream would be the image itself. Users' seeds are
# small.
_PARTNER_SEED = 2**63
_MIXING_SEED = 2**62
_WEIGHTS, _PARTNERS = range(2)
# Parts of the balanced stream in an epoch, at most: an epoch of `oversample` is several times as
# long as the split.
_PARTS = 4096


@dataclasses.dataclass(frozen=True)
class Mixing:
    """What is mixed into an epoch's slots.

    Attributes:
      partner: as many slots as the epoch's own plan, with flips of its own.
      lam: float32 [n] within [0, 1], weight of the plan's own image and label; the partner's is
        1 - lam.
    """

    partner: EpochPlan
    lam: np.ndarray


def draw_partners(
    kind: str,
    alpha: float,
    plan: EpochPlan,
    counts: Sequence[int],
    *,
    seed: int,
    epoch: int,
    flip: bool = True,
    augmentation: Augmentation = NO_AUGMENTATION,
) -> Mixing:
    """Draws partners and weights for a plan; equal arguments give equal ones, everywhere.

    Args:
      kind: `plain` or `balanced`.
      alpha: above 0; the larger, the more is mixed.
      counts: records of each class in the split.
      epoch: from 0.
      flip: mirror each partner of `balanced` with probability 1/2 (`plain` takes it as planned).
      augmentation: other changes of the partners of `balanced`.
    """
    size = len(plan.labels)
    streams = Streams(seed + _MIXING_SEED, epoch)
    uniform = streams.uniform(_WEIGHTS, size)
    if kind == "plain":
        import scipy.special  # of the extra `build`: --help of a command must not need it

        order = streams.permutation(_PARTNERS, size)
        partner = plan.take(order)
        # Beta's inverse distribution function: a rejection method needs a varying number of draws.
        lam = scipy.special.betaincinv(alpha, alpha, uniform)
    else:
        partner = _balanced_plan(plan, counts, seed + _PARTNER_SEED, epoch, flip, augmentation)
        lam = 1.0 - uniform ** (1.0 / alpha)
    return Mixing(partner, lam.astype(np.float32))


def label_shares(kind: str, alpha: float, shares: np.ndarray, counts: Sequence[int]) -> np.ndarray:
    """float64 [classes], sum 1: the share of each class in the labels of mixed images, on average.

    A label counts by the weight of its image. `plain` partners have the class shares of the epoch
    itself. `balanced` ones weigh E[Beta(alpha, 1)] = alpha / (1 + alpha), so that the shares become
    (shares + alpha uniform) / (1 + alpha), where uniform is over the classes that have records.

    Args:
      kind, alpha: as of `draw_partners`; 0 mixes nothing.
      shares: float64 [classes], sum 1, of the epoch before mixing.
      counts: records of each class in the split.
    """
    if kind == "plain":
        return shares
    filled = np.asarray(counts) > 0
    return (shares + alpha * filled / filled.sum()) / (1 + alpha)


def _balanced_plan(
    plan: EpochPlan,
    counts: Sequence[int],
    seed: int,
    epoch: int,
    flip: bool,
    augmentation: Augmentation,
) -> EpochPlan:
    """As many slots as `plan` has, each class equally often on average; empty classes never."""
    sampling = Sampling("weighted", target=[float(count > 0) for count in counts])
    parts = [
        draw_epoch(
            sampling,
            counts,
            batch_size=1,
            seed=seed,
            epoch=epoch * _PARTS + part,
            flip=flip,
            augmentation=augmentation,
        )
        for part in range(-(-len(plan.labels) // sum(counts)))
    ]
    slots = join_plans(parts).take(slice(len(plan.labels)))
    return dataclasses.replace(slots, batch_size=plan.batch_size)
