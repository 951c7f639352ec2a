"""What a study refuses before its first run: runs that other settings have made, and runs that
cannot be trained. All of its runs are checked, and all that is wrong is said at once."""

from __future__ import annotations

import concurrent.futures
import math
import multiprocessing
import os
import shutil
from collections.abc import Iterator, Sequence
from typing import Any

from cxr_tfrecords import files
from cxr_tfrecords.dataset_dir import DatasetDir
from cxr_tfrecords.errors import UserError
from trainer.balancing.loss_table import LOSSES
from trainer.comparison.method_grid import DECOUPLED, Cell
from trainer.comparison.study_cells import Study
from trainer.epochs.plan import EpochPlanner
from trainer.models import weights_files
from trainer.runs import initial_run, run_files, same_run
from trainer.settings.config import TrainConfig

_SHOWN_RUNS = 3
# Backbone, weights, init_from, trainable and head_units of a network that fits and takes little of
# the disk. It is not built, because importing TensorFlow takes seconds.
_SMALL = ("tiny", "none", "", "all", ())
# Bytes of a run's predictions, pictures and curves: about 2 MB, 5 with room to spare.
_SMALL_FILES = 5_000_000
# The cell that something is wrong with, and what is wrong.
Problem = tuple[Cell, str]


def check_same_study(study: Study, *others: Study) -> None:
    """Refuses a folder with runs, finished or not, of other settings or data than the study's.

    Args:
      others: the same cells with other values; a run may be of any of these studies.

    A run that has neither results nor a checkpoint may have had any settings: it is replaced, as
    `trainer.main` does.

    Raises:
      UserError: it lists the settings that differ, and the runs.
    """
    problems = []
    for cell in study.cells:
        differences = [list(_differences(one, cell)) for one in (study, *others)]
        if all(differences):
            problems += [(cell, text) for text in differences[0]]
    if problems:
        raise UserError(
            f"--study_dir={study.folder} holds runs that this command would not make. They were "
            f"left as they are.\n{_by_problem(problems)}\nGive the flags of these runs (--budget "
            "sets --steps_per_epoch and --early_stopping_patience), name another --study_dir, or "
            "delete these run directories to train them again"
        )


def _differences(study: Study, cell: Cell) -> Iterator[str]:
    run_dir = study.run_dir(cell)
    path = os.path.join(run_dir, run_files.CONFIG)
    if not os.path.exists(path):
        return
    try:
        content = files.read_json(path)
        decoupled = content.get("decoupled")
        if bool(decoupled) != bool(cell.method.decoupled):
            made_by = "trainer.decouple" if decoupled else "trainer.main"
            yield f"the directory holds a run of {made_by}"
        elif not study.needs_training(cell) or run_files.has_checkpoint(run_dir):
            if decoupled:
                yield from _base_differences(study, cell, decoupled)
                content = {**content, "config": decoupled["from_config"]}
            yield from same_run.differences(study.config(cell), study.data[cell.fold], content)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        yield f"{run_files.CONFIG} is damaged ({error})"


def _base_differences(study: Study, cell: Cell, decoupled: dict[str, Any]) -> Iterator[str]:
    method, flags = cell.method.decoupled, DECOUPLED[cell.method.decoupled]
    if decoupled["method"] != method:
        yield f"--method: {decoupled['method']} there, {method} here"
    elif decoupled["flags"] != flags:
        yield f"flags of trainer.decouple: {decoupled['flags']} there, {flags} here"
    model = os.path.join(study.run_dir(study.base(cell)), run_files.MODEL)
    if os.path.exists(model) and same_run.hash_file(model) != decoupled["model_sha256"]:
        yield f"the run that it started from, {study.base(cell).name}, was trained again since"


def check_classes(data: DatasetDir, benefit_class: str, deploy_prior: Sequence[str]) -> None:
    """Refuses flags that the comparison needs after all training, if they do not fit the classes.

    Args:
      benefit_class, deploy_prior: the flags of `trainer.compare`.

    Raises:
      UserError: it lists the names of the classes.
    """
    # Imported here: they need scipy, which --help of the command must not.
    from trainer.comparison.decision_curves import choose_class
    from trainer.deployment.corrected_probabilities import parse_deploy_prior

    choose_class(benefit_class, {"class_names": data.class_names, "counts": data.counts})
    parse_deploy_prior(deploy_prior, data.class_names)


def check_names(names: Sequence[str], reference: str) -> None:
    """Refuses a comparison of too few methods, or with a reference that is not one of them.

    Args:
      names: of the methods, with their backbones where there are several; some may come twice.
      reference: the flag of `trainer.compare`; empty: one is chosen.

    Raises:
      UserError: it lists the names.
    """
    names = list(dict.fromkeys(names))
    if len(names) < 2:
        raise UserError(
            f"{len(names)} method: at least 2 are needed for a comparison, add one to --methods, "
            "--backbones or --recipes"
        )
    if reference and reference not in names:
        raise UserError(f"--reference={reference} is not one of {', '.join(names)}")


def check_trainable(study: Study, cells: Sequence[Cell]) -> None:
    """Refuses a study with runs that could not be trained, before the first of them is.

    Settings, the first epoch, paths and free disk are checked for each run that is not finished,
    and each network is built once.

    Args:
      cells: those of the study that are to be trained here.

    Raises:
      UserError: it lists all that is wrong, and the runs.
    """
    todo = [cell for cell in cells if study.needs_training(cell)]
    problems = [(cell, text) for cell in todo for text in _problems(study, cell)]
    if not problems:
        problems = list(_network_problems(study, todo))
    if problems:
        count = len({cell for cell, _ in problems})
        raise UserError(
            f"{count} of the {len(cells)} runs cannot be trained. Nothing was trained.\n"
            f"{_by_problem(problems)}\nCorrect this, or leave these methods out"
        )


def _problems(study: Study, cell: Cell) -> Iterator[str]:
    """What is wrong with a run that has to be trained, as far as NumPy alone can tell."""
    base = study.run_dir(study.base(cell))
    if cell.method.decoupled:
        if study.is_finished(study.base(cell)) and not run_files.is_finished(base):
            yield f"it starts from {base}, whose {run_files.MODEL} is not there any more"
    else:
        try:
            config = study.config(cell)
            data = config.shown(study.data[cell.fold])
            EpochPlanner(config, data.class_names, data.counts["train"]).plan(0)
            # `_network_problems` reads the file, after all that is quick to check.
            weights_files.check(config.backbone, config.weights)
            if config.init_from:
                initial_run.read_source(config)
        except UserError as error:
            yield str(error)
    reason = _unwritable(study.run_dir(cell))
    if reason:
        yield reason


def _unwritable(path: str) -> str:
    """Why a folder cannot be made or written to; empty if it can."""
    if not files.is_local(path):
        return f"{path}: runs are written to a local disk, name a --study_dir there"
    return files.why_unwritable(path)


def _network_problems(study: Study, todo: Sequence[Cell]) -> Iterator[Problem]:
    """Runs whose network or weights do not fit, and a disk without room for the runs."""
    configs = {cell: study.config(cell) for cell in todo if not cell.method.decoupled}
    networks = {_network(c): c for c in configs.values() if _network(c)[: len(_SMALL)] != _SMALL}
    data = next(iter(study.data.values()))  # all folds have images of one size
    results = _build_in_other_process(list(networks.values()), data) if networks else []
    built = dict(zip(networks, results, strict=True))
    needed = 0
    for cell, config in configs.items():
        result = built.get(_network(config), (0, 0))
        if isinstance(result, str):
            yield cell, result
        else:
            needed += _run_bytes(config, *result)
    free = shutil.disk_usage(files.nearest_existing(study.folder)).free
    if free < needed:
        text = f"{study.folder}: {free / 1e9:.1f} GB are free, about {needed / 1e9:.1f} are needed"
        yield from ((cell, text) for cell in configs)


def _network(config: TrainConfig) -> tuple[Any, ...]:
    """What decides whether a network can be built; the first ones as in `_SMALL`."""
    cosines = LOSSES[config.loss].has_cosines
    start = config.backbone, config.weights, config.init_from
    return (
        *start,
        config.trainable,
        config.head_units,
        cosines,
        config.image_size,
        config.used_rnn_units,
    )


def _run_bytes(config: TrainConfig, parameters: int, trained: int) -> int:
    """About the largest size of a run directory: model.keras, the best weights of the checkpoints
    and of one that is being written, and checkpoints with two moments for each trained weight."""
    kept = config.keep_checkpoints + 1
    return _SMALL_FILES + 4 * (parameters * (1 + 2 * kept) + 2 * trained * kept)


def _build_in_other_process(
    configs: Sequence[TrainConfig], data: DatasetDir
) -> list[str | tuple[int, int]]:
    """`_build` in a process of its own, whose memory is free again before the first run."""
    plural = "" if len(configs) == 1 else "s"
    print(
        f"building {len(configs)} network{plural}, to see that weights and images fit", flush=True
    )
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, spawn) as pool:
        return pool.submit(_build, configs, data).result()


def _build(configs: Sequence[TrainConfig], data: DatasetDir) -> list[str | tuple[int, int]]:
    """For each run what is wrong with its network, or the numbers of its weights and of those that
    are trained."""
    from cxr_tfrecords.console.quiet import quiet_tensorflow

    quiet_tensorflow()
    from trainer.training.learner import create_network

    results: list[str | tuple[int, int]] = []
    for config in configs:
        try:
            model = create_network(config, data)
        except UserError as error:
            results.append(str(error))
        else:
            weights, trained = (
                sum(math.prod(v.shape) for v in variables)
                for variables in (model.variables, model.trainable_variables)
            )
            results.append((weights, trained))
    return results


def _by_problem(problems: Sequence[Problem]) -> str:
    """A line for each problem, with the runs that have it."""
    names: dict[str, list[str]] = {}
    for cell, text in problems:
        names.setdefault(text, []).append(cell.name)
    lines = []
    for text, cells in names.items():
        more = f" and {len(cells) - _SHOWN_RUNS} more" if len(cells) > _SHOWN_RUNS else ""
        lines.append(f"  {text} ({', '.join(cells[:_SHOWN_RUNS])}{more})")
    return "\n".join(lines)
