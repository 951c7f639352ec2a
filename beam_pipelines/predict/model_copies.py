"""What workers need of run directories: a copy of a few files, put where every worker can read it.

So --model may lie on the disk of the machine that starts the command, and a detector that it has
just fitted goes along.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence

from cxr_tfrecords import files
from cxr_tfrecords.errors import UserError
from trainer.deployment.predictor import Classifier
from trainer.runs import run_files

_NEEDED = (
    run_files.CONFIG,
    run_files.SAMPLER_COUNTS,
    run_files.HISTORY,
    run_files.METRICS,
    run_files.MODEL,
    os.path.basename(run_files.predictions_path("", "validation")),
)
_IF_THERE = (run_files.SAMPLER_AUDIT, run_files.OUT_OF_DISTRIBUTION)


def fetch(run_dir: str, folder: str) -> str:
    """Copies what a prediction needs of a run directory in an object store to a local folder.

    Returns:
      `folder`.

    Raises:
      UserError: a file is missing or cannot be read.
    """
    present = files.names(run_dir)
    if missing := [name for name in _NEEDED if name not in present]:
        raise UserError(f"--model={run_dir} is not a finished run: it has no {missing[0]}")
    _copy(run_dir, folder, [name for name in (*_NEEDED, *_IF_THERE) if name in present])
    return folder


def save(classifiers: Sequence[Classifier], folder: str) -> list[str]:
    """Copies the runs of loaded models below a folder, local or remote; returns their folders.

    The copies also say how images were read, which runs of earlier versions ask their data set.
    """
    copies = []
    for number, one in enumerate(classifiers):
        copy = files.join(folder, str(number))
        names = [name for name in (*_NEEDED, *_IF_THERE) if name in files.names(one.path)]
        _copy(one.path, copy, names)
        content = files.read_json(os.path.join(one.path, run_files.CONFIG))
        content["dataset"]["reading"] = dataclasses.asdict(one.reading)
        files.write_json(files.join(copy, run_files.CONFIG), content)
        copies.append(copy)
    return copies


def _copy(source: str, target: str, names: Sequence[str]) -> None:
    files.makedirs(target)
    for name in names:
        data = files.read_bytes(files.join(source, name))
        with (
            files.replacing(files.join(target, name)) as temporary,
            files.open_file(temporary, "wb") as file,
        ):
            file.write(data)
