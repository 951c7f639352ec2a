"""Whether a run directory holds the run that a command would train. Nothing here needs Keras."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Mapping
from typing import Any

from cxr_tfrecords import files
from cxr_tfrecords.dataset_dir import DatasetDir
from cxr_tfrecords.errors import UserError
from trainer.balancing.loss_table import LOSSES
from trainer.balancing.sampler_table import SAMPLERS
from trainer.runs import remote_run, run_files
from trainer.settings.config import TrainConfig


def check_same_run(config: TrainConfig, data: DatasetDir) -> None:
    """Refuses a run directory whose checkpoints or results come from other settings or data.

    A run without a checkpoint may be started again with other settings: `start_run` replaces them.
    `epochs` may have grown, if the epochs before do not depend on it.

    Raises:
      UserError: it names each flag that differs, with both values.
    """
    path = os.path.join(config.run_dir, run_files.CONFIG)
    if not os.path.exists(path):
        return
    if _is_decoupled(path):
        raise UserError(
            f"--run_dir={config.run_dir} holds a run of trainer.decouple: name another --run_dir"
        )
    if not run_files.has_checkpoint(config.run_dir):
        if run_files.is_finished(config.run_dir) and added_epochs(config):
            raise UserError(
                f"--run_dir={config.run_dir} cannot go on to --epochs={config.epochs}, because its "
                "checkpoints were deleted: start again in another --run_dir"
            )
        return
    try:
        content = files.read_json(path)
        differing = differences(config, data, content)
        if config.epochs > content["config"]["epochs"]:
            reason = why_epochs_are_fixed(config)
            differing = [text for text in differing if not text.startswith("--epochs:")]
            if reason:
                epochs = content["config"]["epochs"]
                differing.append(f"--epochs: {epochs} there, {config.epochs} here, and {reason}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is damaged ({error}): use another --run_dir") from error
    if differing:
        raise UserError(
            f"--run_dir={config.run_dir} holds another run: name another --run_dir, or give that "
            f"run's flags ({'; '.join(differing)})"
        )


def has_nothing_to_train(config: TrainConfig) -> bool:
    """Whether the directory holds the finished run, with no fewer epochs."""
    return run_files.is_finished(config.run_dir) and not added_epochs(config)


def added_epochs(config: TrainConfig) -> int:
    """How many epochs `config` adds to the run in its directory. None to a run that has stopped
    early, since it would have done so with any larger number."""
    before = _epochs(config.run_dir)
    if not before or stopped_early(config.run_dir):
        return 0
    return max(0, config.epochs - before)


def stopped_early(run_dir: str) -> bool:
    """Whether a finished run has trained fewer epochs than it might have."""
    try:
        with open(os.path.join(run_dir, run_files.HISTORY), "rb") as file:
            trained = len(file.readlines()) - 1
    except OSError:
        return False
    return run_files.is_finished(run_dir) and trained < _epochs(run_dir)


def _epochs(run_dir: str) -> int:
    """`--epochs` of the run in a directory; 0 if there is none."""
    try:
        return int(files.read_json(os.path.join(run_dir, run_files.CONFIG))["config"]["epochs"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def why_epochs_are_fixed(config: TrainConfig) -> str:
    """What makes earlier epochs depend on how many there are in all; empty: nothing."""
    if SAMPLERS[config.sampler].varies_by_epoch:
        return f"--sampler={config.sampler} spreads its class shares over all epochs"
    if config.lr_schedule == "cosine":
        return "--lr_schedule=cosine lowers the learning rate up to the last epoch"
    if LOSSES[config.loss].has_late_weights and not config.drw_epoch:
        return f"--loss={config.loss} weighs classes after 80% of the epochs"
    return ""


def check_decoupled_run(run_dir: str) -> None:
    """Refuses a directory that holds a run, unless it is an unfinished run of trainer.decouple,
    which takes little time to repeat.

    Raises:
      UserError: the directory holds a run.
    """
    path = os.path.join(run_dir, run_files.CONFIG)
    if run_files.is_finished(run_dir) or (os.path.exists(path) and not _is_decoupled(path)):
        raise UserError(f"--run_dir={run_dir} holds a run already: name another --run_dir")


def _is_decoupled(config_path: str) -> bool:
    try:
        return "decoupled" in files.read_json(config_path)
    except (OSError, ValueError, TypeError):
        return False


def differences(config: TrainConfig, data: DatasetDir, content: Mapping[str, Any]) -> list[str]:
    """What a run directory differs in from the run that `config` describes, as one text each:
    `--flag: value there, value here`. Settings that a resumed run may change are left out.

    Args:
      content: of the directory's config.json.

    Raises:
      ValueError, KeyError, TypeError: it is not the content of one.
    """
    dataset = content["dataset"]
    differing = config.differences(content["config"])
    # Other classes have another fingerprint, whatever the data set.
    other_classes = any(text.startswith(("--classes:", "--map_classes:")) for text in differing)
    if dataset["fingerprint"] != data.fingerprint and not other_classes:
        differing.append(
            f"--data_dir: {dataset.get('path')} (fingerprint {dataset['fingerprint'][:8]}) "
            f"there, {data.path} (fingerprint {data.fingerprint[:8]}) here"
        )
    weights = content.get("weights_sha256")
    if weights and os.path.isfile(config.weights) and hash_file(config.weights) != weights:
        differing.append(f"--weights={config.weights}: the file has changed since")
    initial = content.get("init_from_sha256")
    if initial and hash_initial_model(config.init_from) not in ("", initial):
        differing.append(f"--init_from={config.init_from}: its model has changed since")
    return differing


def hash_initial_model(init_from: str) -> str:
    """SHA-256 of the model of `--init_from`, hexadecimal; empty where there is none any more."""
    if not init_from:
        return ""
    path = os.path.join(remote_run.local(init_from), run_files.MODEL)
    return hash_file(path) if os.path.isfile(path) else ""


def hash_file(path: str) -> str:
    """SHA-256 of a file, hexadecimal. A file that was not changed since is not read again."""
    status = os.stat(path)
    return _hash_version(path, status.st_mtime_ns, status.st_size)


@functools.lru_cache
def _hash_version(path: str, modified_ns: int, size: int) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
