"""Answers to classes of the other data set that the model has by another name, or not at all.

If the model was never trained on such images, this is a blind test: Hammoudi et al. (2021, J. Med.
Syst. 45:75) show a model of normal, bacterial and viral pneumonia images of COVID-19 and count how
many it calls viral.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from trainer.comparison.text import with_interval
from trainer.evaluation.crossed_seeds import CrossedSeeds
from trainer.evaluation.inference import LEVEL, RARE_BELOW, plain
from trainer.external.figures import Answers
from trainer.external.other_data import OtherData

NOTE = (
    "Classes of the other data set whose name is not one of the model's. If the model was trained "
    "on no image of such a class, this is a blind test: the shares tell which of its classes these "
    "images look like to it, and an answer is right only in so far as --map_classes is."
)


def answer_shares(
    answers: Sequence[Answers], weights: np.ndarray, other: OtherData
) -> list[dict[str, Any]]:
    """The share of each answer among the images of each such class, mean over the runs.

    Args:
      answers: of runs that predicted the same images.
      weights: int32 [1 + resamples, n], see `bootstrap.group_weights`.

    Returns:
      For each class that has images: class, counted_as (the model's class that it is mapped to),
      images, groups and shares (the model's class -> interval over groups of images).
    """
    names = answers[0].run.class_names
    seeds = [one.run.config.seed for one in answers]
    theirs = answers[0].theirs
    groups = np.asarray(answers[0].predictions["external"].groups)
    predicted = [one.predictions["external"].logits.argmax(axis=1) for one in answers]
    rows = []
    for label, (there, here) in enumerate(zip(other.data.class_names, other.labels, strict=True)):
        member = theirs == label
        if here is None or there == names[here] or not member.any():
            continue
        total, count = weights @ member, len(set(groups[member]))
        shares = {}
        for c, name in enumerate(names):
            hits = [weights @ (member & (chosen == c)) for chosen in predicted]
            with np.errstate(invalid="ignore"):  # a resample may have no image of the class
                study = CrossedSeeds([np.stack(hits) / total], [seeds], count)
            interval = study.mean(0).share_interval(LEVEL, rare=count < RARE_BELOW)
            shares[name] = plain(interval)
        row = {"class": there, "counted_as": names[here], "images": int(member.sum())}
        rows.append(row | {"groups": count, "shares": shares})
    return rows


def sentences(figures: Mapping[str, Any]) -> Iterator[str]:
    """One for each such class, the most frequent answer first."""
    for one in figures["other_names"]:
        shown = sorted(one["shares"].items(), key=lambda item: -item[1]["estimate"])
        parts = [f"{name} {with_interval('recall', share)}" for name, share in shown]
        yield (
            f"{one['images']:,} images of {one['class']}, counted as {one['counted_as']}, are "
            f"answered {', '.join(parts)}."
        )


def table(content: Mapping[str, Any], figures: Mapping[str, Any]) -> tuple[list[str], list[Any]]:
    """Header and rows."""
    rows = [
        [
            one["class"],
            one["counted_as"],
            f"{one['images']:,}",
            *(with_interval("recall", share) for share in one["shares"].values()),
        ]
        for one in figures["other_names"]
    ]
    answered = [f"answered {name}" for name in content["class_names"]]
    return ["class there", "counted as", "images", *answered], rows
