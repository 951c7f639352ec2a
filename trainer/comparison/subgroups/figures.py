"""Figures of a comparison by subgroup: of each method, and between subgroups.

Nothing is estimated anew here: the analysis is that of all test images (`evaluation.inference`),
on the images of a subgroup and with the same resamples of groups. A group whose images are in two
subgroups is drawn for both.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from trainer.comparison.methods import Entry, pool
from trainer.comparison.subgroups.membership import NO_VALUE, SubgroupTable
from trainer.evaluation import bootstrap
from trainer.evaluation.crossed_seeds import CrossedSeeds
from trainer.evaluation.inference import LEVEL, RARE_BELOW, Inference, plain
from trainer.evaluation.metrics import weighted_metrics


@dataclasses.dataclass(frozen=True)
class _Subgroup:
    """The images of one value.

    Attributes:
      described: what comparison.json has of it.
      inference: of its images; None if it has too few groups.
      values: entry -> metric -> float64 [seeds, 1 + resamples].
    """

    described: dict[str, Any]
    inference: Inference | None
    values: Mapping[str, Mapping[str, np.ndarray]]

    @property
    def is_comparable(self) -> bool:
        """Whether the primary metric is about the same classes as that of the whole test split."""
        return self.inference is not None and not self.described["missing_classes"]


def compare_subgroups(
    entries: Sequence[Entry], content: Mapping[str, Any], table: SubgroupTable
) -> dict[str, Any]:
    """The comparison in each subgroup of each column, as JSON values.

    Args:
      entries, content: as of `compare_methods.compare`, which names metric and reference.

    Returns:
      file, and columns: column -> `not_listed` (images that the table does not list), `largest`
      (the subgroup that others are compared with; None if none has all classes) and `subgroups`:
      value -> numbers of images and groups, and, where there are enough groups:
      `entries`: method -> the recall of each class and, if no class is missing, the primary metric;
      `differences`: method -> the primary metric, minus that of the reference;
      `to_largest`: the primary metric of the reference, minus that in the largest subgroup.
      `p_holm` is corrected within a column.

    Raises:
      UserError: images and table do not fit, see `SubgroupTable`.
    """
    test = pool(entries[0].by_seed[0])
    groups, settings = test.groups or test.ids, content["settings"]
    weights = bootstrap.group_weights(groups, settings["resamples"], settings["seed"])
    names = table.find(test.ids)
    columns = {}
    for column in table.columns:
        values = np.array(table.values(column, names))
        parts = {
            value: _describe(entries, content, values == value, weights)
            for value in sorted(set(values.tolist()), key=_order)
        }
        largest = _largest(parts)
        _add_differences(parts, entries, content)
        _add_to_largest(parts, largest, content)
        columns[column] = {
            "not_listed": names.count(None),
            "largest": largest,
            "subgroups": {value: part.described for value, part in parts.items()},
        }
    return {"file": table.path, "columns": columns}


def _order(value: str) -> tuple[bool, float, str]:
    """Numbers by size, then words by the alphabet, images without a value at the end."""
    try:
        number = float(value)
    except ValueError:
        number = np.inf
    return value == NO_VALUE, number, value


def _describe(
    entries: Sequence[Entry],
    content: Mapping[str, Any],
    member: np.ndarray,
    weights: np.ndarray,
) -> _Subgroup:
    """member: bool [n], the images of the subgroup; weights: [1 + resamples, n]."""
    names, primary = content["class_names"], content["primary"]
    part = pool(entries[0].by_seed[0]).subset(member)
    counts = np.bincount(part.labels, minlength=len(names)).tolist()
    total = len(set(part.groups))
    described: dict[str, Any] = {
        "images": len(part.labels),
        "groups": total,
        "counts": counts,
        "missing_classes": [
            name
            for name, count, in_test in zip(names, counts, content["test"]["counts"], strict=True)
            if in_test and not count
        ],
        "rare_classes": {},
        "entries": {},
        "differences": {},
        "to_largest": None,
    }
    if total < RARE_BELOW:
        return _Subgroup(described, None, {})
    inference = Inference(part, names, [entry.seeds for entry in entries])
    shown = [primary, *(f"recall/{name}" for name in names)]
    values = {entry.name: _resample(entry, member, weights, names, shown) for entry in entries}
    described["rare_classes"] = {n: g for n, g in inference.rare_classes().items() if g}
    described["entries"] = {entry.name: {} for entry in entries}
    # A mean over other classes than those of the test split would be read as one over the same.
    for metric in shown[1:] if described["missing_classes"] else shown:
        study = inference.study(metric, [one[metric] for one in values.values()])
        for i, entry in enumerate(entries):
            interval = inference.mean(metric, study.mean(i))
            described["entries"][entry.name][metric] = plain(interval)
    return _Subgroup(described, inference, values)


def _resample(
    entry: Entry,
    member: np.ndarray,
    weights: np.ndarray,
    class_names: Sequence[str],
    metrics: Sequence[str],
) -> dict[str, np.ndarray]:
    rows = []
    for runs in entry.by_seed:
        part = pool(runs).subset(member)
        arrays = weighted_metrics(
            part.labels, part.log_probabilities, weights[:, member], lines=False
        )
        rows.append(arrays.flat(class_names))
    return {metric: np.stack([row[metric] for row in rows]) for metric in metrics}


def _largest(parts: Mapping[str, _Subgroup]) -> str | None:
    known = [v for v, part in parts.items() if part.is_comparable and v != NO_VALUE]
    return max(known, key=lambda value: parts[value].described["images"], default=None)


def _add_differences(
    parts: Mapping[str, _Subgroup], entries: Sequence[Entry], content: Mapping[str, Any]
) -> None:
    """Adds `differences`: of each method to the reference, on the images of a subgroup."""
    primary, names = content["primary"], [entry.name for entry in entries]
    base = names.index(content["reference"])
    intervals = {}
    for value, part in parts.items():
        if part.inference is None:
            continue
        study = part.inference.study(primary, [one[primary] for one in part.values.values()])
        for i, name in enumerate(names):
            if i != base:
                intervals[value, name] = part.inference.difference(primary, study, i, base)
    adjusted = bootstrap.holm([one.p_value for one in intervals.values()])
    for ((value, name), one), p_value in zip(intervals.items(), adjusted, strict=True):
        parts[value].described["differences"][name] = {**plain(one), "p_holm": p_value}


def _add_to_largest(
    parts: Mapping[str, _Subgroup], largest: str | None, content: Mapping[str, Any]
) -> None:
    """Adds `to_largest`, for the reference: subgroups are the methods of the analysis, which have
    the same seeds and other images. Each pair is analysed alone, since noise is larger in smaller
    subgroups."""
    primary, reference = content["primary"], content["reference"]
    seeds = content["entries"][reference]["seeds"]
    intervals = {}
    for value, part in parts.items():
        if largest is None or value == largest or not part.is_comparable:
            continue
        pair = (part, parts[largest])
        study = CrossedSeeds(
            [one.values[reference][primary] for one in pair],
            [seeds, seeds],
            min(one.inference.groups_of(primary) for one in pair if one.inference),
        )
        intervals[value] = study.difference(0, 1).interval(LEVEL)
    adjusted = bootstrap.holm([one.p_value for one in intervals.values()])
    for (value, one), p_value in zip(intervals.items(), adjusted, strict=True):
        parts[value].described["to_largest"] = {**plain(one), "p_holm": p_value}
