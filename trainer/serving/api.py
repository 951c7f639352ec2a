"""What the JSON API answers; OpenAPI's schemas are made from it."""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, Field

from cxr_tfrecords import images
from trainer.deployment.decoders import Radiograph
from trainer.deployment.predictor import Classifier
from trainer.deployment.several_models import why_no_heat_maps
from trainer.deployment.thresholds import as_probabilities
from trainer.serving.engine import Answer

Shares = dict[str, float]


class Probabilities(BaseModel):
    """Class name -> probability, corrected in three ways."""

    raw: Shares = Field(description="for the class shares of training, after any balancing")
    prior_corrected: Shares = Field(description="for the class shares of /model's target")
    calibrated: Shares = Field(
        description="the same at a temperature fitted on validation: use this as a probability"
    )


class FileAnswer(BaseModel):
    """One file: either `error`, or the others."""

    name: str = Field(description="as the client gave it: escape it before it is shown")
    error: str | None = Field(default=None, description="why the file cannot be used")
    format: str | None = Field(default=None, description="by content: PNG, JPEG, DICOM, …")
    class_name: str | None = Field(
        default=None,
        serialization_alias="class",
        description="of the largest raw probability, as in the run's report",
    )
    probabilities: Probabilities | None = None
    above_threshold: list[str] | None = Field(
        default=None, description="classes whose raw probability reaches their threshold in /model"
    )
    set: list[str] | None = Field(
        default=None, description="classes that cannot be excluded at the coverage of /model"
    )
    out_of_distribution: bool | None = Field(
        default=None,
        description="whether it is unlike the training images; absent if the run cannot tell",
    )
    disagreement: float | None = Field(
        default=None,
        description="of several models: largest standard deviation of a calibrated probability",
    )
    steps: list[str] | None = Field(default=None, description="what was done to the stored values")
    warnings: list[str] | None = None
    image: str | None = Field(default=None, description="PNG in base64: what the model gets")
    heat_map: str | None = Field(
        default=None,
        description="PNG in base64: the image under Grad-CAM; absent without heat_maps in /model",
    )


class Predictions(BaseModel):
    files: list[FileAnswer] = Field(description="in the order of the request")


class Health(BaseModel):
    ready: bool
    models: list[str] = Field(description="names of the run directories, without their paths")
    version: str


class Model(BaseModel):
    """What the answers depend on; of several models, a list has an item for each."""

    models: list[str] = Field(description="names of the run directories, without their paths")
    classes: list[str]
    image_size: int
    channels: int
    sensitivity: float = Field(description="on validation, of the thresholds")
    coverage: float = Field(description="share of each class's images whose set holds it")
    thresholds: list[dict[str, float | None]] = Field(
        description="raw probabilities; null for a class without one"
    )
    trained_at: list[Shares] = Field(description="class shares of training, after any balancing")
    target: list[Shares] = Field(description="class shares where the model is used")
    temperature: list[float] = Field(description="1 for a cascade: each stage has its own")
    heat_maps: bool = Field(description="whether /predict?heat_map=1 gives one")
    warnings: list[str]


def describe_model(classifiers: Sequence[Classifier], sensitivity: float, coverage: float) -> Model:
    """The content of /model."""
    first = classifiers[0]
    plans = [one.deployment for one in classifiers]
    return Model(
        models=model_names(classifiers),
        classes=list(first.class_names),
        image_size=first.reading.image_size,
        channels=first.reading.channels,
        sensitivity=sensitivity,
        coverage=coverage,
        thresholds=[
            dict(zip(one.class_names, as_probabilities(one.thresholds), strict=True))
            for one in classifiers
        ],
        trained_at=[_by_class(first.class_names, plan.trained_at) for plan in plans],
        target=[_by_class(first.class_names, plan.target) for plan in plans],
        temperature=[plan.temperature for plan in plans],
        heat_maps=not why_no_heat_maps(classifiers),
        warnings=[warning for plan in plans for warning in plan.temperature_warnings()],
    )


def model_names(classifiers: Sequence[Classifier]) -> list[str]:
    return [os.path.basename(os.path.normpath(one.path)) for one in classifiers]


def describe_answer(
    name: str,
    names: Sequence[str],
    radiograph: Radiograph,
    answer: Answer,
    *,
    num_models: int,
    image: np.ndarray | None,
) -> FileAnswer:
    """A file's part of the answer to /predict.

    Args:
      name: of the file. names: of the classes.
      image: uint8 [size, size, channels], to send back; None: it is not sent.
    """
    combined = answer.combined
    predicted = int(combined.classes[0])
    calibrated = combined.probabilities["calibrated"][0]
    warnings = [radiograph.warning] if radiograph.warning else []
    if answer.outside:
        warnings.append("it is unlike the images of training: the probabilities may mean nothing")
    if calibrated.argmax() != predicted:
        warnings.append(
            "the class is that of the raw probabilities; at the class shares where the model is "
            f"used, {names[calibrated.argmax()]} is the most probable"
        )
    heat = answer.heat_map
    return FileAnswer(
        name=name,
        format=radiograph.format,
        class_name=names[predicted],
        probabilities=Probabilities(
            **{key: _by_class(names, values[0]) for key, values in combined.probabilities.items()}
        ),
        above_threshold=_chosen(names, combined.above_threshold[0]),
        set=_chosen(names, combined.in_set[0]),
        out_of_distribution=answer.outside,
        disagreement=float(combined.disagreement[0]) if num_models > 1 else None,
        steps=list(radiograph.steps),
        warnings=warnings,
        image=None if image is None else _png(image),
        heat_map=None if heat is None else _png(heat),
    )


def _by_class(names: Sequence[str], values: np.ndarray) -> Shares:
    return dict(zip(names, map(float, values), strict=True))


def _chosen(names: Sequence[str], chosen: np.ndarray) -> list[str]:
    return [name for name, one in zip(names, chosen, strict=True) if one]


def _png(pixels: np.ndarray) -> str:
    return base64.b64encode(images.encode(pixels, "png")).decode()
