"""The page's section on mistakes: the most confident ones of two methods, with Grad-CAM.

If the data set, a model or TensorFlow is missing, the page says so and shows the rest. TensorFlow
is imported only if a model is there.
"""

from __future__ import annotations

import dataclasses
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from cxr_tfrecords import dataset_dir, images, records, tfrecord
from cxr_tfrecords.console.quiet import quiet_tensorflow
from cxr_tfrecords.errors import UserError, first_line
from cxr_tfrecords.pages.html import Thumbnail, box, escaped, figure, paragraph, row
from trainer.comparison.methods import Entry
from trainer.comparison.text import class_mark, first_run
from trainer.evaluation.inference import better
from trainer.evaluation.predictions import Predictions
from trainer.runs import run_files
from trainer.runs.finished_run import FinishedRun

MOST = 8
_SIDE = 192


@dataclasses.dataclass(frozen=True)
class Mistake:
    """A test image that was classified wrongly.

    Attributes:
      row: its index in the predictions.
      filename: the image's id.
      label, predicted: class indices.
      probability: of the predicted class.
    """

    row: int
    filename: str
    label: int
    predicted: int
    probability: float


def mistakes(content: Mapping[str, Any], entries: Sequence[Entry]) -> Iterator[str]:
    """The section's HTML."""
    yield paragraph(
        f"Two methods, {first_run(content)}: the test images that the model classified wrongly "
        f"with the highest probability, at most {MOST} of each method. Left: the image as the "
        "model gets it. Right: Grad-CAM (Selvaraju et al. 2017) of the predicted class, bright "
        "where the last feature map raises the logit of that class. Grad-CAM is coarse: it shows "
        "which parts of the image a model uses, and not why. Look first for letters, markers and "
        "borders, which say nothing of the disease."
    )
    for name in chosen_methods(content):
        entry = next(entry for entry in entries if entry.name == name)
        yield f"<h3>{escaped(name)}</h3>"
        run = entry.runs[0]
        yield from _show(content, run, worst(run.predictions("test")))


def chosen_methods(content: Mapping[str, Any]) -> list[str]:
    """The method with the best primary metric, except the reference, and then the reference."""
    primary = content["primary"]
    sign = -1 if better(primary, -1) else 1
    known = {
        name: sign * estimate
        for name in content["differences"]
        if (estimate := content["entries"][name]["metrics"][primary]["estimate"]) is not None
    }
    best = [max(known, key=lambda name: known[name])] if known else []
    return [*best, content["reference"]]


def worst(predictions: Predictions, most: int = MOST) -> list[Mistake]:
    """The most confident mistakes, by falling probability."""
    probabilities = predictions.probabilities
    predicted = probabilities.argmax(axis=1)
    confidence = probabilities.max(axis=1)
    wrong = np.flatnonzero(predicted != predictions.labels)
    order = wrong[np.argsort(-confidence[wrong], kind="stable")][:most]
    return [
        Mistake(
            int(row),
            predictions.ids[row],
            int(predictions.labels[row]),
            int(predicted[row]),
            float(confidence[row]),
        )
        for row in order
    ]


def _show(content: Mapping[str, Any], run: FinishedRun, wrong: Sequence[Mistake]) -> Iterator[str]:
    if not wrong:
        yield paragraph("No test image was classified wrongly.")
        return
    pixels, notes = _read_pixels(run, wrong)
    heat, more = _explain(run, wrong, pixels)
    for note in [*notes, *more]:
        yield box("gray", note)
    names = [class_mark(content, name) for name in run.class_names]
    yield row(
        _figure(names, one, pixels.get(one.filename), heat.get(one.filename)) for one in wrong
    )


def _read_pixels(
    run: FinishedRun, wrong: Sequence[Mistake]
) -> tuple[dict[str, np.ndarray], list[str]]:
    """File name -> uint8 [size, size, channels] as the model sees it; and notes on what failed."""
    path = run.dataset["path"]
    try:
        data = run.config.with_classes(dataset_dir.load(path, run.config.fold))
        if data.fingerprint != run.dataset["fingerprint"]:
            return {}, [
                f"No images: {path} holds another data set now than when the run was trained."
            ]
        wanted: dict[int, set[str]] = {}
        for one in wrong:
            wanted.setdefault(one.label, set()).add(one.filename)
        pixels: dict[str, np.ndarray] = {}
        for shard in data.shards:
            missing = wanted.get(shard.label, set()) if shard.split == "test" else set()
            if missing:
                pixels |= _read_shard(shard.path, missing, data, run.config.mask)
        return pixels, []
    except UserError as error:
        return {}, [f"No images: {error}"]
    except (tfrecord.DamagedRecordError, images.BadImageError, ValueError, OSError) as error:
        return {}, [
            f"No images: {path} cannot be read ({error}). Check the data set with "
            f"python -m cxr_tfrecords.verify {shlex.quote(path)}."
        ]


def _read_shard(
    path: str, missing: set[str], data: dataset_dir.DatasetDir, mask: str
) -> dict[str, np.ndarray]:
    """File name -> image, of those images in `missing` that are in this shard.

    They are removed from `missing`.
    """
    read = {}
    for serialized in tfrecord.read_records(path):
        record = records.parse_record(serialized)
        if record.filename in missing:
            pixels = images.decode_stored(
                record.encoded, data.encoding, data.image_size, data.channels
            )
            pixels = pixels.reshape(data.image_size, data.image_size, data.channels)
            if mask != "none" and record.mask is not None:
                lungs = images.decode_mask(record.mask) > 0
                pixels = pixels * (lungs if mask == "lungs" else ~lungs)[..., np.newaxis]
            read[record.filename] = pixels.astype(np.uint8)
            missing.discard(record.filename)
            if not missing:
                break
    return read


def _explain(
    run: FinishedRun, wrong: Sequence[Mistake], pixels: Mapping[str, np.ndarray]
) -> tuple[dict[str, np.ndarray], list[str]]:
    """File name -> heat map, float32 [size, size] in 0..1; and notes on what is missing."""
    path = os.path.join(run.path, run_files.MODEL)
    if not os.path.exists(path):
        return {}, [f"No Grad-CAM: the model {path} does not exist any more."]
    shown = [one for one in wrong if one.filename in pixels]
    if not shown:
        return {}, []
    try:
        quiet_tensorflow()
        from trainer.models.grad_cam import GradCam
    except ImportError as error:
        return {}, [f"No Grad-CAM: TensorFlow cannot be imported ({error})."]
    try:
        stack = np.stack([pixels[one.filename] for one in shown])
        maps = GradCam.load(path).maps(stack, [one.predicted for one in shown])
    except Exception as error:  # Keras raises many types for a model that it cannot read
        return {}, [f"No Grad-CAM: {path} cannot be used ({first_line(error, 160)})."]
    return {one.filename: one_map for one, one_map in zip(shown, maps, strict=True)}, []


def _figure(
    names: Sequence[str], one: Mistake, pixels: np.ndarray | None, heat: np.ndarray | None
) -> str:
    """names: of the classes, as they are shown."""
    captions = [
        f"predicted: {names[one.predicted]} ({one.probability:.1%})",
        f"true: {names[one.label]}",
        one.filename,
    ]
    thumbnails = []
    if pixels is not None:
        thumbnails.append(Thumbnail.of(one.filename, pixels, _SIDE))
        if heat is not None:
            from trainer.models.grad_cam import overlay  # imports TensorFlow

            title = f"Grad-CAM of {one.filename}"
            thumbnails.append(Thumbnail.of(title, overlay(pixels, heat), _SIDE))
    return figure(thumbnails or None, captions)
