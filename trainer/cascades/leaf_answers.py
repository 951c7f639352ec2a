"""From the answers of each stage to those of the whole cascade, over its leaves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from trainer.cascades.description import Cascade
from trainer.deployment.corrected_probabilities import VARIANTS, Deployment

# Logit of every class that hard routing does not choose: as a probability about 0.
_NOT_CHOSEN = -20.0


def multiply(
    cascade: Cascade,
    leaves: Sequence[str],
    log_probabilities: Mapping[str, np.ndarray],
    answers: Mapping[str, Sequence[str]],
) -> np.ndarray:
    """float64 [n, leaves], log-probabilities: a leaf has the product of the probabilities of the
    answers that lead to it, so that a row sums to 1 as a row of each stage does.

    Args:
      leaves: in the order of the result.
      log_probabilities: stage -> float64 [n, answers]; answers: stage -> their order.
    """
    columns = []
    for leaf in leaves:
        steps = [
            log_probabilities[stage.name][:, list(answers[stage.name]).index(answer)]
            for stage, answer in cascade.path(leaf)
        ]
        columns.append(np.sum(steps, axis=0))
    return np.stack(columns, axis=1)


def leaf_variants(
    cascade: Cascade,
    leaves: Sequence[str],
    log_probabilities: Mapping[str, np.ndarray],
    answers: Mapping[str, Sequence[str]],
    plans: Mapping[str, Deployment],
) -> dict[str, np.ndarray]:
    """Each of `VARIANTS` -> products of the stages' probabilities, each corrected by its plan."""
    values = {name: plans[name].variants(p) for name, p in log_probabilities.items()}
    return {
        variant: multiply(cascade, leaves, {n: v[variant] for n, v in values.items()}, answers)
        for variant in VARIANTS
    }


def leaf_shares(
    cascade: Cascade,
    leaves: Sequence[str],
    answers: Mapping[str, Sequence[str]],
    plans: Mapping[str, Deployment],
    kind: str,
) -> np.ndarray:
    """float64 [leaves], sum 1: class shares of the leaves, from those of each stage's answers.

    Args:
      kind: `trained_at`, those that the raw products assume (balancing within each stage makes the
        shares of its answers equal, not those of the leaves); `natural` or `target`.
    """
    with np.errstate(divide="ignore"):  # a share of 0
        rows = {name: np.log(getattr(plan, kind))[np.newaxis] for name, plan in plans.items()}
    return np.exp(multiply(cascade, leaves, rows, answers)[0])


def route(
    cascade: Cascade,
    leaves: Sequence[str],
    log_probabilities: Mapping[str, np.ndarray],
    answers: Mapping[str, Sequence[str]],
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Hard routing: an image goes where the likeliest answer of each stage sends it.

    Returns:
      int32 [n], the leaf of each image; and stage -> bool [n], whether the image arrives there.
    """
    count = len(next(iter(log_probabilities.values())))
    arrives = {cascade.stages[0].name: np.ones(count, bool)}
    chosen = np.full(count, -1, np.int32)
    for stage in cascade.stages:
        best = log_probabilities[stage.name].argmax(axis=1)
        for c, answer in enumerate(answers[stage.name]):
            here = arrives[stage.name] & (best == c)
            if answer in leaves:
                chosen[here] = list(leaves).index(answer)
            else:
                arrives[answer] = here
    return chosen, arrives


def as_logits(chosen: np.ndarray, classes: int) -> np.ndarray:
    """float32 [n, classes] whose largest is that of the chosen class, int32 [n]: for metrics of
    the confusion matrix alone."""
    logits = np.full((len(chosen), classes), _NOT_CHOSEN, np.float32)
    logits[np.arange(len(chosen)), chosen] = 0
    return logits
