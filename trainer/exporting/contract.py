"""deployment.json: all that a program must know to use an exported model. docs/export.md has the
meaning of each key."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
from collections.abc import Sequence
from typing import Any

import numpy as np

import cxr_tfrecords
from cxr_tfrecords.reading import Reading
from trainer.deployment import corrected_probabilities, thresholds
from trainer.deployment.corrected_probabilities import Deployment
from trainer.evaluation import conformal
from trainer.evaluation.metrics import weighted_metrics
from trainer.exporting import encoded_images, parity
from trainer.exporting.checked_files import CheckedFiles
from trainer.exporting.format_table import FORMATS
from trainer.runs import remote_run, run_data, run_files, same_run
from trainer.runs.finished_run import FinishedRun

FILE = run_files.EXPORTED
VERSION = 1
# Output of the exported model -> one of `corrected_probabilities.VARIANTS`.
OUTPUTS = {
    "probabilities_raw": "raw",
    "probabilities_uncalibrated": "prior_corrected",
    "probabilities": "calibrated",
}
SCORES = ("brier", "ece", "log_loss")
# Instead of the logarithm of a share of 0: a layer needs a finite number, and float32's softmax
# makes 0 of this one.
_LEAST = -1e4
_DECODING = (
    "as trainer.Classifier.read does: 16 bits are scaled by the smallest depth of 8 to 16 bits "
    "that holds the image; transparent pixels on black; the EXIF orientation is followed; of "
    "several frames the first; DICOM by its window and photometric interpretation"
)
_CHANNELS = {
    1: "gray; of colour, the luma 0.299 R + 0.587 G + 0.114 B (cv2.COLOR_RGB2GRAY)",
    3: "RGB; gray is repeated three times",
}
_RESIZE = (
    "to size x size pixels, the aspect ratio is not kept; cv2.INTER_AREA, or cv2.INTER_LINEAR if "
    "a side is shorter than size; an image of the right size stays as it is"
)


def finite_scaling(plan: Deployment) -> dict[str, tuple[float, list[float]]]:
    """Output -> (scale, offset): its probabilities are softmax(scale * logits + offset)."""
    scaling = plan.scaling()
    return {
        output: (float(scaling[variant][0]), np.maximum(scaling[variant][1], _LEAST).tolist())
        for output, variant in OUTPUTS.items()
    }


def describe_run(
    run: FinishedRun, plan: Deployment, reading: Reading, *, natural: bool
) -> dict[str, Any]:
    """The part of deployment.json that does not depend on the formats.

    Args:
      natural: whether the deployment's shares are those of the data. If not, or if the test split
        was balanced, its images are weighted to the shares of the deployment.
    """
    size = run.config.image_size
    shrinks = f"shrinks them to {size} px and " if size not in (0, reading.image_size) else ""
    weighted = not natural or "test" in run.dataset["balanced_splits"]
    return {
        "contract": VERSION,
        "run": remote_run.address_of(os.path.abspath(run.path)),
        "model_sha256": same_run.hash_file(os.path.join(run.path, run_files.MODEL)),
        "class_names": list(run.class_names),
        "input": {
            "name": "image",
            "dtype": "uint8",
            "shape": ["batch", reading.image_size, reading.image_size, reading.channels],
            "size": reading.image_size,
            "channels": reading.channels,
            "range": [0, 255],
            "scaling": f"none: the model {shrinks}scales the pixels itself",
        },
        "reading": {
            "decoding": _DECODING,
            "channels": _CHANNELS[reading.channels],
            "resize": _RESIZE,
            "enhance": reading.enhance,
            "encoding": reading.encoding,
            "mask": run.config.mask,
            "pixel_rules": run_data.pixel_rules(run),
        },
        "correction": {
            output: {"scale": scale, "offset": _by_class(run, offset)}
            for output, (scale, offset) in finite_scaling(plan).items()
        },
        "class_shares": {
            name: _by_class(run, getattr(plan, name))
            for name in ("trained_at", "natural", "target")
        },
        "temperature": plan.temperature,
        "temperature_warning": plan.temperature_warning(),
        **_thresholds(run),
        "test": _test_scores(run, plan, weighted),
        "test_weighted_to_target": weighted,
    }


def describe_files(
    run: FinishedRun, reading: Reading, folder: str, checked: CheckedFiles
) -> dict[str, Any]:
    """The part of deployment.json about the files that `checked` has written to `folder`."""
    described = {}
    for name, outputs in checked.outputs.items():
        path = FORMATS[name].path
        digests = _digests(folder, path)
        described[name] = {
            "path": path,
            "bytes": sum(os.path.getsize(os.path.join(folder, file)) for file in digests),
            "sha256": digests,
            "outputs": outputs,
        }
    if "saved_model" in described:
        reason = encoded_images.why_not(reading, run.config.mask)
        described["saved_model"]["signatures"] = {
            "serving_default": "uint8 pixels, as in input",
            encoded_images.SIGNATURE: None if reason else encoded_images.describe(reading),
        }
        described["saved_model"]["no_png_because"] = reason or None
    return {
        "files": described,
        "parity": {
            "images": len(checked.sample.images),
            "source": checked.sample.source,
            "tolerance": parity.TOLERANCE,
            "formats": {name: one.to_json() for name, one in checked.parity.items()},
        },
        "int8": checked.int8,
        "versions": {"trained": dict(run.versions), "exported": _versions(list(described))},
    }


def _versions(formats: Sequence[str]) -> dict[str, str]:
    packages = ["tensorflow-cpu", "tensorflow", "tensorflow-tpu", "keras", "numpy"]
    packages += [package for name in formats for package in FORMATS[name].packages]
    exported = {"cxr-balance": cxr_tfrecords.__version__, "python": platform.python_version()}
    for package in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            exported[package] = importlib.metadata.version(package)
    return exported


def _thresholds(run: FinishedRun) -> dict[str, Any]:
    """What validation gives: operating points and thresholds of prediction sets."""
    validation = run.predictions("validation")
    points = thresholds.as_probabilities(
        thresholds.choose_thresholds(validation, thresholds.SENSITIVITY)
    )
    sets = conformal.choose_thresholds(
        validation.labels, validation.probabilities, thresholds.COVERAGE, validation.groups
    )
    return {
        "operating_points": {
            "output": "probabilities_raw",
            "sensitivity": thresholds.SENSITIVITY,
            "thresholds": _by_class(run, points),
        },
        "prediction_sets": {
            "output": "probabilities_raw",
            "coverage": thresholds.COVERAGE,
            "thresholds": _by_class(run, sets),
        },
    }


def _test_scores(run: FinishedRun, plan: Deployment, weighted: bool) -> dict[str, Any]:
    test = run.predictions("test")
    weights = np.ones(len(test.labels))
    if weighted:
        weights = corrected_probabilities.deployment_weights(test.labels, plan.target)
    scores = {}
    for output, variant in OUTPUTS.items():
        answers = plan.variants(test.log_probabilities)[variant]
        report = weighted_metrics(test.labels, answers, weights, lines=False).report(
            run.class_names
        )
        scores[output] = {name: report[name] for name in SCORES}
    return scores


def _by_class(run: FinishedRun, values: Sequence[float | None] | np.ndarray) -> dict[str, Any]:
    plain = [None if value is None else float(value) for value in values]
    return dict(zip(run.class_names, plain, strict=True))


def _digests(folder: str, path: str) -> dict[str, str]:
    """SHA-256 of a file, or of each file of a folder: path below `folder` -> hexadecimal."""
    whole = os.path.join(folder, path)
    paths = [os.path.join(root, name) for root, _, names in os.walk(whole) for name in names]
    return {
        os.path.relpath(file, folder): same_run.hash_file(file) for file in sorted(paths) or [whole]
    }
