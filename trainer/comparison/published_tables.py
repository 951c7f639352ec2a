"""Checks a paper's printed tables against its confusion matrices, and what they can carry.

Reads the layout of Wuisan et al. 2022's tables as JSON: class_order,
confusion_matrices_rows_actual, table_XIII_recall_percent, table_XIV_precision_percent,
table_XV_f1_percent, and where they are there the counts and settings of Tables I to IX.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator
from typing import Any

from cxr_tfrecords.pages.markdown import markdown_table
from trainer.comparison.confusion_matrices import Matrices, summarize

_PRINTED = {
    "recall": ("XIII", "table_XIII_recall_percent"),
    "precision": ("XIV", "table_XIV_precision_percent"),
    "f1": ("XV", "table_XV_f1_percent"),
}
# Section III.C of Wuisan et al. 2022 calls model A the best of the three in these cells.
_CLAIMED = {
    "Wuisan": {
        "recall": ("A", ("COVID", "Lung_Opacity", "Normal")),
        "precision": ("A", ("COVID", "Normal", "Viral Pneumonia")),
        "f1": ("A", ("COVID", "Normal")),
    }
}


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
        """To the rounding of a whole percent, a half either way."""
        return self.computed is not None and abs(self.computed - self.printed) <= 0.5 + 1e-9


def is_published(matrices: Matrices) -> bool:
    return any(key in matrices.content for _, key in _PRINTED.values())


def printed_cells(matrices: Matrices) -> list[Cell]:
    """Every cell of Tables XIII to XV, and the accuracies of Table IX, beside its matrix."""
    cells = []
    for model, counts in matrices.models.items():
        summary = summarize(counts, matrices.class_names)
        for measure, (number, key) in _PRINTED.items():
            for name, printed in matrices.content.get(key, {}).get(model, {}).items():
                value = _first(summary["per_class"][name][measure])
                computed = None if value is None else 100 * value
                cells.append(Cell(f"{number} ({measure})", model, name, printed, computed))
        final = matrices.content.get("table_IX_final_results_percent", {}).get(model, {})
        if "accuracy" in final:
            computed = 100 * summary["accuracy"][0]
            cells.append(Cell("IX (accuracy)", model, "all", final["accuracy"], computed))
    return cells


def describe_published(matrices: Matrices) -> str:
    """The page's part on the paper: tables reproduced, and what they do and do not support."""
    cells = printed_cells(matrices)
    wrong = [cell for cell in cells if not cell.agrees]
    rows = [
        [f"{c.table}, {c.model}, {c.class_name}", f"{c.printed:g}", _percent(c.computed)]
        for c in cells
    ]
    parts = [
        "## Printed tables against the matrices",
        str(matrices.content.get("citation", "")),
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
    return "\n\n".join(part for part in parts if part)


def _notes(matrices: Matrices) -> Iterator[str]:
    content = matrices.content
    for surname, claims in _CLAIMED.items():
        if surname in content.get("citation", ""):
            yield from _claims(matrices, claims)
    if "table_V_train_after_sampling" in content:
        # The file lists samplers and models in the same order: none, under-, oversampling.
        streams = content["table_V_train_after_sampling"].items()
        named = [
            (model, sampler, sum(counts.values()))
            for model, (sampler, counts) in zip(matrices.models, streams, strict=False)
        ]
        yield from _overlaps(matrices, named)
        yield from _budgets(matrices, named)
    yield (
        "One training of each model, so nothing tells a method from a lucky seed, and no interval "
        "was printed; those above are of the test images only."
    )
    yield (
        "The matrices do support how each of these trained models did on its own test images, "
        "within the intervals above, if those images were unseen; not that a balancing method "
        "helps or harms."
    )


def _claims(matrices: Matrices, claims: dict[str, tuple[str, tuple[str, ...]]]) -> Iterator[str]:
    summaries = {m: summarize(n, matrices.class_names) for m, n in matrices.models.items()}
    for measure, (model, names) in claims.items():
        for name in names:
            values = {m: _first(s["per_class"][name][measure]) for m, s in summaries.items()}
            best = max(values, key=lambda m: values[m] or 0.0)
            if best != model:
                yield (
                    f"The text calls {model} best in {measure} of {name}; by the matrices {best} "
                    f"is ({values[best]:.1%} against {values[model]:.1%})."
                )


def _overlaps(matrices: Matrices, named: list[tuple[str, str, int]]) -> Iterator[str]:
    content = matrices.content
    everything = sum(content.get("table_I_class_counts", {}).values())
    train = content.get("table_II_split_counts", {}).get("train")
    for model, sampler, size in named:
        test = int(matrices.models[model].sum())
        if sampler == "none" and train is not None and size > train:
            note = (
                f"Model {model} ({sampler}) was trained on {size:,} images by Table V, the "
                f"training split has {train:,}."
            )
            if size + test > everything > 0:
                note += (
                    f" With its {test:,} test images that is more than the {everything:,} that "
                    f"there are: at least {size + test - everything:,} test images were trained "
                    "on, and its figures are too good by an unknown amount."
                )
            yield note


def _budgets(matrices: Matrices, named: list[tuple[str, str, int]]) -> Iterator[str]:
    settings: dict[str, Any] = matrices.content.get("table_VIII_final_tuning", {})
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
    streams = matrices.content["table_V_train_after_sampling"]
    if "none" in streams and "undersample" in streams:
        rarest = min(streams["undersample"].values())
        largest = sum(streams["none"].values())
        note += (
            f"; {rarest:,} images of a class are all that undersampling leaves, of {largest:,} "
            f"images without it (a factor of {largest / rarest:.0f})"
        )
    yield note + ". What the method does and what the budget does are not told apart."
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
