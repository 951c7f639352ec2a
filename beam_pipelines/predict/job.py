"""A prediction from start to end: list files, send chunks of them to workers, join their rows."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from typing import Any

from apache_beam.options.pipeline_options import PipelineOptions

from beam_pipelines.inputs.sources import in_blocks
from beam_pipelines.predict import model_copies
from beam_pipelines.predict.model_handler import (
    ClassifierHandler,
    Models,
    Predict,
    keep,
)
from beam_pipelines.running.beam_runner import run_pass
from beam_pipelines.running.local_cores import default_threads
from cxr_tfrecords import csv_rows, files
from cxr_tfrecords.concurrency import locks, temporary
from cxr_tfrecords.errors import UserError
from trainer.deployment import prediction_rows
from trainer.deployment.input_files import find_files
from trainer.deployment.predictor import Classifier
from trainer.deployment.several_models import load_models

# Files of a chunk, at least: few, so that the progress bar moves often and all workers have work.
_CHUNK, _LARGE_CHUNK, _LARGE_SET = 64, 1024, 100_000


def predict(
    run_dirs: Sequence[str],
    source: str,
    output: str,
    settings: dict[str, Any],
    options: PipelineOptions,
    threads: int,
) -> None:
    """Predicts the files of `source` into the CSV file `output`, and prints what was predicted.

    Workers write rows below `output`.parts, a folder beside it that all of them must see. If the
    same command is run again after it was stopped, what is there is not predicted again.

    Args:
      run_dirs: finished runs, on the local disk or in an object store.
      settings: of the models, see `load_models`.
      threads: that read files in each worker; 0: as many as `default_threads` says.

    Raises:
      UserError: a model or the input cannot be used, `output` cannot be written, or a worker
        failed.
    """
    with temporary.folder("models") as local_models:
        local = [
            one
            if files.is_local(one)
            else model_copies.fetch(
                one, os.path.join(local_models, str(number), files.base_name(one))
            )
            for number, one in enumerate(run_dirs)
        ]
        classifiers = load_models(local, **settings)
        folder, ids = find_files(source, output)
        # Workers may have another current folder.
        folder, scratch = _absolute(folder), _absolute(f"{output}.parts")
        with locks.held(scratch, f"--output={output}"):
            with files.explained(output, "output"):
                _start(scratch, classifiers, folder, ids)
                models = _send(classifiers, files.join(scratch, "models"), settings)
            handler = ClassifierHandler(models, folder, threads or default_threads(options))
            parts = _run(handler, scratch, ids, classifiers[0].batch_size, options)
            with files.explained(output, "output"):
                result = _join(output, parts, classifiers, ids)
                files.remove_tree(scratch)
        prediction_rows.show_result(output, *result)


def _absolute(path: str) -> str:
    return os.path.abspath(path) if files.is_local(path) else path


def _send(classifiers: Sequence[Classifier], folder: str, settings: dict[str, Any]) -> Models:
    """Puts the models where workers can read them."""
    for one in classifiers:
        if one.detector and not one.detector.is_stored:
            raise UserError(
                f"--model={one.path} cannot be written to, and workers need the detector of images "
                "unlike the training images there: make it writable, or give --ood_method=none"
            )
    copies = model_copies.save(classifiers, folder)
    if not all(one.detector for one in classifiers):  # it cannot be had on a worker either
        settings = {**settings, "ood_method": "none"}
    content = json.dumps(prediction_rows.row_settings(classifiers))
    models = Models(
        tuple(copies),
        hashlib.sha256(content.encode()).hexdigest(),
        **{**settings, "deploy_prior": tuple(settings["deploy_prior"])},
    )
    keep(models, classifiers)
    return models


def _start(scratch: str, classifiers: Sequence[Classifier], folder: str, ids: list[str]) -> None:
    """Makes the scratch folder; rows in it that are of other models, settings or files go."""
    path = files.join(scratch, "settings.json")
    settings = {
        **prediction_rows.row_settings(classifiers),
        "input": folder,
        "ids": prediction_rows.hash_ids(ids),
    }
    if not files.exists(path) or files.read_json(path) != settings:
        for name in ("chunks", "rows"):
            files.remove_tree(files.join(scratch, name))
    for name in ("", "chunks", "rows"):
        files.makedirs(files.join(scratch, name) if name else scratch)
    files.write_json(path, settings)


def _run(
    handler: ClassifierHandler,
    scratch: str,
    ids: list[str],
    batch_size: int,
    options: PipelineOptions,
) -> list[str]:
    """Runs the pass over the chunks that are not done yet; the paths of all parts, in order."""
    size = _CHUNK if len(ids) <= _LARGE_SET else _LARGE_CHUNK
    size = -(-size // batch_size) * batch_size  # whole batches, as padding costs time
    done = files.names(files.join(scratch, "rows"))
    tasks, parts, weights = [], [], {}
    for number, block in enumerate(in_blocks(ids, size)):
        name = f"{number:08d}.json"
        parts.append(files.join(scratch, "rows", name))
        if name not in done:
            chunk = files.join(scratch, "chunks", name)
            files.write_json(chunk, block)
            tasks.append((chunk, parts[-1]))
            weights[name] = len(block)
    run_pass(
        "Predict",
        tasks,
        Predict(handler),
        options,
        done_folder=files.join(scratch, "rows"),
        weights=weights,
        initial=len(ids) - sum(weights.values()),
    )
    return parts


def _join(
    output: str, parts: Sequence[str], classifiers: Sequence[Classifier], ids: Sequence[str]
) -> tuple[dict[str, int], int | None, dict[str, str]]:
    """Writes the rows of all parts, of which one is in memory; what `show_result` takes.

    Raises:
      UserError: there is no row.
    """
    columns = prediction_rows.header(classifiers)
    flag = columns.index(prediction_rows.FLAG) if prediction_rows.FLAG in columns else None
    counts, flagged = dict.fromkeys(classifiers[0].class_names, 0), 0
    rejected: dict[str, str] = {}
    with files.replacing(output) as temporary, csv_rows.open_csv(temporary, "w") as file:
        writer = csv_rows.writer(file)
        writer.writerow(columns)
        for path in parts:
            content = files.read_json(path)
            writer.writerows(content["rows"])
            rejected |= content["rejected"]
            for row in content["rows"]:
                counts[row[1]] += 1
                flagged += flag is not None and row[flag] == "1"
        if not sum(counts.values()):
            raise prediction_rows.nothing_usable(ids, rejected)
    return counts, None if flag is None else flagged, rejected
