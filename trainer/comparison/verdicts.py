"""The verdict of a comparison: better, worse, equivalent or inconclusive.

The primary metric and then the Brier score are judged, each over all methods (Holm). Everything
else is exploratory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trainer.evaluation import bootstrap, study_size
from trainer.evaluation.bootstrap import FIXED
from trainer.evaluation.crossed_seeds import Estimate
from trainer.evaluation.inference import LEVEL, better

BETTER, WORSE, EQUIVALENT, INCONCLUSIVE = "better", "worse", "equivalent", "inconclusive"
ALPHA = 1 - LEVEL


def judge(
    metric: str,
    differences: Mapping[str, Estimate],
    p_values: Mapping[str, float | None],
    margin: float | None = None,
) -> dict[str, dict[str, Any]]:
    """Method -> its verdict on one metric, as JSON values.

    A difference is better or worse if it is beyond 0, equivalent if it is within the margin
    (two one-sided tests, Schuirmann 1987, with the bounds of the 95% interval); both after Holm's
    correction over the methods. A difference beyond 0 and within the margin is equivalent: the
    margin is the smallest difference that matters.

    Args:
      differences: of each method to the reference.
      p_values: of these differences, after Holm's correction.
      margin: in the metric's unit; None: no difference is called equivalent.
    """
    within = bootstrap.holm([_p_outside(one, margin) for one in differences.values()])
    verdicts = {}
    for (name, one), p_within in zip(differences.items(), within, strict=True):
        verdicts[name] = {
            "word": _word(metric, one, p_values[name], p_within),
            "p_holm": p_values[name],
            "p_equivalent_holm": p_within,
            "margin": margin,
            **_size(one, margin, len(differences)),
        }
    return verdicts


def _p_outside(one: Estimate, margin: float | None) -> float | None:
    """p-value of a true difference of at least the margin, two-sided as the interval is."""
    if margin is None or one.value is None:
        return None
    if abs(one.value) >= margin:
        return 1.0
    p_values = (one.p_beyond(-margin), one.p_beyond(margin))
    return None if None in p_values else max(p_values)  # type: ignore[type-var]


def _word(metric: str, one: Estimate, p_value: float | None, p_within: float | None) -> str | None:
    """None for two trained models, which say nothing of methods."""
    if not one.seed_df:
        return None
    if p_within is not None and p_within < ALPHA:
        return EQUIVALENT
    if one.value and p_value is not None and p_value < ALPHA:
        return BETTER if better(metric, one.value) else WORSE
    return INCONCLUSIVE


def _size(one: Estimate, margin: float | None, tests: int) -> dict[str, Any]:
    """What this study could have seen, and how large it would have to be for the margin."""
    result: dict[str, Any] = {
        "smallest_difference": study_size.smallest_difference(one, tests, LEVEL),
        "seeds_needed": None,
        "images_needed": None,
    }
    if margin is not None and one.seed_df:
        result["seeds_needed"] = study_size.seeds_needed(one, margin, tests, LEVEL)
        result["images_needed"] = study_size.images_needed(one, margin, tests, LEVEL)
    return result


def words(content: Mapping[str, Any], metric: str) -> dict[str, str | None]:
    """Method -> its word on a metric that is judged: the primary one, or `brier`."""
    return {name: one["verdict"][metric]["word"] for name, one in content["differences"].items()}


def of_models(content: Mapping[str, Any]) -> bool:
    """Whether a difference is one of trained models, with one seed, not of methods."""
    return any(
        one["metrics"][content["primary"]]["seeds"] == FIXED
        for one in content["differences"].values()
    )


def named(content: Mapping[str, Any], metric: str, word: str) -> Sequence[str]:
    """The methods with a verdict."""
    return [name for name, one in words(content, metric).items() if one == word]
