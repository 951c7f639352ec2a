"""An exported model in the place of a run: it needs the folder of trainer.export alone.

Where this module is imported, `Classifier.load` loads such a folder too.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from scipy.special import logit

from cxr_tfrecords.errors import UserError
from cxr_tfrecords.reading import Reading
from cxr_tfrecords.sealed_files import read_sealed
from trainer.deployment.corrected_probabilities import Deployment
from trainer.deployment.predictor import Classifier, Settings
from trainer.deployment.thresholds import COVERAGE, SENSITIVITY
from trainer.exporting import contract, formats
from trainer.exporting.format_table import FORMATS, INT8
from trainer.models import keras_files
from trainer.runs import run_data, same_run

_BATCH = 32


class ExportedClassifier(Classifier):
    """The model of a folder of trainer.export, of the first of the formats keras, saved_model,
    onnx and litert that is there and can be read. Thresholds are those of the export, and no image
    is flagged as unlike the training images, because this needs their features.

    Args:
      folder: of trainer.export.
      deploy_prior: as in `Classifier.load`; None: the shares that it was exported for.

    Raises:
      UserError: a file is missing, damaged or was changed, or the model needs lung masks.
    """

    def __init__(self, folder: str, deploy_prior: Sequence[float] | None) -> None:
        content = _read(folder)
        reading = _reading(folder, content)
        chosen = _choose_format(folder, content)
        if chosen == "keras":
            path = os.path.join(folder, FORMATS["keras"].path)
            whole = keras_files.load(path)
            model = keras.Model(whole.inputs, whole.output["logits"])
            self._answer = formats.of_model(whole)
        else:
            model = None
            self._answer = formats.open_written(chosen, folder)
        thresholds = [
            np.inf if value is None else logit(value)
            for value in content["operating_points"]["thresholds"].values()
        ]
        super().__init__(
            folder,
            content["class_names"],
            deployment=_deployment(content, deploy_prior),
            thresholds=np.array(thresholds),
            set_thresholds=np.array([*content["prediction_sets"]["thresholds"].values()]),
            reading=reading,
            batch_size=_BATCH,
            model=model,
        )
        self._model_hash = content["model_sha256"]
        for warning in self.deployment.temperature_warnings():
            print(f"warning: {folder}: {warning}", flush=True)

    @classmethod
    def is_in(cls, path: str) -> bool:
        return os.path.exists(os.path.join(path, contract.FILE))

    @classmethod
    def names_in(cls, path: str) -> tuple[str, ...]:
        return tuple(_read(path)["class_names"])

    @classmethod
    def open(cls, path: str, settings: Settings) -> ExportedClassifier:
        for name, wanted, there in (
            ("sensitivity", settings.sensitivity, SENSITIVITY),
            ("coverage", settings.coverage, COVERAGE),
        ):
            if wanted != there:
                raise UserError(
                    f"--{name}={wanted:g}: {path} is an exported model, which has the thresholds "
                    f"of {there:g} only: leave the flag out, or name the run that it is of"
                )
        if settings.ood_method != "none":
            print(
                f"{path} is an exported model: images unlike the training images are not "
                "flagged, which needs the run that it is of",
                flush=True,
            )
        return cls(path, settings.deploy_prior)

    @property
    def model_hash(self) -> str:
        """SHA-256 of the run's model that was exported, hexadecimal."""
        return self._model_hash

    @property
    def no_heat_maps(self) -> str:
        if self.model is not None:
            return ""
        return (
            f"{self.path} has no {FORMATS['keras'].path}, and heat maps need it: export the run "
            "with --format=keras too"
        )

    def _compute(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        logits = np.asarray(self._answer(pixels)["logits"], np.float32)
        return np.zeros((len(pixels), 0), np.float32), logits


def _read(folder: str) -> dict[str, Any]:
    path = os.path.join(folder, contract.FILE)
    content = read_sealed(path, "is this a folder of trainer.export?", "trainer.export")
    if content["contract"] != contract.VERSION:
        raise UserError(
            f"{path} is of version {content['contract']} of its contract, and this software knows "
            f"{contract.VERSION}: install the version that wrote it"
        )
    return content


def _reading(folder: str, content: dict[str, Any]) -> Reading:
    found = content["reading"]
    if found["mask"] != "none":
        raise UserError(
            f"{folder} was trained with --mask={found['mask']}, and a single file has no lung mask"
        )
    if warning := run_data.changed_rules(found["pixel_rules"], folder):
        print(warning, flush=True)
    size, channels = content["input"]["size"], content["input"]["channels"]
    return Reading(size, channels, found["enhance"], found["encoding"])


def _deployment(content: dict[str, Any], deploy_prior: Sequence[float] | None) -> Deployment:
    shares = content["class_shares"]
    trained_at, natural, target = (
        np.array([*shares[name].values()]) for name in ("trained_at", "natural", "target")
    )
    if deploy_prior is not None:
        target = np.asarray(deploy_prior, np.float64) / np.sum(deploy_prior)
    return Deployment(trained_at, natural, target, content["temperature"])


def _choose_format(folder: str, content: dict[str, Any]) -> str:
    """The first format of `FORMATS` in the folder whose packages are installed; its files are
    compared with their digests."""
    there = [name for name in FORMATS if name in content["files"] and name != INT8]
    for name in there:
        if all(importlib.util.find_spec(package) for package in FORMATS[name].packages):
            break
    else:
        raise UserError(
            f"{folder} holds {', '.join(content['files'])}, of which nothing can be computed with "
            "here: export the run with --format=keras"
        )
    for path, digest in content["files"][name]["sha256"].items():
        whole = os.path.join(folder, path)
        if not os.path.exists(whole) or same_run.hash_file(whole) != digest:
            raise UserError(
                f"{whole} is missing or was changed after trainer.export had written it: copy the "
                "folder again, or export the run again"
            )
    return name
