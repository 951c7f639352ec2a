"""How many records of each class a sampler delivers: target shares and sampling strategies.

Nothing is drawn here: counts come from a data set's metadata, so the length of an epoch and a class
without records are known before any draw. `trainer.balancing.drawing` then chooses the records.

The functions named `*_counts` are those that rows of `sampler_table.SAMPLERS` refer to. All take
the records of each class (int64 [classes]), what is asked for (`Sampling`) and the epoch (from 0),
give the records of each class that the epoch delivers (int64 [classes]), and raise UserError if a
class that they need has no record, or a setting does not fit the classes.
"""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from cxr_tfrecords.errors import UserError
from cxr_tfrecords.quotas import apportion

# As in imbalanced-learn, which also takes a mapping of class to count, as `Sampling` does.
SAMPLING_STRATEGIES = ("auto", "minority", "majority", "not minority", "not majority", "all")
# Exponent q of n_c in the shares n_c^q / sum_j(n_j^q), Kang et al. 2020, eq. 1. The square root
# is Mahajan et al. 2018, section 2.2, after the subsampling of Mikolov et al. 2013.
DISTRIBUTIONS = {"uniform": 0.0, "sqrt": 0.5, "natural": 1.0}


@dataclasses.dataclass(frozen=True)
class Sampling:
    """A sampler and its settings, for one data set.

    Attributes:
      sampler: a key of `sampler_table.SAMPLERS`.
      target: share of each class, for samplers that take one; None is uniform. Scaled to sum 1.
      sampling_strategy: which classes are resized, for samplers that resize: one of
        `SAMPLING_STRATEGIES`, or label -> wanted records.
      epochs: of the whole run, for samplers whose class shares change from epoch to epoch.
      images: of an epoch, in the shares of the sampler; 0: as many as the sampler delivers.
      resample_each_epoch: samplers that deliver exact counts choose anew in each epoch which
        records are left out or come once more; otherwise the choice of the first epoch stays.
      class_names: for messages.
    """

    sampler: str
    target: Sequence[float] | None = None
    sampling_strategy: str | Mapping[int, int] = "auto"
    epochs: int = 1
    images: int = 0
    resample_each_epoch: bool = False
    class_names: Sequence[str] | None = None


def natural_counts(sizes: np.ndarray, sampling: Sampling, epoch: int) -> np.ndarray:
    """Every record once."""
    return sizes


def undersampled_counts(sizes: np.ndarray, sampling: Sampling, epoch: int) -> np.ndarray:
    """The chosen classes are cut to the smallest, or to the counts asked for."""
    strategy = sampling.sampling_strategy
    if not isinstance(strategy, str):
        return _requested_counts(sizes, sampling, strategy, operator.le, "leave images out")
    refuse_empty(sampling, sizes, sizes == 0)
    return np.where(_chosen(sizes, strategy, "not minority"), sizes.min(), sizes)


def filled_up_counts(sizes: np.ndarray, sampling: Sampling, epoch: int) -> np.ndarray:
    """The chosen classes are filled up to the largest, or to the counts asked for."""
    strategy = sampling.sampling_strategy
    if not isinstance(strategy, str):
        return _requested_counts(sizes, sampling, strategy, operator.ge, "repeat images")
    return _raised(sizes, sampling, strategy, sizes.max())


def replicated_counts(sizes: np.ndarray, sampling: Sampling, epoch: int) -> np.ndarray:
    """Each record of the chosen classes comes round(max / n_c) times, halves rounded up: Wuisan et
    al. 2022, Tables IV and V."""
    # In integers, which are exact.
    replication = (2 * sizes.max() + sizes) // (2 * np.maximum(sizes, 1))
    return _raised(sizes, sampling, str(sampling.sampling_strategy), sizes * replication)


def weighted_counts(sizes: np.ndarray, sampling: Sampling, epoch: int) -> np.ndarray:
    """The expectation of N independent draws from the target, rounded to the sum N."""
    return _of_shares(wanted_shares(sizes, sampling), int(sizes.sum()))


def rejection_counts(sizes: np.ndarray, sampling: Sampling, epoch: int) -> np.ndarray:
    """The expectation of one pass in which records are refused at random, rounded.

    Of N records sum(n_c a_c) = N / max_j(t_j / p_j) are accepted, see `acceptance`.
    """
    shares = wanted_shares(sizes, sampling)
    return _of_shares(shares, max(1, round(float(sizes @ acceptance(sizes, shares)))))


def progressive_counts(sizes: np.ndarray, sampling: Sampling, epoch: int) -> np.ndarray:
    """N records, or `sampling.images`, in the shares of `progressive_shares`."""
    refuse_empty(sampling, sizes, sizes == 0)
    images = sampling.images or int(sizes.sum())
    return _of_shares(progressive_shares(sizes, epoch, sampling.epochs), images)


def power_shares(counts: Sequence[int], exponent: float) -> tuple[float, ...]:
    """n_c^exponent / sum_j(n_j^exponent) of each class (Kang et al. 2020, eq. 1).

    An empty class has the share 0, unless the exponent is 0: uniform means every class.
    """
    powers = np.asarray(counts, np.float64) ** exponent
    # The last bits of a power differ between processors, and a plan must not.
    return tuple(float(share) for share in np.round(powers / max(powers.sum(), 1e-300), 12))


def progressive_shares(sizes: np.ndarray, epoch: int, epochs: int) -> np.ndarray:
    """float64 [classes], (1 - w) n_c/N + w 1/C: Kang et al. 2020, eq. 3.

    w = t/(T - 1) of the T epochs t = 0..T-1, so that the first epoch has the natural shares and the
    last one equal shares. A run of one epoch has equal shares.

    Args:
      sizes: int64 [classes], n_c.
      epoch: t; from T on, the shares stay equal.
      epochs: T.
    """
    way = min(epoch / (epochs - 1), 1.0) if epochs > 1 else 1.0
    return (1 - way) * sizes / sizes.sum() + way / len(sizes)


def wanted_shares(sizes: np.ndarray, sampling: Sampling) -> np.ndarray:
    """float64 [classes], sum 1: the target of a sampler that takes one.

    Raises:
      UserError: not one share a class, a negative one, or one for a class without a record.
    """
    target = sampling.target
    shares = np.ones(len(sizes)) if target is None else np.asarray(target, np.float64)
    valid = shares.shape == sizes.shape and np.isfinite(shares).all() and (shares >= 0).all()
    if not valid or shares.sum() == 0:
        raise UserError(
            f"--target_distribution={target} must give {len(sizes)} classes a share of 0 or more, "
            "not all of them 0"
        )
    refuse_empty(
        sampling,
        sizes,
        (sizes == 0) & (shares > 0),
        " or give it the share 0 in --target_distribution",
    )
    return shares / shares.sum()


def acceptance(sizes: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """float64 [classes], a_c = (t_c / p_c) / max_j(t_j / p_j): the probability that rejection
    sampling keeps a record of class c, with target shares t and natural shares p.

    The docstring of tf.data.Dataset.rejection_resample derives it. tf.data then mixes an unfiltered
    stream in to reject fewer; the distribution and the number of records read stay the same.
    """
    ratios = np.divide(shares, sizes, out=np.zeros(len(sizes)), where=sizes > 0)
    return ratios / ratios.max()


def refuse_empty(sampling: Sampling, sizes: np.ndarray, empty: np.ndarray, hint: str = "") -> None:
    """Raises UserError if any class is marked in `empty` (bool [classes]).

    Args:
      hint: what else helps, appended to the message.
    """
    if not empty.any():
        return
    label = int(np.flatnonzero(empty)[0])
    name = f" ({sampling.class_names[label]})" if sampling.class_names else ""
    raise UserError(
        f"--sampler={sampling.sampler}: class {label}{name} has no record in the training split "
        f"(class counts {sizes.tolist()}): use --sampler=none{hint}"
    )


def _of_shares(shares: np.ndarray, total: int) -> np.ndarray:
    return apportion(shares * total, total)


def _chosen(sizes: np.ndarray, strategy: str, auto: str) -> np.ndarray:
    """bool [classes], the classes that a word of `SAMPLING_STRATEGIES` means.

    Args:
      auto: what `auto` stands for.
    """
    strategy = auto if strategy == "auto" else strategy
    if strategy == "all":
        return np.ones(len(sizes), bool)
    extreme = sizes.argmin() if "minority" in strategy else sizes.argmax()
    is_extreme = np.arange(len(sizes)) == extreme
    return ~is_extreme if strategy.startswith("not ") else is_extreme


def _raised(sizes: np.ndarray, sampling: Sampling, strategy: str, wanted: np.ndarray) -> np.ndarray:
    chosen = _chosen(sizes, strategy, "not majority")
    refuse_empty(sampling, sizes, chosen & (sizes == 0))
    return np.where(chosen, wanted, sizes)


def _requested_counts(
    sizes: np.ndarray,
    sampling: Sampling,
    requested: Mapping[int, int],
    may_become: Callable[[int, int], bool],
    ability: str,
) -> np.ndarray:
    """int64 [classes]: label -> records as asked for, the other classes as they are.

    Args:
      may_become: comparison that a requested count and the class's own count must fulfil.
      ability: what the sampler can do, for the message.
    """
    wanted = sizes.copy()
    for label, count in requested.items():
        size = int(sizes[label])
        if count < 0 or not may_become(count, size):
            name = sampling.class_names[label] if sampling.class_names else f"class {label}"
            raise UserError(
                f"--sampling_strategy asks for {count:,} images of {name}, which has {size:,}: "
                f"--sampler={sampling.sampler} can only {ability}"
            )
        wanted[label] = count
    refuse_empty(sampling, sizes, (wanted > 0) & (sizes == 0))
    return wanted
