"""Rows of predictions.csv: header, a row of each image, files that cannot be used.

trainer.predict and beam_pipelines.predict both write what these functions give, so that their
files are the same.
"""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from cxr_tfrecords import csv_rows, files, images
from cxr_tfrecords.concurrency.ordered_threads import map_in_order
from cxr_tfrecords.console.printable import printable
from cxr_tfrecords.errors import UserError
from cxr_tfrecords.pages.class_lists import few
from trainer.deployment.answers import Answers
from trainer.deployment.corrected_probabilities import VARIANTS
from trainer.deployment.image_sources import read_file
from trainer.deployment.predictor import Classifier
from trainer.deployment.several_models import combine

T = TypeVar("T")
FLAG = "out_of_distribution"
_SHOWN_REASONS = 5


def header(classifiers: Sequence[Classifier]) -> list[str]:
    """The names of the columns."""
    names = classifiers[0].class_names
    columns = ["id", "class"]
    if len(classifiers) == 1:
        columns += [f"logit_{name}" for name in names]
    columns += [f"{variant}_{name}" for variant in VARIANTS for name in names]
    columns += [f"above_threshold_{name}" for name in names]
    columns += [f"in_set_{name}" for name in names]
    if len(classifiers) > 1:
        columns.append("disagreement")
    if all(one.detector for one in classifiers):
        columns.append(FLAG)
        if len(classifiers) == 1:
            columns.append(f"{FLAG}_score")
    return columns


def row_settings(classifiers: Sequence[Classifier]) -> dict[str, Any]:
    """What rows depend on, besides the files themselves; JSON."""
    return {
        "models": [one.model_hash for one in classifiers],
        "target": [one.deployment.target.tolist() for one in classifiers],
        "thresholds": [one.thresholds.tolist() for one in classifiers],
        "set_thresholds": [one.set_thresholds.tolist() for one in classifiers],
        "detectors": [
            [one.detector.method, one.detector.threshold] if one.detector else []
            for one in classifiers
        ],
    }


def hash_ids(ids: Iterable[str]) -> str:
    """SHA-256 of ids in their order, by which a stopped command sees that its files changed."""
    return hashlib.sha256("\n".join(ids).encode(errors="surrogateescape")).hexdigest()


def predict_rows(
    classifiers: Sequence[Classifier],
    folder: str,
    ids: Iterable[str],
    rejected: dict[str, str],
    *,
    threads: int,
    progress: Callable[[], object] = lambda: None,
    done: Collection[str] = (),
) -> Iterator[list[list[str]]]:
    """Reads and predicts files; yields the rows of one batch after the other, in order.

    The place of a file in its batch follows from `ids` alone, because on some processors the last
    bits of an answer depend on it. So files that cannot be used keep their place, as black images,
    and `done` ones too.

    Args:
      classifiers: one, or several whose probabilities are averaged.
      folder: that ids are relative to.
      rejected: gets the id and the reason of each file that cannot be used.
      threads: that read files.
      progress: called after each file.
      done: ids whose rows are there already, and are not given again.
    """

    def read(identity: str) -> np.ndarray | str:
        try:
            return classifiers[0].read(read_file(os.path.join(folder, identity)))
        except images.BadImageError as error:
            return str(error)

    def read_new(identity: str) -> tuple[str, np.ndarray | str | None]:
        return identity, None if identity in done else read(identity)

    for batch in _batches(map_in_order(read_new, ids, threads), classifiers[0].batch_size):
        found: dict[int, np.ndarray] = {}
        for place, (identity, result) in enumerate(batch):
            if result is None:
                continue
            progress()
            if isinstance(result, str):
                rejected[identity] = result
            else:
                found[place] = result
        if not found:
            continue
        new = list(found)
        for place, (identity, result) in enumerate(batch):
            # The command was stopped while it wrote the rows of this batch.
            if result is None and isinstance(again := read(identity), np.ndarray):
                found[place] = again
        pixels = np.zeros((len(batch), *found[new[0]].shape), np.uint8)
        for place, image in found.items():
            pixels[place] = image
        names = [identity for identity, _ in batch]
        rows = _rows(names, [one.predict_pixels(pixels) for one in classifiers])
        yield [rows[place] for place in new]


def _batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    remaining = iter(items)
    while batch := list(itertools.islice(remaining, size)):
        yield batch


def _rows(names: Sequence[str], answers: Sequence[Answers]) -> list[list[str]]:
    """The rows of a batch; floats have as many digits as are needed to read float32 back."""
    combined = combine(answers)
    columns = [combined.probabilities[variant].astype(np.float32) for variant in VARIANTS]
    columns += [combined.above_threshold.astype(int), combined.in_set.astype(int)]
    if len(answers) == 1:
        columns.insert(0, answers[0].logits)
    else:
        columns.append(combined.disagreement[:, np.newaxis].astype(np.float32))
    if combined.out_of_distribution is not None:
        columns.append(combined.out_of_distribution[:, np.newaxis].astype(int))
        if len(answers) == 1:
            score = answers[0].out_of_distribution_score
            columns.append(np.asarray(score, np.float32)[:, np.newaxis])
    class_names = answers[0].class_names
    return [
        [name, class_names[combined.classes[row]]]
        + [str(value) for column in columns for value in column[row]]
        for row, name in enumerate(names)
    ]


def nothing_usable(ids: Sequence[str], rejected: Mapping[str, str]) -> UserError:
    """The error where no file can be used."""
    identity, reason = next(iter(rejected.items()))
    return UserError(f"none of the {len(ids)} files can be used; {identity}: {reason}")


def show_result(
    output: str, counts: Mapping[str, int], flagged: int | None, rejected: Mapping[str, str]
) -> None:
    """Prints what was predicted; writes `output` with _rejected in its name if there is a need.

    Args:
      counts: class name -> number of images whose largest probability it has.
      flagged: images unlike the training images; None: not checked.
      rejected: id -> reason of each file that cannot be used.
    """
    shown = few(f"{name} {count:,}" for name, count in counts.items())
    total = sum(counts.values())
    print(f"{total:,} image{'s' * (total != 1)}: {shown}")
    print(f"{output} has a row for each")
    if flagged:
        images, look = ("image", "looks") if flagged == 1 else ("images", "look")
        print(f"{flagged:,} {images} {look} unlike the training images: see column {FLAG}")
    if rejected:
        _write_rejected(output, rejected)


def _write_rejected(output: str, rejected: Mapping[str, str]) -> None:
    stem, extension = os.path.splitext(output)
    path = f"{stem}_rejected{extension}"
    with files.replacing(path) as temporary, csv_rows.open_csv(temporary, "w") as file:
        writer = csv_rows.writer(file)
        writer.writerow(["id", "reason"])
        writer.writerows(rejected.items())
    plural = "s" * (len(rejected) != 1)
    print(f"{len(rejected):,} file{plural} could not be used, {path} has the reasons:")
    for identity, reason in list(rejected.items())[:_SHOWN_REASONS]:
        print(printable(f"  {identity}: {reason}"))
