"""How many records of each class a sampler delivers: target shares and sampling strategies.

Nothing is drawn here: counts come from a dataset's metadata, so the length of an epoch and a class
without records are known before any draw. `trainer.balancing.samplers` then chooses the records.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from cxr_tfrecords.errors import UserError

SAMPLERS = (
    "none",
    "undersample",
    "oversample",
    "oversample_exact",
    "rejection",
    "weighted",
    "progressive",
)
# Which take a target distribution, and which a sampling strategy.
TARGETED = ("weighted", "rejection")
RESIZED = ("undersample", "oversample", "oversample_exact")
# As in imbalanced-learn; a mapping of class to count is the seventh.
STRATEGIES = ("auto", "minority", "majority", "not minority", "not majority", "all")
# Exponent q of n_c in the shares n_c^q / sum_j(n_j^q), Kang et al. 2020, eq. 1. The square root
# is Mahajan et al. 2018, section 2.2, after the subsampling of Mikolov et al. 2013.
DISTRIBUTIONS = {"uniform": 0.0, "sqrt": 0.5, "natural": 1.0}


def expected_counts(
    sampler: str,
    counts: Sequence[int],
    target: Sequence[float] | None = None,
    class_names: Sequence[str] | None = None,
    *,
    strategy: str | Mapping[int, int] = "auto",
    epoch: int = 0,
    epochs: int = 1,
) -> np.ndarray:
    """Records of each class that an epoch delivers before its last, partial batch is left out.

    Args:
      sampler: one of `SAMPLERS`.
      counts: records of each class in the split.
      target: share of each class, `TARGETED` only; None is uniform. Scaled to 1.
      class_names: for messages.
      strategy: `RESIZED` only: one of `STRATEGIES`, or label -> wanted records.
      epoch, epochs: `progressive` only: which epoch (from 0) of how many.

    Returns:
      int64 [classes]. Exact, but for `weighted` and `rejection`: there it is the expectation,
      rounded so that the sum is exactly the length of the epoch.

    Raises:
      UserError: a class that the sampler needs has no record, or a setting does not fit.
    """
    sizes = np.asarray(counts, np.int64)
    check_settings(sampler, has_target=target is not None, strategy=strategy)
    if sampler == "none":
        return sizes
    if sampler in RESIZED:
        return _resized_counts(sampler, sizes, strategy, class_names)
    total = int(sizes.sum())
    if sampler == "progressive":
        refuse_empty(sampler, sizes, sizes == 0, class_names)
        return apportion(progressive_shares(sizes, epoch, epochs), total)
    shares = target_shares(sampler, sizes, target, class_names)
    if sampler == "rejection":
        # Of one pass over N records sum(n_c a_c) = N / max_j(t_j / p_j) are accepted.
        total = max(1, round(float(sizes @ acceptance(sizes, shares))))
    return apportion(shares, total)


def check_settings(sampler: str, *, has_target: bool, strategy: str | Mapping[int, int]) -> None:
    """Refuses settings that the sampler would pass over in silence.

    Raises:
      UserError: naming flag and sampler.
    """
    if sampler not in SAMPLERS:
        raise UserError(f"--sampler={sampler} is none of {', '.join(SAMPLERS)}")
    if has_target and sampler not in TARGETED:
        raise UserError(
            f"--target_distribution has no meaning with --sampler={sampler}: leave it out, or "
            f"use --sampler={' or '.join(TARGETED)}"
        )
    if strategy == "auto":
        return
    if sampler not in RESIZED:
        raise UserError(
            f"--sampling_strategy has no meaning with --sampler={sampler}: leave it out, or use "
            f"--sampler={' or '.join(RESIZED)}"
        )
    if isinstance(strategy, str) and strategy not in STRATEGIES:
        raise UserError(
            f"--sampling_strategy={strategy} is none of {', '.join(STRATEGIES)}, and no "
            "CLASS=count,…"
        )
    # imbalanced-learn refuses these two as well: they would change nothing.
    if strategy == ("minority" if sampler == "undersample" else "majority"):
        raise UserError(
            f"--sampling_strategy={strategy} cannot be used with --sampler={sampler}: that class "
            "has its size already"
        )
    if sampler == "oversample" and not isinstance(strategy, str):
        raise UserError(
            "--sampling_strategy with counts cannot be used with --sampler=oversample, which "
            "repeats whole classes: use --sampler=oversample_exact"
        )


def power_shares(counts: Sequence[int], exponent: float) -> tuple[float, ...]:
    """n_c^exponent / sum_j(n_j^exponent) of each class (Kang et al. 2020, eq. 1).

    An empty class has the share 0, unless the exponent is 0: uniform means every class.
    """
    powers = np.asarray(counts, np.float64) ** exponent
    # The last bits of a power differ between processors, and a plan must not.
    return tuple(float(share) for share in np.round(powers / max(powers.sum(), 1e-300), 12))


def progressive_shares(sizes: np.ndarray, epoch: int, epochs: int) -> np.ndarray:
    """float64 [classes], (1 - t/T) n_c/N + (t/T) 1/C: Kang et al. 2020, eq. 3.

    Args:
      sizes: int64 [classes]; epoch: t, from 0, so that the first epoch is natural and the last
        one of T = `epochs` is (T - 1)/T of the way to uniform. From T on it is uniform.
    """
    way = min(epoch / epochs, 1.0)
    return (1 - way) * sizes / sizes.sum() + way / len(sizes)


def target_shares(
    sampler: str,
    sizes: np.ndarray,
    target: Sequence[float] | None,
    class_names: Sequence[str] | None,
) -> np.ndarray:
    """float64 [classes], sum 1.

    Raises:
      UserError: not one share a class, a negative one, or one for a class without a record.
    """
    shares = np.ones(len(sizes)) if target is None else np.asarray(target, np.float64)
    valid = shares.shape == sizes.shape and np.isfinite(shares).all() and (shares >= 0).all()
    if not valid or shares.sum() == 0:
        raise UserError(
            f"--target_distribution={target} must give {len(sizes)} classes a share of 0 or more, "
            "not all of them 0"
        )
    refuse_empty(sampler, sizes, (sizes == 0) & (shares > 0), class_names)
    return shares / shares.sum()


def acceptance(sizes: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """float64 [classes], a_c = (t_c / p_c) / max_j(t_j / p_j), p_c being the natural share.

    This is the solution that tf.data's own docstring derives. tf.data then blends an unfiltered
    stream in to reject fewer; the distribution and the number of records read stay the same.
    """
    ratios = np.divide(shares, sizes, out=np.zeros(len(sizes)), where=sizes > 0)
    return ratios / ratios.max()


def refuse_empty(
    sampler: str, sizes: np.ndarray, empty: np.ndarray, class_names: Sequence[str] | None
) -> None:
    """Raises UserError if any class is marked in `empty` (bool [classes])."""
    if not empty.any():
        return
    label = int(np.flatnonzero(empty)[0])
    hint = " or give it the share 0 in --target_distribution" if sampler in TARGETED else ""
    name = f" ({class_names[label]})" if class_names else ""
    raise UserError(
        f"--sampler={sampler}: class {label}{name} has no record in the training split "
        f"(class counts {sizes.tolist()}): use --sampler=none{hint}"
    )


def _resized_counts(
    sampler: str,
    sizes: np.ndarray,
    strategy: str | Mapping[int, int],
    class_names: Sequence[str] | None,
) -> np.ndarray:
    """int64 [classes], in the sense of imbalanced-learn's `sampling_strategy`."""
    if not isinstance(strategy, str):
        return _asked_counts(sampler, sizes, strategy, class_names)
    labels = np.arange(len(sizes))
    if strategy == "auto":
        strategy = "not minority" if sampler == "undersample" else "not majority"
    extreme = int(sizes.argmin() if "minority" in strategy else sizes.argmax())
    chosen = {"all": labels >= 0, "minority": labels == extreme, "majority": labels == extreme}.get(
        strategy, labels != extreme
    )
    if sampler == "undersample":
        refuse_empty(sampler, sizes, sizes == 0, class_names)
        return np.where(chosen, sizes.min(), sizes)
    refuse_empty(sampler, sizes, chosen & (sizes == 0), class_names)
    wanted = sizes * _replication(sizes) if sampler == "oversample" else sizes.max()
    return np.where(chosen, wanted, sizes)


def _asked_counts(
    sampler: str,
    sizes: np.ndarray,
    asked: Mapping[int, int],
    class_names: Sequence[str] | None,
) -> np.ndarray:
    wanted = sizes.copy()
    for label, count in asked.items():
        size = int(sizes[label])
        name = class_names[label] if class_names else f"class {label}"
        under = sampler == "undersample"
        if count < 0 or (count > size if under else count < size):
            raise UserError(
                f"--sampling_strategy asks for {count:,} images of {name}, which has {size:,}: "
                f"--sampler={sampler} can only {'leave images out' if under else 'repeat images'}"
            )
        wanted[label] = count
    refuse_empty(sampler, sizes, (wanted > 0) & (sizes == 0), class_names)
    return wanted


def _replication(sizes: np.ndarray) -> np.ndarray:
    """Copies of each record, round(max / n_c) with halves rounded up, in exact integers."""
    divisors = 2 * np.maximum(sizes, 1)
    return (2 * sizes.max() + sizes) // divisors


def apportion(shares: np.ndarray, total: int) -> np.ndarray:
    """Rounds `shares * total` to integers of the sum `total` (largest remainders first)."""
    exact = shares * total
    whole = np.floor(exact).astype(np.int64)
    missing = total - int(whole.sum())
    whole[np.argsort(whole - exact, kind="stable")[:missing]] += 1
    return whole
