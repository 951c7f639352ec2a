"""A page with pictures of predicted images and their Grad-CAM, those that need a look first."""

from __future__ import annotations

import heapq
import itertools
import os
from collections.abc import Iterator, Sequence

import numpy as np

from cxr_tfrecords import csv_rows, files, images
from cxr_tfrecords.console.progress import each
from cxr_tfrecords.pages.html import DARK, Thumbnail, document, escaped, figure, paragraph
from trainer.deployment.image_sources import read_file
from trainer.deployment.predictor import Classifier
from trainer.models.grad_cam import overlay

_SIDE = 192
_CSS = """
.show { position: absolute; opacity: 0; }
.show + label { display: inline-block; margin: 4px 4px 4px 0; padding: 4px 12px; cursor: pointer;
  border: 1px solid #999; border-radius: 6px; }
.show:checked + label { background: #0072B2; border-color: #0072B2; color: #fff; }
.show:focus-visible + label { outline: 3px solid #56B4E9; outline-offset: 2px; }
.row { margin-top: 16px; gap: 16px 20px; }
figure.several { width: 276px; }
figure.several div { display: flex; gap: 4px; }
.outside figure { border-left: 6px solid #d98200; padding-left: 8px; box-sizing: content-box; }
@media (max-width: 600px) { figure.several { width: 100%; } .row > div { width: 100%; }
  .outside figure { box-sizing: border-box; }
  figure.several img { width: calc(50% - 2px); height: auto; } }
"""
_EXPLAINED = (
    "Left: the image as the model gets it. Right: Grad-CAM (Selvaraju et al. 2017) of the "
    "predicted class, bright where the last feature map raises its logit. It shows which parts of "
    "the image the model uses, and not why. Percentages are calibrated probabilities; the class is "
    "that of the largest raw one, so after balancing another class may have a higher percentage. "
    "This is a research tool and not a medical device."
)
_ORDER = (
    "First come images that are unlike the training images, then those where not exactly one class "
    "remains possible (conformal sets), each sorted by the probability of the predicted class, the "
    "least sure first."
)


def write_gallery(
    rows_path: str, source: str, output: str, classifiers: Sequence[Classifier], most: int
) -> str:
    """Writes the page; the images on it are read again.

    Args:
      rows_path: CSV file of `predicted_files.predict_files`, which may be of any size.
      source: folder that ids are relative to.
      output: HTML file to write.
      classifiers: the models that gave these answers.
      most: images on the page, which takes about 25 kB for each.

    Returns:
      How many are shown, in words.
    """
    names = classifiers[0].class_names
    total, rows = _choose(rows_path, names, most)
    shown = f"{len(rows):,} of {total:,} images" if len(rows) < total else f"{total:,} images"
    numbers = [[row["class"] for row in rows].count(name) for name in names]
    outside = sum(_is_outside(row) for row in rows)
    buttons, rules = [], []
    filters = [*zip(names, numbers, (f"c{c}" for c in range(len(names))), strict=True)]
    filters += [("unlike the training images", outside, "outside")] if outside else []
    for number, (name, count, mark) in enumerate([("all", len(rows), ""), *filters]):
        checked = "" if number else " checked"
        buttons.append(
            f'<input class="show" type="radio" name="show" id="s{number}"{checked}>'
            f'<label for="s{number}">{escaped(name)} ({count:,})</label>'
        )
        if mark:
            rules.append(f"#s{number}:checked ~ .row > :not(.{mark}) {{ display: none; }}")
    css = "\n".join([_CSS, *rules, DARK])
    head = [paragraph(f"{shown}. {_ORDER}"), paragraph(_EXPLAINED, "quiet"), *buttons]
    figures = _figures(rows, source, classifiers)
    body = "\n".join([*head, '<div class="row">', *figures, "</div>"])
    files.write_text(output, document("Predictions", body, css))
    return f"{output} shows {shown}"


def _choose(rows_path: str, names: Sequence[str], most: int) -> tuple[int, list[dict[str, str]]]:
    """The number of all rows, and those on the page; only these are kept in memory."""
    counter = itertools.count()
    with csv_rows.open_csv(rows_path) as file:
        rows = (row for row, _ in zip(csv_rows.dict_reader(file), counter, strict=False))
        chosen = heapq.nsmallest(
            most,
            rows,
            key=lambda row: (
                not _is_outside(row),
                len(_set(row, names)) == 1,
                float(row[f"calibrated_{row['class']}"]),
            ),
        )
    return next(counter), chosen


def _is_outside(row: dict[str, str]) -> bool:
    return row.get("out_of_distribution") == "1"


def _set(row: dict[str, str], names: Sequence[str]) -> list[str]:
    return [name for name in names if row[f"in_set_{name}"] == "1"]


def _figures(
    rows: Sequence[dict[str, str]], source: str, classifiers: Sequence[Classifier]
) -> Iterator[str]:
    """An image's HTML each; `c2` is the mark of the third class."""
    names = classifiers[0].class_names
    for row in each(rows, "page", " images"):
        label, pictures = names.index(row["class"]), []
        try:
            pixels = classifiers[0].read(read_file(os.path.join(source, row["id"])))
        except images.BadImageError:
            pass  # it was removed after it was predicted; the page says that there is no image
        else:
            heat = np.mean(
                [m.heat_maps(pixels[np.newaxis], [label])[0] for m in classifiers], axis=0
            )
            title = _shown(row["id"])
            pictures = [
                Thumbnail.of(title, pixels, _SIDE),
                Thumbnail.of(f"Grad-CAM of {title}", overlay(pixels, heat), _SIDE),
            ]
        marks = f"c{label} outside" if _is_outside(row) else f"c{label}"
        yield f'<div class="{marks}">{figure(pictures or None, _captions(row, names))}</div>'


def _captions(row: dict[str, str], names: Sequence[str]) -> list[str]:
    by_class = {name: float(row[f"calibrated_{name}"]) for name in names}
    others = sorted(set(names) - {row["class"]}, key=lambda name: -by_class[name])[:2]
    lines = [f"{name} {by_class[name]:.1%}" for name in (row["class"], *others)]
    lines = [f"class: {lines[0]}", f"others: {', '.join(lines[1:])}"]
    if by_class[others[0]] > by_class[row["class"]]:
        lines.append(f"at the class shares of use {others[0]} is the most probable")
    if (remaining := _set(row, names)) != [row["class"]]:
        lines.append(f"cannot be excluded: {', '.join(remaining) or 'none of the classes fits'}")
    if "disagreement" in row:
        lines.append(f"models differ by {float(row['disagreement']):.1%}")
    if _is_outside(row):
        lines.append("unlike the training images: the probabilities may mean nothing")
    return [*lines, _shown(row["id"])]


def _shown(name: str) -> str:
    """A file name of other bytes than UTF-8 as text that a page can hold."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
