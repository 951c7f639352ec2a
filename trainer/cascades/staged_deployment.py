"""The correction of a cascade's probabilities: stage by stage, and multiplied again."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.special import logsumexp

from trainer.cascades import leaf_answers
from trainer.cascades.description import Cascade
from trainer.deployment.corrected_probabilities import Deployment


@dataclasses.dataclass(frozen=True)
class StagedDeployment(Deployment):
    """The correction of a cascade's probabilities: each stage is corrected by its own plan, and the
    results are multiplied, as trainer.predict does. So there is no temperature of the whole.

    Attributes:
      leaves: in the order of the probabilities.
      answers: stage -> the order of its answers; plans: stage -> its correction.
    """

    cascade: Cascade
    leaves: Sequence[str]
    answers: Mapping[str, Sequence[str]]
    plans: Mapping[str, Deployment]

    @classmethod
    def of(
        cls,
        cascade: Cascade,
        leaves: Sequence[str],
        answers: Mapping[str, Sequence[str]],
        plans: Mapping[str, Deployment],
    ) -> StagedDeployment:
        """With the class shares of the leaves that follow from those of each stage."""
        trained_at, natural, target = (
            leaf_answers.leaf_shares(cascade, leaves, answers, plans, kind)
            for kind in ("trained_at", "natural", "target")
        )
        return cls(trained_at, natural, target, 1.0, cascade, tuple(leaves), answers, plans)

    @property
    def temperatures(self) -> tuple[float, ...]:
        return tuple(plan.temperature for plan in self.plans.values())

    def temperature_warnings(self) -> list[str]:
        """As `Deployment.temperature_warnings`, with the name of the stage."""
        return [
            f"stage {name}: {warning}"
            for name, plan in self.plans.items()
            for warning in plan.temperature_warnings()
        ]

    def variants(self, log_probabilities: np.ndarray) -> dict[str, np.ndarray]:
        """Each of `VARIANTS` of log-probabilities of the leaves, all float64 [n, leaves]."""
        by_stage = split(self.cascade, self.leaves, log_probabilities, self.answers)
        corrected = leaf_answers.leaf_variants(
            self.cascade, self.leaves, by_stage, self.answers, self.plans
        )
        return {**corrected, "raw": log_probabilities}  # unchanged to the last bit


def split(
    cascade: Cascade,
    leaves: Sequence[str],
    log_probabilities: np.ndarray,
    answers: Mapping[str, Sequence[str]],
) -> dict[str, np.ndarray]:
    """What the stages said, from their product: the reverse of `leaf_answers.multiply`.

    Args:
      log_probabilities: float64 [n, leaves]; answers: stage -> their order.

    Returns:
      Stage -> float64 [n, answers]; rows sum to 1 as probabilities.
    """
    result = {}
    for stage in cascade.stages:
        sums = [
            logsumexp(
                log_probabilities[:, [leaves.index(leaf) for leaf in cascade.leaves_below(answer)]],
                axis=1,
            )
            for answer in answers[stage.name]
        ]
        columns = np.stack(sums, axis=1)
        result[stage.name] = columns - logsumexp(columns, axis=1, keepdims=True)
    return result
