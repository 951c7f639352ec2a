"""How fitted temperatures are written, and what those at an end of their range mean."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from trainer.comparison.text import run_titles
from trainer.deployment.corrected_probabilities import temperature_warning


def temperatures(values: Sequence[float]) -> str:
    """`1.24, 0.10 (bound)`: the temperature of each run."""
    return ", ".join(f"{t:.2f}{' (bound)' if temperature_warning(t) else ''}" for t in values)


def temperature_notes(content: Mapping[str, Any]) -> Iterator[str]:
    """A sentence for each end of the range that a temperature is at: which runs, and why."""
    runs: dict[str, list[str]] = {}
    for name, entry in content["entries"].items():
        titles = run_titles(content, entry)
        for title, value in zip(titles, entry["temperatures"], strict=True):
            if warning := temperature_warning(value):
                runs.setdefault(warning, []).append(f"{name} {title}")
    for warning, names in runs.items():
        yield f"{', '.join(names)}: {warning}"
