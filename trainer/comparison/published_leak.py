"""Test images that a paper's model was trained on, as the paper's own tables imply.

Without sampling, a training set holds no image twice. So if a class has N images in the data set, T
of them in the training set and E of them in the test set, at least T + E - N are in both.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from cxr_tfrecords.pages.markdown import markdown_table
from trainer.comparison.confusion_matrices import Matrices
from trainer.comparison.published_tables import part, streams, table_number
from trainer.evaluation.bootstrap import Interval
from trainer.evaluation.shares import wilson


@dataclasses.dataclass(frozen=True)
class Leak:
    """A model whose training and test images cannot be separate.

    Attributes:
      model: its name; it was trained without sampling.
      images: int64 [classes], images of each class in the data set.
      trained, tested: int64 [classes], images of each class in its training and its test set.
      correct: int64 [classes], test images of each class that it classified correctly.
    """

    model: str
    images: np.ndarray
    trained: np.ndarray
    tested: np.ndarray
    correct: np.ndarray

    @property
    def shared(self) -> np.ndarray:
        """int64 [classes], the fewest test images that were trained on: T + E - N, or 0."""
        return np.maximum(0, self.trained + self.tested - self.images)

    @property
    def others(self) -> np.ndarray:
        """int64 [classes], the test images beside `shared`."""
        return self.tested - self.shared

    @property
    def correct_others(self) -> np.ndarray:
        """int64 [classes], how many of the others were classified correctly, if every image in
        `shared` was.

        This is the fewest that these counts allow on images never trained on, if no more test
        images than `shared` were trained on. With more, it can be a smaller part of fewer images.
        """
        return np.maximum(0, self.correct - self.shared)

    @property
    def accuracy_on_others(self) -> Interval:
        """`correct_others` of all `others`, with Wilson's interval."""
        return wilson(int(self.correct_others.sum()), int(self.others.sum()))


def find_leaks(matrices: Matrices) -> list[Leak]:
    """Models trained without sampling whose training and test images are together more than the
    data set has, in any class.

    Nothing is concluded where the file does not print the counts by class, or where a class was
    trained on more images than the data set has, so that some were repeated.
    """
    images = _by_class(matrices, part(matrices, "class_counts"))
    leaks = []
    for model, (sampler, counts) in _samplers(matrices):
        trained = _by_class(matrices, counts)
        if sampler == "none" and images is not None and trained is not None:
            matrix = matrices.models[model]
            leak = Leak(model, images, trained, matrix.sum(axis=1), np.diag(matrix))
            if leak.shared.any() and (trained <= images).all():
                leaks.append(leak)
    return leaks


def left_for_validation(matrices: Matrices, model: str) -> np.ndarray | None:
    """int64 [classes], images that are neither in the model's training split as printed before
    sampling nor in its test set.

    None unless they fit the printed split: the training and test images have the printed totals, no
    class has more of them than the data set, and the rest is the printed validation split.
    """
    images = _by_class(matrices, part(matrices, "class_counts"))
    sampler = {name: sampler for name, (sampler, _) in _samplers(matrices)}.get(model, "")
    before = _by_class(matrices, part(matrices, "counts_before_sampling").get(sampler, {}))
    split = part(matrices, "split_counts")
    if images is None or before is None:
        return None
    tested = matrices.models[model].sum(axis=1)
    rest = images - before - tested
    totals = [int(counts.sum()) for counts in (before, rest, tested)]
    fits = totals == [split.get(name) for name in ("train", "validation", "test")]
    return rest if fits and (rest >= 0).all() else None


def summarize_leaks(matrices: Matrices) -> list[str]:
    """One paragraph for each leak, to be read before any figure of that model."""
    return [" ".join(_sentences(matrices, leak)) for leak in find_leaks(matrices)]


def describe_leaks(matrices: Matrices) -> str:
    """Markdown for the top of the page; empty if the tables imply no leak."""
    leaks = find_leaks(matrices)
    if not leaks:
        return ""
    parts = ["## Read this first: test images that were trained on"]
    for leak in leaks:
        first, *others = _sentences(matrices, leak)
        parts += [
            first,
            "A class of N images of which T were trained on and E were tested has at least "
            "T + E - N in both. The last column is the recall on its other test images, if all of "
            "those in both were classified correctly:",
            _table(matrices, leak),
            "\n".join(f"- {sentence}" for sentence in others),
        ]
    return "\n\n".join(parts)


def leak_figures(leak: Leak) -> dict[str, Any]:
    """JSON values: the counts by class, in the order of the classes, and the bound on accuracy."""
    counts = {"images": leak.images, "trained": leak.trained, "tested": leak.tested}
    figures: dict[str, Any] = {name: values.tolist() for name, values in counts.items()}
    bound = leak.accuracy_on_others
    return figures | {
        "model": leak.model,
        "tested_and_trained_at_least": leak.shared.tolist(),
        "accuracy_on_the_others_if_those_were_correct": [bound.estimate, bound.low, bound.high],
    }


def _sentences(matrices: Matrices, leak: Leak) -> Iterator[str]:
    shared, tested = int(leak.shared.sum()), int(leak.tested.sum())
    after = f"Table {table_number('sampled_counts')}"
    train = part(matrices, "split_counts").get("train")
    split = f", but the training split has {train:,}" if train is not None else ""
    yield (
        f"By {after}, model {leak.model} (none) was trained on {leak.trained.sum():,} of the "
        f"{leak.images.sum():,} images of the data set{split}. So at least {shared:,} of its "
        f"{tested:,} test images ({shared / tested:.0%}) were trained on."
    )
    bound = leak.accuracy_on_others
    if bound.estimate is not None:
        others = {m: n.trace() / n.sum() for m, n in matrices.models.items() if m != leak.model}
        beside = "".join(f"; {m} as printed: {value:.1%}" for m, value in others.items())
        yield (
            f"If every one of these was classified correctly, {leak.model} was right on "
            f"{leak.correct_others.sum():,} of the other {leak.others.sum():,}: "
            f"{bound.estimate:.1%} ({bound.low:.1%} to {bound.high:.1%}), not "
            f"{leak.correct.sum() / tested:.1%}{beside}. This is a bound and not an estimate: it "
            "is higher if some of these were classified wrongly, and can be lower if more test "
            "images were trained on."
        )
    rest = left_for_validation(matrices, leak.model)
    if rest is not None:
        before = f"Table {table_number('counts_before_sampling')}"
        fitting = [m for m in matrices.models if left_for_validation(matrices, m) is not None]
        yield (
            f"{before} contradicts {after}. By {before}, {leak.model} was trained on {train:,} "
            f"images; these and its test images leave {'/'.join(map(str, rest))} by class, "
            f"together {rest.sum():,}, which is the printed validation split. So {before} fits a "
            f"split in which no image is trained on and tested (models {', '.join(fitting)}), and "
            f"{after} does not. The tables alone cannot say which of the two is right."
        )
    yield (
        f"So the figures of {leak.model}, which are shown as printed, cannot be ranked against "
        "those of other models."
    )


def _table(matrices: Matrices, leak: Leak) -> str:
    columns = [leak.images, leak.trained, leak.tested, leak.shared]
    columns += [leak.others, leak.correct_others]
    counts = np.column_stack(columns)
    names = [*matrices.class_names, "all"]
    rows = [
        [
            name,
            *(f"{count:,}" for count in (images, trained, tested, shared)),
            _percent(shared, tested),
            _percent(correct, others),
        ]
        for name, (images, trained, tested, shared, others, correct) in zip(
            names, [*counts, counts.sum(axis=0)], strict=True
        )
    ]
    header = ["class", "N", "T", "E", "in both, at least", "of E", "right on the others"]
    return markdown_table(header, rows)


def _percent(part_of: int, whole: int) -> str:
    return f"{part_of / whole:.1%}" if whole else "–"


def _samplers(matrices: Matrices) -> list[tuple[str, tuple[str, Mapping[str, int]]]]:
    """(model, (sampler, class -> training images)), in the order of the file's models."""
    return list(zip(matrices.models, streams(matrices).items(), strict=False))


def _by_class(matrices: Matrices, counts: Mapping[str, int]) -> np.ndarray | None:
    """int64 [classes]; None unless every class has a count."""
    if not set(matrices.class_names) <= set(counts):
        return None
    return np.array([counts[name] for name in matrices.class_names], np.int64)
