"""Thresholds chosen on validation and reported on test, class by class, for every seed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.special import expit

from cxr_tfrecords.pages.markdown import markdown_table
from trainer.comparison import class_tables
from trainer.comparison.text import class_mark
from trainer.evaluation import calibration
from trainer.evaluation.metrics import log_odds
from trainer.evaluation.predictions import Predictions
from trainer.runs.finished_run import FinishedRun

SENSITIVITY = 0.95


def of_seeds(
    by_seed: Sequence[Sequence[FinishedRun]], sensitivity: float = SENSITIVITY
) -> dict[str, list[dict[str, Any]]]:
    """Class name -> one operating point for each seed, as JSON values.

    The threshold is the highest with this sensitivity on validation; test images are not used to
    choose it. With folds, each run's threshold is applied to its own test fold, and the answers to
    all folds are counted together. Each of sensitivity, specificity, ppv and npv has estimate, low
    and high (a 95% score interval over the groups of test images). A class without validation
    images has no threshold, and an empty list.

    Args:
      by_seed: the runs of each seed: one, or one for each test fold.
    """
    points: dict[str, list[dict[str, Any]]] = {name: [] for name in by_seed[0][0].class_names}
    for runs in by_seed:
        scored = [_Scored.of(run) for run in runs]
        names = [name for one in scored for name in one.test.groups or one.test.ids]
        groups = np.unique(names, return_inverse=True)[1]
        for c, name in enumerate(points):
            point = _point(scored, groups, c, sensitivity)
            if point is not None:
                points[name].append({"seed": runs[0].config.seed, **point})
    return points


@dataclasses.dataclass(frozen=True)
class _Scored:
    """A run's predictions with their log-odds, float64 [n, classes], which have the order of
    probabilities, and still differ where those round to 1."""

    validation: Predictions
    test: Predictions
    chosen: np.ndarray
    tested: np.ndarray

    @classmethod
    def of(cls, run: FinishedRun) -> _Scored:
        parts = run.predictions("validation"), run.predictions("test")
        return cls(*parts, *(log_odds(part.log_probabilities) for part in parts))


def _point(
    runs: Sequence[_Scored], groups: np.ndarray, c: int, sensitivity: float
) -> dict[str, Any] | None:
    """groups: int [n], of the test images of all runs."""
    thresholds: list[float] = []
    called, labels = [], []  # of the test images of all runs
    for run in runs:
        positive = run.validation.labels == c
        threshold = calibration.choose_threshold(positive, run.chosen[:, c], sensitivity)
        if threshold is None:
            return None
        thresholds.append(threshold)
        called.append(run.tested[:, c] >= threshold)
        labels.append(run.test.labels == c)
    # Scores 0 and 1, because thresholds differ between folds.
    measured = calibration.operating_point(
        np.concatenate(labels), np.concatenate(called).astype(float), 0.5, groups
    )
    measures = {
        name: {key: getattr(getattr(measured, name), key) for key in ("estimate", "low", "high")}
        for name in ("sensitivity", "specificity", "ppv", "npv")
    }
    return {"wanted": sensitivity, "thresholds": expit(thresholds).tolist(), **measures}


def rarest_first(content: Mapping[str, Any]) -> list[str]:
    """Class names by rising number of training images."""
    counts = dict(zip(content["class_names"], content["dataset"]["counts"]["train"], strict=True))
    return sorted(counts, key=lambda name: counts[name])


def rows(content: Mapping[str, Any], class_name: str) -> list[list[str]]:
    """One row for each method: the first seed's threshold and figures, other seeds' sensitivity."""
    result = []
    for name, entry in content["entries"].items():
        points = entry["operating_points"][class_name]
        if not points:
            result.append([name, *["–"] * 6])
            continue
        first, others = points[0], points[1:]
        shares = ("sensitivity", "specificity", "ppv", "npv")
        result.append(
            [
                name,
                _thresholds(first["thresholds"]),
                *(_share(first[share]) for share in shares),
                ", ".join(f"{one['sensitivity']['estimate']:.1%}" for one in others) or "–",
            ]
        )
    return result


HEADER = (
    "method",
    "threshold",
    "sensitivity",
    "specificity",
    "PPV",
    "NPV",
    "sensitivity, other seeds",
)


def explain(content: Mapping[str, Any]) -> str:
    """One paragraph on how thresholds were found and what PPV and NPV hold for."""
    wanted = f"{100 * content['settings']['sensitivity']:.4g}%"
    folds = (
        " Each fold has a threshold of its own, and figures are of the images of all folds."
        if content["folds"]
        else ""
    )
    return (
        "One class against all others. The threshold on the raw probability is the highest "
        f"with a sensitivity of at least {wanted} on validation; it is then applied unchanged to "
        f"the test images.{folds} Figures are of each method's first seed, with 95% score "
        "intervals over groups of test images, which do not cover other seeds. PPV and NPV hold at "
        "the test split's class shares only."
    )


def tabled(content: Mapping[str, Any]) -> list[str]:
    """The classes that tables have, the rarest first."""
    shown = class_tables.shown_names(content)
    return [name for name in rarest_first(content) if name in shown]


def markdown(content: Mapping[str, Any]) -> str:
    """The classes that tables have, the rarest first."""
    parts = [explain(content)]
    for name in tabled(content):
        parts += [
            f"{class_mark(content, name)}:",
            markdown_table(list(HEADER), rows(content, name)),
        ]
    return "\n\n".join(parts)


def _thresholds(values: Sequence[float]) -> str:
    """`0.1234`, or `0.1234 to 0.2345` of several folds."""
    ends = [min(values), max(values)][: len(values)]
    return " to ".join(f"{value:.4f}" if value >= 0.001 else f"{value:.1e}" for value in ends)


def _share(one: Mapping[str, float | None]) -> str:
    if one["estimate"] is None:
        return "–"
    return f"{one['estimate']:.1%} [{one['low']:.1%}, {one['high']:.1%}]"
