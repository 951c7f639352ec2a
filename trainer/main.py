"""Trains a classifier of radiographs on a dataset directory and evaluates it exactly.

  python -m trainer.main --data_dir=DATA --run_dir=RUN --strategy=cpu --backbone=mobilenet_v2 \\
      --weights=FILE.h5 --sampler=oversample

Without flags it trains the small `tiny` network on the embedded synthetic radiographs. The run
directory gets the model (model.keras), every prediction on validation and test, the metrics
computed from them, the history, pictures and report.md. The same command on the same --run_dir
goes on after the last checkpoint, with results as if it had never stopped. Exit codes: 0 done, 2 a
mistake to mend, 3 the loss is no number any more, 75 interrupted (SIGTERM, a lost worker): run the
same command again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from typing import Any

from absl import flags, logging

from cxr_tfrecords.errors import UserError, run_main
from trainer.distribution import tpu_versions
from trainer.settings import config as settings
from trainer.settings import distribution_flags, running_flags, sampler_flags

FLAGS = flags.FLAGS
flags.adopt_module_key_flags(sampler_flags)
flags.adopt_module_key_flags(distribution_flags)
flags.adopt_module_key_flags(running_flags)
DEFAULT_DATA = "data/synthetic-tfrecords"

# Data and where results go
flags.DEFINE_string(
    "data_dir", DEFAULT_DATA, "Dataset directory that beam_pipelines.build has written."
)
flags.DEFINE_string(
    "run_dir",
    "",
    "Where everything goes. Empty: runs/<backbone>-<sampler>[-<loss>][-mixup]-seed<seed>. An "
    "unfinished run there is resumed, a finished one is reported; a run with other flags is "
    "refused.",
)
flags.DEFINE_integer(
    "image_size",
    0,
    "A check: the side in pixels that the data set must have. 0: whatever it has. Images are "
    "resized when a data set is built, not here.",
    lower_bound=0,
)
flags.DEFINE_enum(
    "mask",
    "none",
    settings.MASKS,
    "What the model sees, in all splits. none: whole images. lungs: black outside the lungs. "
    "background: black inside them; a model that is good at that has learned a shortcut. Needs a "
    "data set built --with_masks.",
)
# How it computes; where it runs is in distribution_flags, host loops and saving in running_flags
flags.DEFINE_enum(
    "mixed_precision",
    "float32",
    settings.PRECISIONS,
    "float32. bfloat16: compute in it, keep weights and logits in float32 (TPUs, newer GPUs).",
)
# The model
flags.DEFINE_enum(
    "backbone",
    "tiny",
    settings.BACKBONES,
    "tiny: four convolutions, to try things out. resnet18, resnet34, alexnet: as in torchvision. "
    "The others: as in keras.applications. docs/backbones.md compares them.",
)
flags.DEFINE_string(
    "weights",
    "auto",
    "Start of the backbone. imagenet: downloaded once. none: random. FILE: a weights file (.h5) of "
    "the backbone without its top. auto: imagenet for those of keras.applications, none for "
    "the others.",
)
flags.DEFINE_string(
    "trainable",
    "all",
    "all: every layer learns. head: only what follows the backbone. from:LAYER: also the "
    "backbone from that layer on.",
)
flags.DEFINE_list(
    "head_units",
    [],
    "Widths of dense layers before the output, as 256,64. Empty: none, the output follows pooling.",
)
flags.DEFINE_float("dropout", 0.2, "Share dropped before each dense layer. 0: none.")
flags.DEFINE_enum(
    "batch_norm",
    "adapt",
    settings.BATCH_NORMS,
    "adapt: before every evaluation the moving statistics are set to the moments of --bn_examples "
    "images of the training stream, as sampled, so that evaluation agrees with training. "
    "adapt_natural: the same from training images at natural prevalence. train: the momentum that "
    "the backbone ships with (0.999 in MobileNetV2: wrong for some thousand steps). frozen: "
    "statistics and scales stay as the weights file has them.",
)
flags.DEFINE_integer("bn_examples", 512, "Images for --batch_norm=adapt*, at most.", lower_bound=1)
# The training stream
flags.DEFINE_enum(
    "sampler",
    "none",
    settings.SAMPLERS,
    "Balances the training images only. none: as they are. undersample: every class cut to the "
    "smallest. oversample: class c repeated round(max/n_c) times. oversample_exact: every class "
    "filled up to the largest. (For which classes: --sampling_strategy.) rejection: images of "
    "frequent classes refused at random. weighted: each image's class drawn. (To which shares: "
    "--target_distribution, --balance_power.) progressive: as many images as there are, with "
    "class shares that go from natural to equal over --epochs. "
    "`python -m trainer.sampler_preview` shows what each gives.",
)
flags.DEFINE_bool("flip", True, "Mirror half of the training images left to right, at random.")
flags.DEFINE_integer("batch_size", 32, "Images in a step, over all devices.", lower_bound=1)
flags.DEFINE_enum(
    "cache",
    "auto",
    settings.CACHES,
    "What is kept in memory. features: with --trainable=head, what the frozen backbone makes of "
    "each image and of its mirror image, computed once. memory: decoded images. none: nothing, "
    "images are decoded in every epoch. auto: features where they never change, else images, "
    "each if it fits in --cache_mb.",
)
flags.DEFINE_integer("cache_mb", 2048, "Largest split that auto keeps, MiB.", lower_bound=0)
# The loss
flags.DEFINE_enum(
    "loss",
    "cross_entropy",
    settings.LOSSES,
    "Of training; validation is always scored by plain cross-entropy. Counts are the training "
    "split's, before any sampler. class_weighted: weights n/(k n_c). effective_number: weights "
    "(1-beta)/(1-beta^n_c). focal: well-classified images count less. balanced_softmax: the "
    "logarithm of the counts is added to the logits in training. logit_adjusted: tau times it. "
    "ldam_drw: larger margins for rare classes on a cosine output layer, weights late. Those that "
    "use counts make probabilities of balanced classes: consider "
    "--monitor=validation_balanced_accuracy, and recalibrate before probabilities are read.",
)
flags.DEFINE_float(
    "effective_number_beta",
    0.999,
    "effective_number, and ldam_drw's weights. 0: all classes alike. Near 1: like 1/n_c.",
)
flags.DEFINE_float("focal_gamma", 2.0, "focal: the power of 1-p. 0: cross-entropy.")
flags.DEFINE_float(
    "logit_adjustment_tau",
    1.0,
    "logit_adjusted: 0: cross-entropy. 1: the same as balanced_softmax. Above: favours rare "
    "classes more.",
)
flags.DEFINE_float(
    "ldam_max_margin", 0.5, "ldam_drw: margin of the rarest class, in units of the cosine."
)
flags.DEFINE_float("ldam_scale", 30.0, "ldam_drw: what cosines are multiplied by to be logits.")
flags.DEFINE_integer(
    "drw_epoch",
    0,
    "ldam_drw: first epoch, from 1, that weighs classes by effective numbers. 0: after 80% of "
    "--epochs. Above --epochs: never. Early stopping may come before it.",
    lower_bound=0,
)
flags.DEFINE_enum(
    "mixup",
    "plain",
    settings.MIXUPS,
    "With --mixup_alpha above 0. plain: every image is mixed with another of its epoch. balanced: "
    "with one from a class-balanced stream.",
)
flags.DEFINE_float(
    "mixup_alpha",
    0.0,
    "0: no mixup. plain: weights are Beta(alpha, alpha), usually 0.2. balanced: the balanced "
    "image's weight is Beta(alpha, 1), usually 0.1 to 0.3.",
)
# Optimization
flags.DEFINE_enum(
    "optimizer",
    "adamax",
    settings.OPTIMIZERS,
    "adamax, adam: as in Keras. sgd: with momentum 0.9.",
)
flags.DEFINE_float("learning_rate", 0.001, "At the start.")
flags.DEFINE_integer("epochs", 20, "At most.", lower_bound=1)
flags.DEFINE_integer(
    "steps_per_epoch",
    0,
    "Steps between two evaluations. 0: an epoch of the sampler, whose length depends on it. The "
    "same number with every sampler compares them at equal updates.",
    lower_bound=0,
)
flags.DEFINE_enum(
    "monitor",
    "validation_loss",
    settings.MONITORS,
    "Column of history.csv that decides on the best weights, early stopping and the learning "
    "rate. validation_loss is the cross-entropy at natural prevalence, whatever sampler and loss.",
)
flags.DEFINE_integer(
    "early_stopping_patience", 3, "Epochs without improvement before stopping. 0: never.", 0
)
flags.DEFINE_integer(
    "reduce_lr_patience",
    1,
    "Epochs without improvement before the learning rate is lowered. 0: never.",
    lower_bound=0,
)
flags.DEFINE_float("reduce_lr_factor", 0.1, "What lowering multiplies the learning rate by.")
flags.DEFINE_integer("seed", 0, "Of initial weights, sampling, flips and dropout.")


def config_from_flags() -> settings.TrainConfig:
    """The flags as one value; the only place that reads them."""
    parsed: dict[str, Any] = {
        "head_units": settings.parse_head_units(FLAGS.head_units),
        **sampler_flags.parsed_settings(FLAGS),
    }
    names = settings.TrainConfig.__dataclass_fields__
    plain: dict[str, Any] = {name: FLAGS[name].value for name in names if name not in parsed}
    return settings.TrainConfig(**plain, **parsed)


def _check_file_systems(config: settings.TrainConfig) -> None:
    """The build reads and writes wherever fsspec does; TensorFlow knows fewer file systems."""
    import tensorflow as tf

    if "://" in config.run_dir:
        raise UserError(
            f"--run_dir={config.run_dir}: a run is written to a local disk: name a folder there, "
            "and copy it when it is finished"
        )
    scheme, separator, _ = config.data_dir.partition("://")
    if separator and scheme not in tf.io.gfile.get_registered_schemes():
        raise UserError(
            f"--data_dir={config.data_dir}: TensorFlow cannot read {scheme}://: copy the data set "
            "to a local disk or to gs://"
        )


def main(argv: list[str]) -> None:
    del argv
    config = config_from_flags()
    if config.data_dir == DEFAULT_DATA and not os.path.exists(DEFAULT_DATA):
        raise UserError(
            f"no --data_dir, and {DEFAULT_DATA} does not exist: make it with "
            "`python -m beam_pipelines.build`"
        )
    from cxr_tfrecords.quiet import quiet_tensorflow

    if config.strategy in ("tpu", "auto"):
        tpu_versions.check_libtpu(tpu_versions.installed_versions())
    quiet_tensorflow()
    if not FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)  # TensorFlow logs every checkpoint's sharding
    _check_file_systems(config)
    # Imported late: --help and a mistyped flag answer at once.
    from cxr_tfrecords import dataset_dir
    from trainer.distribution import lost_workers, preemption, strategies
    from trainer.training.run import run

    preemption.listen()
    if config.strategy == "auto":
        name, reason = strategies.choose_strategy(
            os.environ, virtual_devices=config.virtual_devices, tpu=config.tpu
        )
        print(f"strategy {name}: {reason}", flush=True)
        config = dataclasses.replace(config, strategy=name)
    several = config.strategy == "multi_worker"
    if several:
        lost_workers.start(config.worker_timeout)
    with lost_workers.explained_losses() if several else contextlib.nullcontext():
        strategy = strategies.create_strategy(
            config.strategy, virtual_devices=config.virtual_devices, tpu=config.tpu
        )
        preemption.listen()  # again: TensorFlow's coordination service has taken SIGTERM for itself
        run(config, dataset_dir.load(config.data_dir), strategy)


if __name__ == "__main__":
    run_main(main)
