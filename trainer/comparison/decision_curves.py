"""Net benefit of every method's calibrated probabilities, for one class against all others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from cxr_tfrecords.errors import UserError
from cxr_tfrecords.pages.markdown import plain_table
from trainer.comparison import operating_points
from trainer.comparison.methods import Scored
from trainer.comparison.text import class_mark
from trainer.evaluation.inference import LEVEL, Inference, plain
from trainer.evaluation.net_benefit import SHOWN, THRESHOLDS, net_benefit


def choose_class(benefit_class: str, dataset: Mapping[str, Any]) -> str:
    """The class that the user names; if that is empty, the rarest of the training split.

    Raises:
      UserError: there is no such class.
    """
    names = dataset["class_names"]
    if benefit_class and benefit_class not in names:
        raise UserError(
            f"--benefit_class={benefit_class!r} is not a class of the data set: name one of "
            f"{', '.join(names)}"
        )
    return (
        benefit_class
        or operating_points.rarest_first({"class_names": names, "dataset": dataset})[0]
    )


def add_net_benefit(
    results: Mapping[str, dict[str, Any]],
    scored: Mapping[str, Scored],
    label: int,
    class_name: str,
    weights: np.ndarray,
    inference: Inference,
) -> dict[str, Any]:
    """Adds `net_benefit` to each entry: its curve, and intervals at the thresholds `SHOWN`.

    Args:
      weights: of calibrated probabilities, [1 + resamples, n].

    Returns:
      What the entries share, as JSON values: class, thresholds, and the curve of calling all.
    """
    values, positive = [], next(iter(scored.values())).predictions[0].labels == label
    for name, one in scored.items():
        by_seed = [np.exp(variant[:, label]) for variant in one.variants["calibrated"]]
        curves = [net_benefit(positive, p, THRESHOLDS, weights[:1])[0] for p in by_seed]
        results[name]["net_benefit"] = {"curve": _numbers(np.mean(curves, axis=0))}
        values.append(
            np.stack([net_benefit(positive, p, np.array(SHOWN), weights) for p in by_seed])
        )
    metric = f"net_benefit/{class_name}"
    for t, threshold in enumerate(SHOWN):
        study = inference.study(metric, [one[:, :, t] for one in values])
        for i, name in enumerate(results):
            interval = plain(study.mean(i).interval(LEVEL)) | {"p_value": None}
            results[name]["net_benefit"][str(threshold)] = interval
    everything = net_benefit(positive, np.ones(len(positive)), THRESHOLDS, weights[:1])[0]
    return {
        "class": class_name,
        "thresholds": THRESHOLDS.tolist(),
        "all": _numbers(everything),
    }


def _numbers(values: np.ndarray) -> list[float | None]:
    return [float(value) if np.isfinite(value) else None for value in values]


def explain(content: Mapping[str, Any]) -> str:
    """One paragraph: what net benefit is, and of which class and probabilities."""
    name = class_mark(content, content["net_benefit"]["class"])
    return (
        f"{name} against all others: what acting on the calibrated probability brings (decision "
        "curve analysis; Vickers and Elkin 2006). The threshold is the probability from which one "
        "acts, and says how many false alarms one true case is worth: 19 at 5%, 9 at 10%, 4 at "
        "20%, 1 at 50%. Net benefit is the number of true cases that are called, less the false "
        "alarms at this price, in 1,000 images. A model helps where it is above both calling all "
        "images and calling none. Exploratory."
    )


def header() -> list[str]:
    """Of the rows of `rows`."""
    return ["net benefit in 1,000 images", *(f"from {threshold:.0%} on" for threshold in SHOWN)]


def rows(content: Mapping[str, Any]) -> list[list[str]]:
    """Calling all, calling none, then a row a method, means over seeds with intervals."""
    shared = content["net_benefit"]
    everything = dict(zip(shared["thresholds"], shared["all"], strict=True))
    result = [
        ["calling all", *(_number(everything[threshold]) for threshold in SHOWN)],
        ["calling none", *(_number(0.0) for _ in SHOWN)],
    ]
    for name, entry in content["entries"].items():
        own = entry["net_benefit"]
        result.append([name, *(_with_interval(own[str(threshold)]) for threshold in SHOWN)])
    return result


def markdown(content: Mapping[str, Any]) -> str:
    """The section of comparison.md."""
    return explain(content) + "\n\n" + plain_table(header(), rows(content))


def _number(value: float | None) -> str:
    # Adding 0 makes the -0.0 that rounding leaves a 0.0.
    return "–" if value is None else f"{round(1000 * value, 1) + 0.0:,.1f}"


def _with_interval(one: Mapping[str, Any]) -> str:
    if one["low"] is None:
        return _number(one["estimate"])
    return f"{_number(one['estimate'])} [{_number(one['low'])}, {_number(one['high'])}]"
