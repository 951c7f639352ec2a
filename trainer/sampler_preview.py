"""Shows what samplers make of a data set, without training: counts, shares, coverage, steps.

  python -m trainer.sampler_preview --data_dir=DATA --sampler=all --out=samplers.png
  python -m trainer.sampler_preview --counts=COVID=2379,Lung_Opacity=3825,Normal=6509,\\
      "Viral Pneumonia=832" --sampler=undersample,oversample

The second needs no data set: these are the counts of Wuisan et al. 2022, Table IV, and what it
prints is their Table V. The plans are those that training with the same flags would follow.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from absl import flags

from cxr_tfrecords import dataset_dir
from cxr_tfrecords.errors import UserError, run_main
from trainer import pictures, sampler_audit, sampler_flags, sampler_settings, sampling_shares
from trainer.config import TrainConfig

FLAGS = flags.FLAGS
flags.adopt_module_key_flags(sampler_flags)

flags.DEFINE_string("data_dir", "", "Dataset directory that beam_pipelines.build has written.")
flags.DEFINE_list(
    "counts",
    [],
    "Training images of each class instead of a data set, as COVID=2379,Normal=6509.",
)
flags.DEFINE_list(
    "sampler",
    ["all"],
    f"One or more of {', '.join(sampling_shares.SAMPLERS)}; all: all of them. `python -m "
    "trainer.main --help` says what each does.",
)
flags.DEFINE_integer(
    "epochs", 3, "Epochs to look at; progressive gets to equal shares over them.", lower_bound=1
)
flags.DEFINE_integer("batch_size", 32, "Images in a step, over all devices.", lower_bound=1)
flags.DEFINE_integer("seed", 0, "Of the sampling.")
flags.DEFINE_string("out", "", "A picture (PNG) of the classes before and after. Empty: none.")


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise UserError(f"unknown argument {argv[1]!r}: flags look like --name=value")
    class_names, counts = _read_counts()
    print(f"{sum(counts):,} training images of {len(counts)} classes, seed {FLAGS.seed}")
    sampled: dict[str, Sequence[int]] = {}
    for config in _configs():
        audit = sampler_audit.SamplerAudit(config, class_names, counts)
        audit.catch_up(config.epochs)
        print(f"\n{describe_sampler(audit, config.batch_size)}", flush=True)
        last = audit.rows[-1]
        moves = config.sampler == "progressive"
        title = f"{config.sampler}, epoch {last.epoch}" if moves else config.sampler
        sampled[title] = last.planned.tolist()
    if FLAGS.out:
        if os.path.dirname(FLAGS.out):
            os.makedirs(os.path.dirname(FLAGS.out), exist_ok=True)
        pictures.write_sampling_picture(FLAGS.out, class_names, counts, sampled)
        print(f"\n{FLAGS.out} shows it")


def describe_sampler(audit: sampler_audit.SamplerAudit, batch_size: int) -> str:
    """Tables of an audit's epochs; epochs that plan the same share one, with mean realised counts.

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


def _table(
    audit: sampler_audit.SamplerAudit, rows: Sequence[sampler_audit.EpochAudit]
) -> list[str]:
    """Lines on epochs with one plan; the last row sums the classes."""
    planned, last = rows[0].planned, rows[-1]
    realised = np.mean([row.realised for row in rows], axis=0)
    several = f"s {rows[0].epoch}-{last.epoch}" if len(rows) > 1 else f" {last.epoch}"
    columns = {
        "natural": _with_shares(audit.counts),
        "planned": _with_shares(planned),
        "realised" + (", mean" if len(rows) > 1 else ""): _with_shares(realised),
        f"different, epoch {rows[0].epoch}": _with_sum(rows[0].unique),
        f"in {last.epoch} epoch{'s' if last.epoch > 1 else ''}": _with_sum(last.unique_so_far),
    }
    names = [*audit.class_names, "all"]
    first = max(map(len, [*names, f"epoch{several}"]))
    lines = [f"{f'epoch{several}':{first}}" + "".join(f"{title:>20}" for title in columns)]
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


def _read_counts() -> tuple[tuple[str, ...], list[int]]:
    """Class names and training images of each."""
    if bool(FLAGS.data_dir) == bool(FLAGS.counts):
        raise UserError("give one of --data_dir and --counts")
    if FLAGS.data_dir:
        data = dataset_dir.load(FLAGS.data_dir)
        return data.class_names, list(data.counts["train"])
    pairs = sampler_settings.parse_counts("counts", FLAGS.counts)
    if min(count for _, count in pairs) < 0:
        raise UserError(f"--counts={','.join(FLAGS.counts)}: none may be negative")
    return tuple(name for name, _ in pairs), [count for _, count in pairs]


def _configs() -> list[TrainConfig]:
    """One for each sampler; a setting goes to those samplers that know it.

    Raises:
      UserError: a sampler is unknown, or none of them knows a setting.
    """
    every = FLAGS.sampler == ["all"]
    names = sampling_shares.SAMPLERS if every else FLAGS.sampler
    settings = sampler_flags.parsed_settings(FLAGS)
    for kind, flag, usual in (
        (sampling_shares.RESIZED, "sampling_strategy", "auto"),
        (sampling_shares.TARGETED, "target_distribution", ()),
        (sampling_shares.TARGETED, "balance_power", None),
    ):
        if len(names) > 1 and settings[flag] != usual and not set(names) & set(kind):
            raise UserError(f"--{flag}: no sampler of --sampler={','.join(names)} takes it")
    configs = []
    for name in names:
        own = dict(settings)
        if len(names) > 1 and name not in sampling_shares.TARGETED:
            own |= {"target_distribution": (), "balance_power": None}
        if len(names) > 1 and name not in sampling_shares.RESIZED:
            own["sampling_strategy"] = "auto"
        configs.append(
            TrainConfig(
                data_dir=FLAGS.data_dir,
                sampler=name,
                epochs=FLAGS.epochs,
                batch_size=FLAGS.batch_size,
                seed=FLAGS.seed,
                **own,
            )
        )
    return configs


if __name__ == "__main__":
    run_main(main)
