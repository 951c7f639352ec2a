"""The settings of class balancing: read from flags, checked, and resolved for a data set's classes.

A distribution is `()` (uniform), a word of `class_shares.DISTRIBUTIONS` or (class, share) pairs;
a sampling strategy is a word of `class_shares.SAMPLING_STRATEGIES` or (class, images) pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from cxr_tfrecords.errors import UserError
from cxr_tfrecords.pages.class_lists import few
from trainer.balancing import class_shares, sampler_table
from trainer.balancing.class_shares import Sampling

Distribution = tuple[tuple[str, float], ...] | str
SamplingStrategy = tuple[tuple[str, int], ...] | str


def parse_distribution(items: Sequence[str]) -> Distribution:
    """`["COVID=0.4", "Normal=0.6"]` to `(("COVID", 0.4), ("Normal", 0.6))`; one word to itself.

    Raises:
      UserError: an item is not class=share, or names a class twice; an unknown word.
    """
    if len(items) == 1 and items[0] in class_shares.DISTRIBUTIONS:
        return items[0]
    words = ", ".join(class_shares.DISTRIBUTIONS)
    return parse_pairs("target_distribution", items, float, f"CLASS=share, or alone one of {words}")


def parse_sampling_strategy(items: Sequence[str]) -> SamplingStrategy:
    """`["COVID=3000", "Normal=500"]` to pairs as above; one word to itself.

    Raises:
      UserError: an item is not class=count, or names a class twice; an unknown word.
    """
    if len(items) == 1 and items[0] in class_shares.SAMPLING_STRATEGIES:
        return items[0]
    words = ", ".join(class_shares.SAMPLING_STRATEGIES)
    return (
        parse_pairs("sampling_strategy", items, int, f"CLASS=count, or alone one of {words}")
        or "auto"
    )


def parse_counts(flag: str, items: Sequence[str]) -> tuple[tuple[str, int], ...]:
    """`["COVID=2379", "Normal=6509"]` to pairs.

    Raises:
      UserError: naming the flag: an item is not class=count, or names a class twice.
    """
    return parse_pairs(flag, items, int, "CLASS=count")


def check(
    sampler: str,
    distribution: Distribution,
    power: float | None,
    sampling_strategy: SamplingStrategy,
) -> None:
    """Refuses settings that are wrong for every data set.

    Raises:
      UserError: naming the flag.
    """
    if power is not None:
        if not 0 <= power <= 1:
            raise UserError(f"--balance_power={power} must lie within [0, 1]")
        if distribution:
            raise UserError(
                f"--balance_power={power} and --target_distribution both say which shares are "
                "wanted: give one of them"
            )
        if sampler not in sampler_table.names_with("takes_target"):
            raise sampler_table.no_meaning(f"--balance_power={power}", sampler, "takes_target")
    if isinstance(distribution, str) and distribution not in class_shares.DISTRIBUTIONS:
        raise UserError(
            f"--target_distribution={distribution} is not one of "
            f"{', '.join(class_shares.DISTRIBUTIONS)}: give one of them, or CLASS=share,…"
        )
    # Which classes the pairs name is checked when the data set is known, and so is a distribution.
    words: str | dict[int, int] = sampling_strategy if isinstance(sampling_strategy, str) else {}
    sampler_table.check(Sampling(sampler, sampling_strategy=words))


def resolve_distribution(
    distribution: Distribution,
    power: float | None,
    class_names: Sequence[str],
    counts: Sequence[int],
) -> tuple[float, ...] | None:
    """The wanted share of each class, summing to 1, in label order; None means uniform.

    Args:
      power: p of shares proportional to n_c^(1 - p); None: `distribution` says them.
      counts: n_c, training images of each class.

    Raises:
      UserError: a class is unknown, left out, or has a negative share.
    """
    if power is not None:
        return class_shares.power_shares(counts, 1 - power)
    if isinstance(distribution, str):
        return class_shares.power_shares(counts, class_shares.DISTRIBUTIONS[distribution])
    if not distribution:
        return None
    shares = dict(distribution)
    wrong = sorted(set(shares) ^ set(class_names))
    if wrong:
        raise UserError(
            f"--target_distribution must name each class of the data set once; "
            f"{few(map(repr, wrong))} is unknown or left out (classes: {few(class_names)})"
        )
    total = sum(shares.values())
    if min(shares.values()) < 0 or total <= 0:
        raise UserError(f"--target_distribution={shares}: shares must be 0 or more, not all 0")
    return tuple(shares[name] / total for name in class_names)


def resolve_sampling_strategy(
    sampling_strategy: SamplingStrategy, class_names: Sequence[str]
) -> str | dict[int, int]:
    """A sampling strategy as `Sampling` takes it: a word, or label -> wanted images.

    Raises:
      UserError: a class is unknown.
    """
    if isinstance(sampling_strategy, str):
        return sampling_strategy
    for name, count in sampling_strategy:
        if name not in class_names:
            raise UserError(
                f"--sampling_strategy={name}={count}: the data set has no such class "
                f"(classes: {few(class_names)})"
            )
    return {class_names.index(name): count for name, count in sampling_strategy}


def parse_pairs(
    flag: str, items: Sequence[str], kind: Callable[[str], Any], expected: str
) -> tuple[tuple[str, Any], ...]:
    """Parses `CLASS=value` items into pairs of name and value.

    Args:
      flag: its name, for the message; kind: turns the text after `=` into the value.
      expected: what an item must be, for the message.

    Raises:
      UserError: an item is something else, or names a class for the second time.
    """
    pairs: dict[str, Any] = {}
    for item in items:
        name, _, text = item.rpartition("=")
        try:
            value = kind(text)
        except ValueError:
            value = None
        if not name or value is None or name in pairs:
            raise UserError(f"--{flag}: {item!r} must be {expected}; name each class once")
        pairs[name] = value
    return tuple(pairs.items())
