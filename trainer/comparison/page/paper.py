"""The page's section on a paper's printed tables, beside the methods of this study.

`comparison.published_tables` reads the tables, `comparison.published_leak` finds test images that
the paper's models were trained on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from cxr_tfrecords.errors import UserError
from cxr_tfrecords.pages.html import paragraph, stacked, table
from trainer.comparison import published_leak, published_tables
from trainer.comparison.confusion_matrices import Matrices, read_matrices, summarize
from trainer.comparison.text import class_mark

_TITLES = {"recall": "Recall", "precision": "Precision", "f1": "F1"}


def read_paper(path: str) -> Matrices:
    """Reads --paper_tables, and sees that the page can show it.

    Raises:
      UserError: it cannot be read, or a table of it has another layout.
    """
    try:
        matrices = read_matrices(path)
        list(paper_tables({"entries": {}, "test": {"rare_classes": {}}}, matrices))
    except UserError as error:
        raise UserError(f"--paper_tables={path}: {error}") from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"--paper_tables={path}: a table has another layout than "
            f"trainer/comparison/published_tables.json says ({type(error).__name__}: {error}): "
            "correct it, or remove its key"
        ) from error
    return matrices


def paper_tables(content: Mapping[str, Any], matrices: Matrices) -> Iterator[str]:
    """Recall, precision and F1 by class: printed, and of this study's entries that sample alike."""
    samplers = dict(zip(matrices.models, published_tables.streams(matrices), strict=False))
    wanted = [name for name, entry in content["entries"].items() if _is_alike(entry)]
    yield paragraph(str(matrices.content.get("citation", "A paper's tables.")))
    yield from map(paragraph, published_leak.summarize_leaks(matrices))
    if content["test"]["rare_classes"]:
        yield paragraph("* Few test images in this study, see its verdict.", "quiet")
    models = [
        f"{model} ({samplers[model]})" if model in samplers else model for model in matrices.models
    ]
    for measure, printed in published_tables.percentages(matrices).items():
        yield f"<h3>{_TITLES[measure]}</h3>"
        rows = [
            [
                class_mark(content, name),
                *(
                    _printed(matrices, model, measure, printed.get(model, {}).get(name), name)
                    for model in matrices.models
                ),
                *(stacked(_measured(content["entries"][entry], measure, name)) for entry in wanted),
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


def _is_alike(entry: Mapping[str, Any]) -> bool:
    """Whether a method is plain training on one of the samplers that papers of this layout use."""
    config = entry["config"]
    plain = config["loss"] == "cross_entropy" and not config["mixup_alpha"]
    return plain and config["sampler"] in published_tables.SAMPLERS


def _printed(matrices: Matrices, model: str, measure: str, printed: float | None, name: str) -> str:
    """The printed percentage of a class, or what the matrix gives where none was printed."""
    if printed is not None:
        return f"{printed:g}%"
    value = summarize(matrices.models[model], matrices.class_names)["per_class"][name][measure]
    value = value[0] if isinstance(value, list) else value
    return "–" if value is None else f"{value:.1%} (from its matrix)"


def _measured(entry: Mapping[str, Any], measure: str, name: str) -> str:
    one = entry["metrics"].get(f"{measure}/{name}")
    if one is None or one["estimate"] is None:
        return "–"
    if one["low"] is None:
        return f"{one['estimate']:.1%}"
    return f"{one['estimate']:.1%} [{one['low']:.1%}, {one['high']:.1%}]"
