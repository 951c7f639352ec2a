"""Thresholds chosen on validation and reported on test, class by class, for every run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from scipy.special import expit

from cxr_tfrecords.pages.markdown import markdown_table
from trainer.comparison.text import class_mark
from trainer.evaluation import calibration
from trainer.evaluation.metrics import log_odds
from trainer.evaluation.predictions import Predictions
from trainer.runs.finished_run import FinishedRun

SENSITIVITY = 0.95


def of_runs(
    runs: Sequence[FinishedRun], sensitivity: float = SENSITIVITY
) -> dict[str, list[dict[str, Any]]]:
    """Class name -> one operating point for each run, as JSON values.

    The threshold is the highest with this sensitivity on validation; test images are not used to
    choose it. Each of sensitivity, specificity, ppv and npv has estimate, low and high (a 95% score
    interval over the groups of test images). A class without validation images has no threshold,
    and an empty list.
    """
    points: dict[str, list[dict[str, Any]]] = {name: [] for name in runs[0].class_names}
    for run in runs:
        validation, test = run.predictions("validation"), run.predictions("test")
        for c, name in enumerate(run.class_names):
            point = _point(validation, test, c, sensitivity)
            if point is not None:
                points[name].append({"seed": run.config.seed, **point})
    return points


def _point(
    validation: Predictions, test: Predictions, c: int, sensitivity: float
) -> dict[str, Any] | None:
    # Log-odds have the order of probabilities, and still differ where those round to 1.
    chosen, tested = (log_odds(p.log_probabilities)[:, c] for p in (validation, test))
    threshold = calibration.choose_threshold(validation.labels == c, chosen, sensitivity)
    if threshold is None:
        return None
    measured = calibration.operating_point(test.labels == c, tested, threshold, test.groups or None)
    measures = {
        name: {key: getattr(getattr(measured, name), key) for key in ("estimate", "low", "high")}
        for name in ("sensitivity", "specificity", "ppv", "npv")
    }
    return {"wanted": sensitivity, "threshold": float(expit(threshold)), **measures}


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
                _threshold(first["threshold"]),
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
    return (
        "One class against all others. The threshold on the raw probability is the highest "
        f"with a sensitivity of at least {wanted} on validation; it is then applied unchanged to "
        "the test images. Figures are of each method's first seed, with 95% score intervals "
        "over groups of test images, which do not cover other seeds. PPV and NPV hold at the "
        "test split's class shares only."
    )


def markdown(content: Mapping[str, Any]) -> str:
    """All classes, the rarest first."""
    parts = [explain(content)]
    for name in rarest_first(content):
        parts += [
            f"{class_mark(content, name)}:",
            markdown_table(list(HEADER), rows(content, name)),
        ]
    return "\n\n".join(parts)


def _threshold(value: float) -> str:
    return f"{value:.4f}" if value >= 0.001 else f"{value:.1e}"


def _share(one: Mapping[str, float | None]) -> str:
    if one["estimate"] is None:
        return "–"
    return f"{one['estimate']:.1%} [{one['low']:.1%}, {one['high']:.1%}]"
