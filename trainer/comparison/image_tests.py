"""McNemar's and DeLong's tests of a comparison, seed by seed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from trainer.comparison.methods import Entry, Scored
from trainer.evaluation import paired_tests
from trainer.evaluation.metrics import log_odds


def add_tests(
    result: dict[str, Any],
    entries: Sequence[Entry],
    reference: str,
    scored: Mapping[str, Scored],
    class_names: Sequence[str],
) -> None:
    """McNemar's and DeLong's tests of each seed, which compare two trained models.

    They are not joined to one p-value: each seed may point in another direction.
    """
    seeds = {entry.name: entry.seeds for entry in entries}
    for name, one in result.items():
        one["mcnemar"], one["delong"] = [], {c: [] for c in class_names}
        for seed in seeds[name]:
            if seed not in seeds[reference]:
                continue
            a = scored[name].predictions[seeds[name].index(seed)]
            b = scored[reference].predictions[seeds[reference].index(seed)]
            right = [p.logits.argmax(1) == p.labels for p in (a, b)]
            one["mcnemar"].append(
                {"seed": seed, **dataclasses.asdict(paired_tests.mcnemar(*right))}
            )
            odds = [log_odds(p.log_probabilities) for p in (a, b)]
            for c, class_name in enumerate(class_names):
                test = paired_tests.delong(a.labels == c, odds[0][:, c], odds[1][:, c])
                if test is not None:
                    one["delong"][class_name].append({"seed": seed, **dataclasses.asdict(test)})
