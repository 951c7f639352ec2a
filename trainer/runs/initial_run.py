"""The finished run whose weights another training starts from: `--init_from`. No Keras here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cxr_tfrecords.errors import UserError
from cxr_tfrecords.pages.class_lists import few
from cxr_tfrecords.pages.markdown import code, escaped
from trainer.balancing.loss_table import LOSSES
from trainer.runs import remote_run, run_files
from trainer.runs.finished_run import FinishedRun, read_kept_run
from trainer.runs.run_data import is_data_of
from trainer.settings.config import TrainConfig


def read_source(config: TrainConfig) -> FinishedRun:
    """The run that `config.init_from` names.

    Raises:
      UserError: it is not finished, its model was deleted, it has another backbone, or it was
        trained on images of this run's test fold.
    """
    flag = f"--init_from={config.init_from}"
    source = read_kept_run(config.init_from, "init_from")
    if source.config.backbone != config.backbone:
        raise UserError(
            f"{flag} has another backbone, {source.config.backbone}, than --backbone="
            f"{config.backbone}: give --backbone={source.config.backbone}, or a run of "
            f"{config.backbone}"
        )
    if source.config.fold != config.fold and is_data_of(source, config.data_dir):
        raise UserError(
            f"{flag} was trained with --fold={source.config.fold}, so it has seen test images of "
            f"--fold={config.fold}: name a run of --fold={config.fold}"
        )
    return source


def keeps_head(config: TrainConfig, class_names: Sequence[str], source: FinishedRun) -> bool:
    """Whether the layers after the backbone are taken over too: they have the same widths, kind
    and classes, in the same order."""
    return (
        list(class_names) == list(source.class_names)
        and config.head_units == source.config.head_units
        and config.used_rnn_units == source.config.used_rnn_units
        and LOSSES[config.loss].has_cosines == LOSSES[source.config.loss].has_cosines
    )


def describe(config: TrainConfig, class_names: Sequence[str]) -> str:
    """Where the initial weights come from, in words."""
    if not config.init_from:
        return f"weights {config.weights}"
    source = read_source(config)
    if keeps_head(config, class_names, source):
        return f"weights and head of {config.init_from}"
    reason = "another --head, --head_units or kind of loss"
    if list(class_names) != list(source.class_names):
        reason = f"other classes ({few(source.class_names)})"
    return f"weights of {config.init_from} with a new head (that run has {reason})"


def describe_source(config: TrainConfig, class_names: Sequence[str]) -> str:
    """For a report: what the weights of `init_from` were trained on; empty without `init_from`."""
    if not config.init_from:
        return ""
    try:
        source = read_source(config)
    except UserError:  # it was moved or deleted after the training
        return f"Started from the weights of {code(config.init_from)}, which is not there any more."
    return (
        f"Started from the {escaped(describe(config, class_names))}, trained on "
        f"{sum(source.samples['natural']):,} images of {code(source.dataset['path'])} at "
        f"{source.dataset['image_size']} px."
    )


def limits(config: TrainConfig) -> Iterator[str]:
    """What a report must say of the figures because of `init_from`."""
    if not config.init_from or not run_files.is_finished(remote_run.local(config.init_from)):
        return
    if warning := other_data(config):
        yield f"{escaped(warning)}."


def other_data(config: TrainConfig) -> str:
    """A warning if `init_from` was trained on another data set; else empty."""
    if not config.init_from:
        return ""
    source = read_source(config)
    if is_data_of(source, config.data_dir):
        return ""
    return (
        f"{config.init_from} was trained on other data ({source.dataset['path']}): if images or "
        "patients of these are in the test split here, its figures are too good"
    )
