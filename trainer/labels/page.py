"""label_doubts.html: doubtful labels with their pictures."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

from cxr_tfrecords.pages.html import (
    DARK,
    Thumbnail,
    box,
    document,
    figure,
    heading,
    paragraph,
    row,
    table,
)
from trainer.labels.doubts import Doubt, count_pairs
from trainer.labels.out_of_fold import OutOfFold

_METHOD = (
    "Each image is judged by models that were not trained on it (cross-validation). A label is "
    "listed where confident learning estimates that it is wrong (Northcutt et al. 2021, package "
    "cleanlab), from probabilities at the natural class shares. The list is sorted by the "
    "probability of the given class. It says where to look: only a reader can say whether the "
    "label or the model is wrong."
)
_COPIES = (
    "The build found these copies or near copies of one image in several classes. Of one image "
    "only one label can be right. The suggested one is the more probable for the model."
)
_LIMITS = (
    "Images that are hard, rare or badly exposed are listed too, and a mistake that labels make "
    "throughout is learned by the models and is not listed. Do not delete listed images from a "
    "test split alone: what remains would be easier than what the model will meet."
)


def summary(given: OutOfFold, doubts: Sequence[Doubt]) -> list[str]:
    """The result in sentences, for the page and the terminal."""
    images, listed = len(given.ids), sum(one.prediction_rank is not None for one in doubts)
    copies = sum(one.is_copy for one in doubts)
    seeds = len(given.entry.seeds)
    lines = [
        f"{listed:,} of {images:,} labels are contradicted by predictions, and {copies:,} images "
        "have a copy under another label.",
        f"The models ({given.entry.name}, {seeds} seed{'s' if seeds > 1 else ''}) agree with "
        f"{given.accuracy:.1%} of all labels. The lower this is, the more of the list are mistakes "
        "of the models.",
    ]
    if not given.is_whole:
        where = f"test fold {given.folds[0]}" if given.folds else "the test split"
        lines.append(
            f"Only the images of {where} were judged, because no run has tested the others: build "
            "with --folds and train with trainer.compare --folds to judge all."
        )
    return lines


def render(
    given: OutOfFold, doubts: Sequence[Doubt], pictures: Mapping[str, Thumbnail], unlisted: int
) -> str:
    """The page, without scripts or outside resources.

    Args:
      pictures: name -> thumbnail; doubts without one are in the CSV file alone.
      unlisted: images under several labels whose copies are not all in the data set.
    """
    names = given.class_names
    shown = [one for one in doubts if given.ids[one.row] in pictures]
    copies = [one for one in shown if one.is_copy]
    others = [one for one in shown if not one.is_copy]
    body = [box("gray", *summary(given, doubts)), paragraph(_METHOD)]
    if copies:
        body += [heading("One image under several labels"), paragraph(_COPIES)]
        body += ['<div class="groups">', *_groups(given, copies, pictures), "</div>"]
    if unlisted:
        body.append(
            paragraph(
                f"{unlisted:,} more images lie in several classes and have copies that are not in "
                "the data set, or that were not judged: sources.csv names them."
            )
        )
    body.append(heading("Labels that predictions contradict"))
    totals = [int((given.labels == c).sum()) for c in range(len(names))]
    pairs = count_pairs(given, doubts)
    if not pairs:
        body.append(paragraph("None."))
    else:
        rows = [
            [names[a], names[b], f"{count:,}", f"{count / totals[a]:.1%}"] for a, b, count in pairs
        ]
        header = ["given", "suggested", "images", "of the given class"]
        body.append(table(header, rows, texts=2))
    listed = sum(not one.is_copy for one in doubts)
    if others:
        first = f"The first {len(others):,} of {listed:,}" if len(others) < listed else "All"
        body.append(paragraph(f"{first}, the least probable label first:"))
        body.append(row(_figure(given, one, pictures) for one in others))
    body += [heading("Limits"), paragraph(_LIMITS)]
    return document("Doubtful labels", "\n".join(body), DARK)


def _groups(
    given: OutOfFold, copies: Sequence[Doubt], pictures: Mapping[str, Thumbnail]
) -> Iterator[str]:
    for _, members in itertools.groupby(copies, lambda one: given.groups[one.row]):
        yield '<div class="group conflict">'
        yield row(_figure(given, one, pictures) for one in members)
        yield "</div>"


def _figure(given: OutOfFold, one: Doubt, pictures: Mapping[str, Thumbnail]) -> str:
    name, label = given.ids[one.row], int(given.labels[one.row])
    probable = given.probabilities[one.row]
    rank = f"no. {one.prediction_rank:,}" if one.prediction_rank else "not contradicted"
    captions = [
        rank,
        f"given: {given.class_names[label]} ({probable[label]:.1%})",
        f"suggested: {given.class_names[one.suggested]} ({probable[one.suggested]:.1%})",
        name,
    ]
    return figure(pictures[name], captions)
