"""Shows what samplers do to a data set, without training: counts, shares, coverage, steps.

  python -m trainer.sampler_preview --data_dir=DATA --sampler=all --out=samplers.png
  python -m trainer.sampler_preview --data_dir=DATA --augment_rotation=10 --augment_out=changes.png
  python -m trainer.sampler_preview --counts=COVID=2379,Lung_Opacity=3825,Normal=6509,\\
      "Viral Pneumonia=832" --sampler=undersample,oversample

The second command draws augmented images. The third one needs no data set: it gives the counts of
Wuisan et al. 2022, Table IV, and prints their Table V. With --before_split=0.2 it also shows what
balancing all images before they are split would do. Training with the same flags follows the
same plans.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags

from cxr_tfrecords import dataset_dir
from cxr_tfrecords.console.quiet import quiet_tensorflow
from cxr_tfrecords.errors import UserError, run_main
from cxr_tfrecords.settings import define_flags, flag_values
from trainer.balancing.sampler_table import SAMPLERS
from trainer.epochs import before_split
from trainer.epochs.audit import SamplerAudit
from trainer.epochs.plan import EpochPlanner
from trainer.epochs.preview import describe_sampler, make_configs, read_counts
from trainer.runs import report_pictures
from trainer.settings.chosen_classes import choose_classes
from trainer.settings.config import AUGMENTATIONS, TrainConfig

FLAGS = flags.FLAGS
_SHARED = (
    "sampling_strategy",
    "target_distribution",
    "balance_power",
    "resample_each_epoch",
)
_OF_DATA = ("fold", "classes", "map_classes")
_CHANGES = ("flip", *AUGMENTATIONS, "augment_strength")
define_flags(TrainConfig, (*_SHARED, *_OF_DATA, *_CHANGES))

flags.DEFINE_string("data_dir", "", "Dataset directory that beam_pipelines.build has written.")
flags.DEFINE_list(
    "counts",
    [],
    "Training images of each class instead of a data set, as COVID=2379,Normal=6509.",
)
flags.DEFINE_list(
    "sampler",
    ["all"],
    f"One or more of {', '.join(SAMPLERS)}; all: all of them. `python -m "
    "trainer.main --help` says what each does.",
)
flags.DEFINE_integer(
    "epochs", 3, "Epochs to show; progressive reaches equal class shares over them.", lower_bound=1
)
flags.DEFINE_integer("batch_size", 32, "Images in a step, over all devices.", lower_bound=1)
flags.DEFINE_integer("seed", 0, "Seed of the sampling.")
flags.DEFINE_float(
    "before_split",
    None,
    "Share of a test split, as 0.2: show what it would hold if all images of the data set, or of "
    "--counts, were balanced before they are split: class shares, and test images with a copy in "
    "training.",
    lower_bound=0.01,
    upper_bound=0.99,
)
flags.DEFINE_string(
    "out", "", "File for a picture (PNG) of the class counts before and after. Empty: none."
)
flags.DEFINE_string(
    "augment_out",
    "",
    "File for a picture (PNG) of a training image of each class, changed by the --augment_* flags "
    "and --flip. Needs --data_dir. Empty: none.",
)


def main(argv: list[str]) -> None:
    del argv
    changes = TrainConfig(FLAGS.data_dir, **flag_values(TrainConfig, _CHANGES), seed=FLAGS.seed)
    if changes.augments != bool(FLAGS.augment_out):
        missing = "a flag such as --augment_rotation=10" if FLAGS.augment_out else "--augment_out"
        raise UserError(
            f"--augment_out is the picture of what the --augment_* flags do: add {missing}"
        )
    if FLAGS.augment_out and not FLAGS.data_dir:
        raise UserError("--augment_out needs images: name a data set with --data_dir")
    chosen = flag_values(TrainConfig, _OF_DATA)
    source = FLAGS.data_dir, FLAGS.counts, chosen["fold"], chosen["classes"], chosen["map_classes"]
    class_names, counts = read_counts(*source)
    print(f"{sum(counts):,} training images of {len(counts)} classes, seed {FLAGS.seed}")
    sampled: dict[str, Sequence[int]] = {}
    configs = make_configs(
        tuple(SAMPLERS) if FLAGS.sampler == ["all"] else FLAGS.sampler,
        flag_values(TrainConfig, _SHARED),
        epochs=FLAGS.epochs,
        batch_size=FLAGS.batch_size,
        seed=FLAGS.seed,
    )
    for config in configs:
        audit = SamplerAudit(config, class_names, counts)
        audit.catch_up(config.epochs)
        print(f"\n{describe_sampler(audit, config.batch_size)}", flush=True)
        last = audit.rows[-1]
        varies = SAMPLERS[config.sampler].varies_by_epoch
        title = f"{config.sampler}, epoch {last.epoch}" if varies else config.sampler
        sampled[title] = last.planned.tolist()
    if FLAGS.before_split is not None:
        everything = read_counts(*source, all_splits=True)
        print(f"\n{before_split.describe(*everything, FLAGS.before_split, FLAGS.seed)}")
    if FLAGS.out:
        if os.path.dirname(FLAGS.out):
            os.makedirs(os.path.dirname(FLAGS.out), exist_ok=True)
        report_pictures.write_sampling_picture(FLAGS.out, class_names, counts, sampled)
        print(f"\npicture of the class counts: {FLAGS.out}")
    if FLAGS.augment_out:
        _draw_augmented(changes, chosen)


def _draw_augmented(config: TrainConfig, chosen: Mapping[str, Any]) -> None:
    quiet_tensorflow()
    from trainer.runs.augmentation_picture import write_picture

    data = dataset_dir.load(config.data_dir, chosen["fold"])
    data = choose_classes(data, chosen["classes"], chosen["map_classes"])
    augmentation = EpochPlanner(config, data.class_names, data.counts["train"]).augmentation
    os.makedirs(os.path.dirname(FLAGS.augment_out) or ".", exist_ok=True)
    write_picture(FLAGS.augment_out, data, augmentation, flip=config.flip, seed=config.seed)
    print(f"\npicture of augmented images: {FLAGS.augment_out}")


if __name__ == "__main__":
    run_main(main)
