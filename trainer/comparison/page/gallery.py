"""The page's gallery: the most confident mistakes of two methods, with Grad-CAM.

What is missing (the data set, the models, TensorFlow) is named in the page, and the rest is shown.
TensorFlow is imported only where there is a model to explain.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from cxr_tfrecords import dataset_dir, images, records, tfrecord
from cxr_tfrecords.errors import UserError, first_line
from cxr_tfrecords.pages import html as html_parts
from cxr_tfrecords.pages.html import Thumbnail
from cxr_tfrecords.quiet import quiet_tensorflow
from trainer.comparison import compare_methods
from trainer.comparison.methods import Entry
from trainer.evaluation.predictions import Predictions
from trainer.runs import run_files
from trainer.runs.finished_run import FinishedRun

MOST = 8
_SIDE = 192
_HEAT = 0.5


@dataclasses.dataclass(frozen=True)
class Mistake:
    """A test image that was classified wrongly.

    Attributes:
      row: its place in the predictions; label, predicted: class indices.
      probability: of the predicted class.
    """

    row: int
    filename: str
    label: int
    predicted: int
    probability: float


def gallery(
    content: Mapping[str, Any], entries: Sequence[Entry], predictions: Mapping[str, Predictions]
) -> Iterator[str]:
    """Args:
    predictions: of each entry's first run on test.
    """
    yield html_parts.paragraph(
        f"Up to {MOST} test images each that the first seed of a method got wrong with the highest "
        "probability. Left: the image as the model sees it; right: Grad-CAM (Selvaraju et al. "
        "2017) of the predicted class, warm where the last feature map raises its logit. It is "
        "coarse, and shows where and not why; look at labels, markers and borders first."
    )
    for name in chosen_methods(content):
        entry = next(entry for entry in entries if entry.name == name)
        yield f"<h3>{html_parts.escaped(name)}</h3>"
        yield from _show(entry.runs[0], worst(predictions[name]))


def chosen_methods(content: Mapping[str, Any]) -> list[str]:
    """The best of the other methods in the primary metric, and the reference."""
    primary = content["primary"]
    sign = -1 if compare_methods.better(primary, -1) else 1
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


def _show(run: FinishedRun, mistakes: Sequence[Mistake]) -> Iterator[str]:
    if not mistakes:
        yield html_parts.paragraph("No test image was classified wrongly.")
        return
    pixels, notes = _read_pixels(run, mistakes)
    heat, more = _explain(run, mistakes, pixels)
    for note in [*notes, *more]:
        yield html_parts.box("gray", note)
    yield html_parts.row(
        _figure(run, one, pixels.get(one.filename), heat.get(one.filename)) for one in mistakes
    )


def _read_pixels(
    run: FinishedRun, mistakes: Sequence[Mistake]
) -> tuple[dict[str, np.ndarray], list[str]]:
    """File name -> uint8 [size, size, channels] as the model sees it; and notes on what failed."""
    path = run.dataset["path"]
    try:
        data = dataset_dir.load(path)
        if data.fingerprint != run.dataset["fingerprint"]:
            return {}, [f"No images: {path} is another data set now than the one trained on."]
        wanted: dict[int, set[str]] = {}
        for one in mistakes:
            wanted.setdefault(one.label, set()).add(one.filename)
        found: dict[str, np.ndarray] = {}
        for shard in data.shards:
            missing = wanted.get(shard.label, set()) if shard.split == "test" else set()
            if missing:
                found |= _read_shard(shard.path, missing, data, run.config.mask)
        return found, []
    except UserError as error:
        return {}, [f"No images: {error}"]
    except (tfrecord.DamagedRecordError, images.BadImageError, ValueError, OSError) as error:
        return {}, [f"No images: {path} cannot be read ({error})."]


def _read_shard(
    path: str, missing: set[str], data: dataset_dir.DatasetDir, mask: str
) -> dict[str, np.ndarray]:
    """Images of a shard by file name; takes those found from `missing`."""
    found = {}
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
            found[record.filename] = pixels.astype(np.uint8)
            missing.discard(record.filename)
            if not missing:
                break
    return found


def _explain(
    run: FinishedRun, mistakes: Sequence[Mistake], pixels: Mapping[str, np.ndarray]
) -> tuple[dict[str, np.ndarray], list[str]]:
    """File name -> heat map [size, size]; and notes on what is missing."""
    path = os.path.join(run.path, run_files.MODEL)
    if not os.path.exists(path):
        return {}, [f"No Grad-CAM: {path} is not there."]
    shown = [one for one in mistakes if one.filename in pixels]
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
    run: FinishedRun, one: Mistake, pixels: np.ndarray | None, heat: np.ndarray | None
) -> str:
    names = run.class_names
    captions = [
        f"{names[one.predicted]} ({one.probability:.1%})",
        f"true: {names[one.label]}",
        one.filename,
    ]
    pair = []
    if pixels is not None:
        pair.append(_thumbnail(one.filename, pixels))
        if heat is not None:
            pair.append(_thumbnail(f"Grad-CAM of {one.filename}", overlay(pixels, heat)))
    return html_parts.figure(pair or None, captions)


def _thumbnail(name: str, pixels: np.ndarray) -> Thumbnail:
    small = images.resize(pixels, min(_SIDE, pixels.shape[0]))
    return Thumbnail(name, "", images.encode(small, "jpeg"), False)


def overlay(pixels: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """uint8 [size, size, 3]: the image in gray under the map's colours, denser where it is warm."""
    import matplotlib

    gray = images.to_channels(pixels if pixels.shape[2] == 3 else pixels[..., 0], 3)
    colors = matplotlib.colormaps["inferno"](heat)[..., :3] * 255
    share = _HEAT * heat[..., np.newaxis]
    return np.round((1 - share) * gray + share * colors).astype(np.uint8)
