"""What a model card is filled from: the run, its data set, and other results where they are given.

Nothing is measured again, except what needs the run's predictions alone.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from cxr_tfrecords import dataset_dir, files
from cxr_tfrecords.errors import UserError
from cxr_tfrecords.sealed_files import read_sealed
from trainer.deployment.corrected_probabilities import plan_deployment
from trainer.evaluation.bootstrap import Interval
from trainer.exporting import contract
from trainer.external import text as external_text
from trainer.runs import report_intervals, run_files, same_run
from trainer.runs.finished_run import FinishedRun, read_run
from trainer.runs.run_data import find_place, reading_of


@dataclasses.dataclass(frozen=True)
class Elsewhere:
    """What trainer.evaluate found on one other data set, as text that is not escaped.

    Attributes:
      verdict: one sentence. notes: what a reader must know before any figure.
      metrics, classes: rows under `external.text.metric_header` and `class_header`.
    """

    verdict: str
    notes: list[str]
    metrics: list[list[str]]
    classes: list[list[str]]


@dataclasses.dataclass(frozen=True)
class Facts:
    """Everything that a card says.

    Attributes:
      run: with names in the place of paths, which say nothing to others.
      deployment: of deployment.json, see `exporting.contract`.
      exported: names of the exported files; empty: the model is used from the run directory.
      ends: metric -> interval on the test split. rare: classes with few groups of test images.
      manifest: of the data set; None if it is gone or was built again.
      detector: method and number of validation images of out_of_distribution.npz; None without it.
      elsewhere: one for each --evaluation.
      shortcuts: sentences of the verdict of trainer.shortcuts; empty if it was not run.
    """

    run: FinishedRun
    deployment: dict[str, Any]
    exported: tuple[str, ...]
    ends: dict[str, Interval]
    rare: Sequence[str]
    manifest: dict[str, Any] | None
    detector: tuple[str, int] | None
    elsewhere: list[Elsewhere]
    shortcuts: list[str]


def gather(
    run_dir: str, export: str = "", evaluations: Sequence[str] = (), shortcuts: str = ""
) -> Facts:
    """Reads a finished run, and the folders of trainer.export, .evaluate and .shortcuts.

    Raises:
      UserError: a file is missing or damaged, or a folder is of another run.
    """
    run = read_run(run_dir)
    deployment = _read_export(run, export) if export else _describe(run)
    ends, rare = report_intervals.intervals(run, "test")
    return Facts(
        run=_without_paths(run),
        deployment=deployment,
        exported=tuple(file["path"] for file in deployment.get("files", {}).values()),
        ends=ends,
        rare=rare,
        manifest=_read_manifest(run),
        detector=_read_detector(run, deployment["model_sha256"]),
        elsewhere=[_read_evaluation(run, folder) for folder in evaluations],
        shortcuts=_read_shortcuts(run, shortcuts) if shortcuts else [],
    )


def _describe(run: FinishedRun) -> dict[str, Any]:
    if not os.path.exists(os.path.join(run.path, run_files.MODEL)):
        raise UserError(f"{run.path} holds no {run_files.MODEL}: a card describes a model")
    return contract.describe_run(run, plan_deployment(run), reading_of(run), natural=True)


def _read_export(run: FinishedRun, export: str) -> dict[str, Any]:
    path = os.path.join(export, contract.FILE)
    content = read_sealed(path, "is this a folder of trainer.export?", "trainer.export")
    model = same_run.hash_file(os.path.join(run.path, run_files.MODEL))
    if content.get("model_sha256") != model:
        raise UserError(f"--export={export} was not exported from the model of {run.path}")
    return content


def _read_manifest(run: FinishedRun) -> dict[str, Any] | None:
    path = find_place(run)
    try:
        manifest = dataset_dir.read_manifest(path)
        fingerprint = manifest.get("fingerprint")
        if run.config.classes or run.config.map_classes:  # such a view has a fingerprint of its own
            data = dataset_dir.load(path, run.config.fold)
            fingerprint = run.config.with_classes(data).fingerprint
    except UserError:
        return None
    return manifest if fingerprint == run.dataset["fingerprint"] else None


def _read_detector(run: FinishedRun, model: str) -> tuple[str, int] | None:
    path = os.path.join(run.path, run_files.OUT_OF_DISTRIBUTION)
    try:
        with np.load(path) as content:
            fitted_on = json.loads(str(content["fitted_on"]))
            scores = len(content["validation_scores"])
    except files.DAMAGED_ARRAYS:
        return None
    return (fitted_on["method"], scores) if fitted_on.get("model") == model else None


def _read_evaluation(run: FinishedRun, folder: str) -> Elsewhere:
    path = os.path.join(folder, "evaluation.json")
    content = read_sealed(path, "is this a folder of trainer.evaluate?", "trainer.evaluate")
    try:
        figures = next((one for one in content["runs"] if _is_of(run, one["runs"][0])), None)
        if figures is None:
            names = ", ".join(map(external_text.run_name, content["runs"]))
            raise UserError(f"--evaluation={folder} is of other runs ({names}), not of {run.path}")
        return Elsewhere(
            external_text.verdict(content, external_text.run_name(figures), figures),
            list(external_text.notes(content)),
            external_text.metric_rows(figures),
            external_text.class_rows(content, figures),
        )
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise UserError(
            f"{path} has another layout than this version writes ({error!r}): run trainer.evaluate "
            "again"
        ) from error


def _read_shortcuts(run: FinishedRun, folder: str) -> list[str]:
    path = os.path.join(folder, "shortcuts.json")
    content = read_sealed(path, "is this a folder of trainer.shortcuts?", "trainer.shortcuts")
    try:
        if not _is_of(run, content["run"]):
            raise UserError(f"--shortcuts={folder} is of {content['run']}, not of {run.path}")
        return list(map(str, content["verdict"]["text"]))
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{path} has another layout than this version writes ({error!r}): run "
            "trainer.shortcuts again"
        ) from error


def _is_of(run: FinishedRun, path: str) -> bool:
    """Whether a path in another result is this run's, which may have been moved with its folder."""
    return os.path.basename(os.path.abspath(path)) == os.path.basename(os.path.abspath(run.path))


def _without_paths(run: FinishedRun) -> FinishedRun:
    """The run with short names for its folders and files, because a card is read elsewhere."""
    config = dataclasses.replace(
        run.config,
        data_dir="DATA",
        run_dir="RUN",
        weights=short(run.config.weights),
        init_from=short(run.config.init_from),
        data_service="",
    )
    decoupled = run.decoupled and {**run.decoupled, "from_run": short(run.decoupled["from_run"])}
    dataset = {**run.dataset, "path": short(run.dataset["path"])}
    return dataclasses.replace(run, config=config, dataset=dataset, decoupled=decoupled)


def short(path: str) -> str:
    """The last name of a path, without the backtick, which would end code in Markdown."""
    return os.path.basename(path.rstrip("/")).replace("`", "'")
