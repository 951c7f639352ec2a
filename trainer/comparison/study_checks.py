"""What a study refuses before its first run: runs that other settings have made, and runs that
cannot be trained. All of its runs are checked, and all that is wrong is said at once."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

from cxr_tfrecords import files
from cxr_tfrecords.errors import UserError
from trainer.comparison.method_grid import Cell
from trainer.comparison.study_cells import Study
from trainer.runs import run_files, same_run

_SHOWN_RUNS = 3
# The cell that something is wrong with, and what is wrong.
Problem = tuple[Cell, str]


def check_same_study(study: Study) -> None:
    """Refuses a folder with runs, finished or not, of other settings or data than the study's.

    A run that has neither results nor a checkpoint may have had any settings: it is replaced, as
    `trainer.main` does.

    Raises:
      UserError: it lists the settings that differ, and the runs.
    """
    problems = [(cell, text) for cell in study.cells for text in _differences(study, cell)]
    if problems:
        raise UserError(
            f"--study_dir={study.folder} holds runs that this command would not make. Nothing was "
            f"trained or changed.\n{_by_problem(problems)}\nGive the flags of these runs (--budget "
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
        elif study.is_finished(cell) or run_files.has_checkpoint(run_dir):
            if decoupled:
                yield from _base_differences(study, cell, decoupled)
                content = {**content, "config": decoupled["from_config"]}
            yield from same_run.differences(study.config(cell), study.data, content)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        yield f"{run_files.CONFIG} is damaged ({error})"


def _base_differences(study: Study, cell: Cell, decoupled: dict[str, Any]) -> Iterator[str]:
    if decoupled["method"] != cell.method.decoupled:
        yield f"--method: {decoupled['method']} there, {cell.method.decoupled} here"
    model = os.path.join(study.run_dir(study.base(cell)), run_files.MODEL)
    if os.path.exists(model) and same_run.hash_file(model) != decoupled["model_sha256"]:
        yield f"the run that it started from, {study.base(cell).name}, was trained again since"


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
