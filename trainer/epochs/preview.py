"""What `trainer.sampler_preview` shows: samplers side by side, as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cxr_tfrecords import dataset_dir
from cxr_tfrecords.errors import UserError
from trainer.balancing import sampler_options
from trainer.balancing.sampler_table import names_with
from trainer.epochs.audit import EpochAudit, SamplerAudit
from trainer.settings.chosen_classes import ClassMap, choose_classes, describe
from trainer.settings.config import TrainConfig


def read_counts(
    data_dir: str,
    items: Sequence[str],
    fold: int | None = None,
    classes: Sequence[str] = (),
    class_map: ClassMap = (),
    all_splits: bool = False,
) -> tuple[tuple[str, ...], list[int]]:
    """Class names and the training images of each class.

    Args:
      data_dir: dataset directory to read them from, or empty.
      items: CLASS=count for each class, or empty.
      fold: test fold of a data set with folds, see `dataset_dir.load`.
      classes, class_map: of the data set, see `choose_classes`.
      all_splits: count the images of all splits.

    Raises:
      UserError: both or neither are given, or what is given cannot be read.
    """
    if bool(data_dir) == bool(items):
        raise UserError("give one of --data_dir and --counts")
    if data_dir:
        data = choose_classes(dataset_dir.load(data_dir, fold), classes, class_map)
        splits = data.counts if all_splits else ("train",)
        return data.class_names, [
            sum(n) for n in zip(*(data.counts[s] for s in splits), strict=True)
        ]
    if classes or class_map:
        raise UserError(
            f"{describe(classes, class_map)} chooses classes of a data set, and --counts names "
            "them itself: give only one"
        )
    pairs = sampler_options.parse_counts("counts", items)
    if min(count for _, count in pairs) < 0:
        raise UserError(f"--counts={','.join(items)}: counts must be 0 or more")
    return tuple(name for name, _ in pairs), [count for _, count in pairs]


def make_configs(
    names: Sequence[str], settings: Mapping[str, Any], **common: Any
) -> list[TrainConfig]:
    """One config for each sampler; with several samplers, each gets only the settings it takes.

    Args:
      names: samplers.
      settings: flag -> value, the settings of class balancing.
      common: other settings, the same for all samplers.

    Raises:
      UserError: a sampler is unknown, or no sampler takes a setting that was given.
    """
    if len(names) == 1:
        return [TrainConfig(data_dir="", sampler=names[0], **common, **settings)]
    configs = {name: dict(settings) for name in names}
    for flag, default, knowing in (
        ("sampling_strategy", "auto", names_with("sampling_strategies")),
        ("target_distribution", (), names_with("takes_target")),
        ("balance_power", None, names_with("takes_target")),
    ):
        if settings[flag] != default and not set(names) & set(knowing):
            raise UserError(
                f"--{flag}: no sampler of --sampler={','.join(names)} takes it: leave it out, or "
                f"add one of {', '.join(knowing)}"
            )
        for name in set(names) - set(knowing):
            configs[name][flag] = default
    return [TrainConfig(data_dir="", sampler=n, **common, **configs[n]) for n in names]


def describe_sampler(audit: SamplerAudit, batch_size: int) -> str:
    """Tables of an audit's epochs. Consecutive epochs with the same planned counts share one table,
    which shows the mean of their realised counts.

    Args:
      audit: with at least one epoch.
    """
    images = int(audit.rows[0].realised.sum())
    steps = images // batch_size
    lines = [
        f"{audit.sampler}: {images:,} images and {steps:,} step{'s' if steps != 1 else ''} of "
        f"{batch_size} an epoch"
    ]
    rows = audit.rows
    start = 0
    while start < len(rows):
        stop = start + 1
        while stop < len(rows) and np.array_equal(rows[stop].planned, rows[start].planned):
            stop += 1
        lines += _table(audit, rows[start:stop])
        start = stop
    return "\n".join(lines)


def _table(audit: SamplerAudit, rows: Sequence[EpochAudit]) -> list[str]:
    """Lines about epochs with the same planned counts; the last row sums the classes."""
    planned, last = rows[0].planned, rows[-1]
    realised = np.mean([row.realised for row in rows], axis=0)
    title = f"epochs {rows[0].epoch}-{last.epoch}" if len(rows) > 1 else f"epoch {last.epoch}"
    columns = {
        "natural": _with_shares(audit.counts),
        "planned": _with_shares(planned),
        "realised" + (", mean" if len(rows) > 1 else ""): _with_shares(realised),
        f"different, epoch {rows[0].epoch}": _with_sum(rows[0].unique),
        f"in {last.epoch} epoch{'s' if last.epoch > 1 else ''}": _with_sum(last.unique_so_far),
    }
    names = [*audit.class_names, "all"]
    first = max(map(len, [*names, title]))
    lines = [f"{title:{first}}" + "".join(f"{column:>20}" for column in columns)]
    for name, *cells in zip(names, *columns.values(), strict=True):
        lines.append(f"{name:{first}}" + "".join(f"{cell:>20}" for cell in cells))
    most = max(row.largest_repeat for row in rows)
    return [*lines, f"one image at most {most} time{'s' if most != 1 else ''} in an epoch"]


def _with_shares(counts: np.ndarray) -> list[str]:
    total = counts.sum()
    cells = [f"{count:,.0f} {count / total:6.1%}" for count in counts]
    return [*cells, f"{total:,.0f} {1:6.1%}"]


def _with_sum(counts: np.ndarray) -> list[str]:
    return [f"{count:,}" for count in (*counts.tolist(), int(counts.sum()))]
