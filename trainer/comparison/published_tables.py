"""Checks a paper's printed tables against its confusion matrices, and says what they support.

The file of the tables holds class_order, confusion_matrices_rows_actual and further parts, whose
names are in published_tables.json beside this module. Parts that a paper does not print are left
out.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from cxr_tfrecords.pages.markdown import markdown_table
from trainer.comparison.confusion_matrices import Matrices, summarize
from trainer.comparison.paired_bounds import paired_bounds

_LAYOUT: dict[str, Any] = json.loads(
    pathlib.Path(__file__).with_suffix(".json").read_text(encoding="utf-8")
)
MEASURES = tuple(_LAYOUT["percentages"])
# The sampler of each model, in the order of the file.
SAMPLERS = tuple(_LAYOUT["samplers"])


@dataclasses.dataclass(frozen=True)
class Cell:
    """A printed percentage and what the matrix gives (percent; None where undefined)."""

    table: str
    model: str
    class_name: str
    printed: float
    computed: float | None

    @property
    def agrees(self) -> bool:
        """Whether both agree to half a percent, since papers print whole ones."""
        return self.computed is not None and abs(self.computed - self.printed) <= 0.5 + 1e-9


def is_published(matrices: Matrices) -> bool:
    """Whether the file holds printed percentages beside the matrices."""
    return any(map(percentages(matrices).get, MEASURES))


def percentages(matrices: Matrices) -> dict[str, Mapping[str, Mapping[str, float]]]:
    """Measure -> model -> class -> printed percentage; empty where nothing was printed."""
    return {m: matrices.content.get(_LAYOUT["percentages"][m]["key"], {}) for m in MEASURES}


def streams(matrices: Matrices) -> Mapping[str, Mapping[str, int]]:
    """Sampler -> class -> training images after sampling, in the order of the file's models."""
    return part(matrices, "sampled_counts")


def part(matrices: Matrices, name: str) -> Mapping[str, Any]:
    """A part of the file by its name in published_tables.json; empty where it was not printed."""
    return matrices.content.get(_LAYOUT[name]["key"], {})


def table_number(name: str) -> str:
    """The number of a part's printed table, such as `V`."""
    return str(_LAYOUT[name]["table"])


def printed_cells(matrices: Matrices) -> list[Cell]:
    """Every printed percentage by class, and every printed accuracy, beside its matrix."""
    cells = []
    for model, counts in matrices.models.items():
        summary = summarize(counts, matrices.class_names)
        for measure, by_model in percentages(matrices).items():
            table = f"{_LAYOUT['percentages'][measure]['table']} ({measure})"
            for name, printed in by_model.get(model, {}).items():
                value = _first(summary["per_class"][name][measure])
                computed = None if value is None else 100 * value
                cells.append(Cell(table, model, name, printed, computed))
        final = part(matrices, "results").get(model, {})
        if "accuracy" in final:
            computed = 100 * summary["accuracy"][0]
            table = f"{_LAYOUT['results']['table']} (accuracy)"
            cells.append(Cell(table, model, "all", final["accuracy"], computed))
    return cells


def describe_published(matrices: Matrices) -> str:
    """The page's part on the paper: which printed figures follow, and what they support."""
    cells = printed_cells(matrices)
    wrong = [cell for cell in cells if not cell.agrees]
    rows = [
        [f"{c.table}, {c.model}, {c.class_name}", f"{c.printed:g}", _percent(c.computed)]
        for c in cells
    ]
    parts = [
        "## Printed tables against the matrices",
        f"{len(cells) - len(wrong)} of {len(cells)} printed percentages follow from the matrices "
        "to their rounding."
        + "".join(
            f"\n- Table {c.table}, model {c.model}, {c.class_name}: printed {c.printed:g}, the "
            f"matrix gives {_percent(c.computed)}"
            for c in wrong
        ),
        markdown_table(["table, model, class", "printed %", "from the matrix %"], rows),
        "## What these results support",
        "\n".join(f"- {note}" for note in _notes(matrices)),
    ]
    return "\n\n".join(parts)


def _notes(matrices: Matrices) -> Iterator[str]:
    yield from _contradicted(matrices)
    yield from _misquoted(matrices)
    yield from _not_the_same(matrices)
    if streams(matrices):
        named = [
            (model, sampler, sum(counts.values()))
            for model, (sampler, counts) in zip(
                matrices.models, streams(matrices).items(), strict=False
            )
        ]
        yield from _budgets(matrices, named)
    yield (
        "Each model was trained once, so a better method cannot be distinguished from a lucky "
        "seed. No interval was printed; those above cover the choice of test images only."
    )
    yield (
        "The matrices show how well each of these trained models did on its own test images, "
        "within the intervals above, if those images were not trained on. They do not show that a "
        "balancing method helps or harms."
    )


def _contradicted(matrices: Matrices) -> Iterator[str]:
    """Figures that the paper's text calls the best, though by the matrices another model's is."""
    summaries = {m: summarize(n, matrices.class_names) for m, n in matrices.models.items()}
    for claim in claims(matrices, "best_by_text"):
        measure, model = claim["measure"], claim["model"]
        for name in claim["classes"]:
            values = {m: _first(s["per_class"][name][measure]) for m, s in summaries.items()}
            best = max(values, key=lambda m: values[m] or 0.0)
            if best != model:
                yield (
                    f"The text calls {model} best in {measure} of {name}; by the matrices {best} "
                    f"is ({values[best]:.1%} against {values[model]:.1%})."
                )


def _misquoted(matrices: Matrices) -> Iterator[str]:
    """Figures of the paper's text that its own tables print otherwise."""
    for claim in claims(matrices, "figures_by_text"):
        model, measure, value = claim["model"], claim["measure"], claim["percent"]
        printed = part(matrices, claim["part"]).get(model, {}).get(measure)
        if printed is not None and printed != value:
            yield (
                f"The text gives {model} a {measure} of {value:g}% (section {claim['section']}, "
                f"{claim['about']}); Table {table_number(claim['part'])} prints {printed:g}."
            )


def _not_the_same(matrices: Matrices) -> Iterator[str]:
    """Models that differ beyond chance, though the paper's text says that none do."""
    for claim in claims(matrices, "no_difference_by_text"):
        for bounds in paired_bounds(matrices.models):
            if bounds.p_high < 0.05:
                yield (
                    f"The text sees no significant difference between the models (section "
                    f"{claim['section']}: “{claim['words']}”) and prints no test. {bounds.first} "
                    f"and {bounds.second} differ whichever images each got wrong: McNemar's p is "
                    f"at most {bounds.p_high:.2g} ({bounds.exact_high:.2g} by the exact test)."
                )


def claims(matrices: Matrices, kind: str) -> list[dict[str, Any]]:
    """Claims of the text of this paper, which published_tables.json lists."""
    citation = matrices.content.get("citation", "")
    return [claim for claim in _LAYOUT[kind] if claim["citation"] in citation]


def _budgets(matrices: Matrices, named: list[tuple[str, str, int]]) -> Iterator[str]:
    """Images and updates of an epoch, and what else differs between the models."""
    settings = part(matrices, "settings")
    sizes = [size for *_, size in named]
    lines = []
    steps = []
    for model, sampler, size in named:
        line = f"{model} ({sampler}) {size:,} images"
        batch = settings.get(model, {}).get("batch_size")
        if batch:
            steps.append(math.ceil(size / batch))
            line += f", {steps[-1]:,} updates of {batch}"
        lines.append(line)
    note = f"An epoch is {'; '.join(lines)}: budgets differ by a factor of "
    note += f"{max(sizes) / min(sizes):.1f} in images"
    if len(steps) == len(sizes):
        note += f" and {max(steps) / min(steps):.1f} in updates"
    sampled = streams(matrices)
    if "none" in sampled and "undersample" in sampled:
        rarest = min(sampled["undersample"].values())
        largest = sum(sampled["none"].values())
        note += (
            f"; undersampling leaves {rarest:,} images of a class, of {largest:,} images of all "
            f"classes without it (a factor of {largest / rarest:.0f})"
        )
    yield note + ". Effects of methods and of budgets cannot be separated."
    backbones = {model: s.get("backbone") for model, s in settings.items()}
    for a, b in itertools.combinations(matrices.models, 2):
        if backbones.get(a) != backbones.get(b):
            yield (
                f"{a} and {b} differ in backbone too ({backbones.get(a)}, {backbones.get(b)}): "
                "their difference is not one of balancing alone."
            )


def _first(value: Any) -> float | None:
    return value[0] if isinstance(value, list) else value


def _percent(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.2f}"
