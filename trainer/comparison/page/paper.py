"""The page's section on a paper's printed tables, beside the methods of this study.

The file's layout is that of `comparison.published_tables`; nothing of any paper is part of
this package.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from cxr_tfrecords.pages.html import paragraph, stacked, table
from trainer.comparison.confusion_matrices import Matrices, summarize

_MEASURES = {
    "recall": ("Recall", "table_XIII_recall_percent"),
    "precision": ("Precision", "table_XIV_precision_percent"),
    "f1": ("F1", "table_XV_f1_percent"),
}
_SAMPLERS = ("none", "undersample", "oversample")


def paper(content: Mapping[str, Any], matrices: Matrices) -> Iterator[str]:
    """Recall, precision and F1 by class: printed, and of this study's entries that sample alike."""
    samplers = dict(zip(matrices.models, _samplers(matrices), strict=False))
    wanted = [name for name, entry in content["entries"].items() if _is_alike(entry)]
    yield paragraph(str(matrices.content.get("citation", "A paper's tables.")))
    models = [
        f"{model} ({samplers[model]})" if model in samplers else model for model in matrices.models
    ]
    for measure, (title, key) in _MEASURES.items():
        yield f"<h3>{title}</h3>"
        rows = [
            [
                name,
                *(_printed(matrices, model, measure, key, name) for model in matrices.models),
                *(stacked(_own(content["entries"][entry], measure, name)) for entry in wanted),
            ]
            for name in matrices.class_names
        ]
        header = ["class", *(f"paper: {m}" for m in models), *(f"here: {n}" for n in wanted)]
        yield table(header, rows)
    yield paragraph(
        "The paper's figures are of one training of each model, on its own test images. Other "
        "images, another split and other backbones lie between its columns and ours, so they are "
        "shown for orientation and not compared. What its tables support by themselves: "
        "python -m trainer.from_confusion FILE.",
        "quiet",
    )


def _samplers(matrices: Matrices) -> list[str]:
    # Such a file lists samplers and models in the same order: none, under-, oversampling.
    return list(matrices.content.get("table_V_train_after_sampling", {}))


def _is_alike(entry: Mapping[str, Any]) -> bool:
    """Whether a method is plain training behind one of the paper's samplers."""
    config = entry["config"]
    plain = config.get("loss", "cross_entropy") == "cross_entropy" and not config.get("mixup_alpha")
    return plain and config["sampler"] in _SAMPLERS


def _printed(matrices: Matrices, model: str, measure: str, key: str, name: str) -> str:
    printed = matrices.content.get(key, {}).get(model, {}).get(name)
    if printed is not None:
        return f"{printed:g}%"
    value = summarize(matrices.models[model], matrices.class_names)["per_class"][name][measure]
    value = value[0] if isinstance(value, list) else value
    return "–" if value is None else f"{value:.1%} (from its matrix)"


def _own(entry: Mapping[str, Any], measure: str, name: str) -> str:
    one = entry["metrics"].get(f"{measure}/{name}")
    if one is None or one["estimate"] is None:
        return "–"
    if one["low"] is None:
        return f"{one['estimate']:.1%}"
    return f"{one['estimate']:.1%} [{one['low']:.1%}, {one['high']:.1%}]"
