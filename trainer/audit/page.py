"""shortcuts.html and shortcuts.md: verdict, an example of each condition, figures, limits."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from cxr_tfrecords import images
from cxr_tfrecords.pages.figures import COLORS, draw, new_figure
from cxr_tfrecords.pages.html import (
    RESULTS,
    Thumbnail,
    box,
    document,
    figure,
    heading,
    paragraph,
    row,
)
from cxr_tfrecords.pages.markdown import escaped
from cxr_tfrecords.pages.parts import to_html, to_markdown
from trainer.audit import file_facts, verdict
from trainer.audit.conditions import TITLES
from trainer.audit.verdict import LIKELY, NONE, POSSIBLE, UNKNOWN
from trainer.comparison.text import change, number, with_interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ALL_TITLES = {**TITLES, **file_facts.TITLES}
_COLORS = {LIKELY: "red", POSSIBLE: "amber", NONE: "green", UNKNOWN: "gray"}
_SOURCES = {
    "data_set": "from the data set",
    "black": "what is not black, because the images are black around the lungs",
    "segmenter": "from a segmenter",
    "box": "not known",
}
_PANELS = {"balanced_accuracy": "Balanced accuracy", "auroc_macro": "AUROC (macro)"}
_CSS = f"""{RESULTS}
.card {{ flex: 1 1 300px; min-width: 0; }}
figure img {{ image-rendering: pixelated; }}
"""
_HEADLINE = (
    "The trained model, unchanged, answers for the same images in each condition. Intervals "
    "are of 95%, over groups of images (copies, patients). Differences are to the whole image, "
    "from the same resamples. Kept: the share of what is above chance on whole images. The "
    "last rows are a decision tree on facts of the files, fitted on the training images."
)
_BY_CLASS = "AUROC of each class against all others; chance is 0.5."
_LIMITS = (
    "What is outside the lungs may be true information: age, body size, the heart, an operation, "
    "a tube. The page says that the model can use it, not that this is wrong. A model that was "
    "not trained on images with covered parts may fail on them: a figure near chance is no proof "
    "that it ignores what is there. A trace of the source inside the lungs (sharpness, noise) "
    "cannot be seen here at all: only images from elsewhere show it (python -m trainer.evaluate). "
    "This is not a medical device."
)
RULES = (
    f"Above chance means: the 95% interval is, and the figure is by {verdict.MARGIN:.2f} or more. "
    "Likely: in an image without lungs (a rectangle over them, or only the outer 10%) balanced "
    "accuracy, AUROC or the AUROC of a class that is not rare is above chance and keeps "
    f"{verdict.KEPT:.0%} or more of what is above chance on whole images. Possible: there, with "
    "the lungs covered, or from their outline alone, balanced accuracy or AUROC is above "
    "chance; or format and size in pixels of the files tell the class. The rules were written "
    "before any model was looked at."
)


def render(content: Mapping[str, Any], example: Mapping[str, np.ndarray]) -> str:
    """The page as HTML, without scripts or outside resources.

    Args:
      content: of shortcuts.json.
      example: condition -> an image as it was shown, uint8 [S, S, C].
    """
    body = [box(_COLORS[content["verdict"]["level"]], *content["verdict"]["text"])]
    body += [box("amber", note) for note in verdict.notes(content)]
    body += [heading("What the model was shown"), paragraph(_example_text(content), "quiet")]
    body.append(row(_thumbnail(name, content, pixels) for name, pixels in example.items()))
    body.append(heading("What it still knows"))
    body.append(row(_drawn(content, metric) for metric in _PANELS))
    body += to_html(_parts(content))
    return document(_title(content), "\n".join(body), _CSS)


def render_markdown(content: Mapping[str, Any]) -> str:
    """The same without pictures."""
    first, *more = content["verdict"]["text"]
    lines = [f"# {escaped(_title(content))}", f"**{escaped(first)}**", *map(escaped, more)]
    lines += [f"- {escaped(note)}" for note in verdict.notes(content)]
    lines += to_markdown(_parts(content))
    return "\n\n".join(lines) + "\n"


def _title(content: Mapping[str, Any]) -> str:
    return f"Lungs or a shortcut? {os.path.basename(content['run'].rstrip('/'))}"


def _thumbnail(name: str, content: Mapping[str, Any], pixels: np.ndarray) -> str:
    jpeg = images.encode(pixels, "jpeg")
    one = content["conditions"][name]["balanced_accuracy"]
    caption = [TITLES[name], number("balanced_accuracy", one["estimate"])]
    return figure(Thumbnail(f"{content['example']}: {TITLES[name]}", "", jpeg, True), caption)


def _example_text(content: Mapping[str, Any]) -> str:
    area = content["lung_share"]
    size = "" if area is None else f"; in the median image they are {area:.0%} of the pixels"
    return (
        f"{content['example']}, as the model saw it, with the balanced accuracy of all images. "
        f"Lung masks: {_SOURCES[content['mask_source']]}{size}. What is taken away has the gray "
        f"value {content['fill']}."
    )


def _parts(content: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
    """See `cxr_tfrecords.pages.parts`."""
    yield "text", _HEADLINE
    yield "table", HEADER, condition_rows(content)
    yield "heading", "By class"
    yield "text", _BY_CLASS
    yield "table", ["condition", *_class_titles(content)], class_rows(content)
    yield "heading", "Rules of the verdict"
    yield "text", RULES
    yield "heading", "Limits"
    yield "text", _LIMITS
    yield (
        "text",
        f"{content['images']:,} images of the {content['split']} split of {content['data']} in "
        f"{content['groups']:,} groups; {content['resamples']:,} resamples.",
    )


HEADER = [
    "condition",
    "balanced accuracy",
    "difference, points",
    "kept",
    "accuracy",
    "AUROC (macro)",
]


def condition_rows(content: Mapping[str, Any]) -> list[list[str]]:
    """Under `HEADER`."""
    rows = []
    for name, figures in content["conditions"].items():
        one = figures["balanced_accuracy"]
        rows.append(
            [
                ALL_TITLES[name]
                + " (nothing left)" * (content["empty"].get(name, 0) >= verdict.NEARLY_ALL),
                with_interval("balanced_accuracy", one),
                with_interval("balanced_accuracy", one["difference"], change),
                "–" if one["kept"] is None else f"{max(one['kept'], 0):.0%}",
                with_interval("accuracy", figures["accuracy"]),
                with_interval("auroc_macro", figures["auroc_macro"]),
            ]
        )
    return rows


def _class_titles(content: Mapping[str, Any]) -> list[str]:
    return [f"* {n}" if n in content["rare_classes"] else n for n in content["class_names"]]


def class_rows(content: Mapping[str, Any]) -> list[list[str]]:
    """AUROC of each class in each condition."""
    return [
        [
            ALL_TITLES[name],
            *(with_interval("auroc", f[f"auroc/{c}"]) for c in content["class_names"]),
        ]
        for name, f in content["conditions"].items()
    ]


def _drawn(content: Mapping[str, Any], metric: str) -> str:
    text = f"{_PANELS[metric]} in each condition with its interval"
    return draw(metric, text, lambda: _forest(content, metric))


def _forest(content: Mapping[str, Any], metric: str) -> Figure:
    """One metric of each condition with its interval, and chance as a dashed line."""
    names = list(content["conditions"])
    drawn = new_figure(5.2, 0.9 + 0.32 * len(names))
    axes = drawn.add_subplot()
    for at, name in enumerate(names):
        one = content["conditions"][name][metric]
        if one["estimate"] is None:
            continue
        is_sign = name in (*verdict.WITHOUT_LUNGS, *verdict.WITH_OUTLINE)
        color = COLORS[7] if name in file_facts.TITLES else COLORS[1 if is_sign else 0]
        if one["low"] is not None:
            axes.plot([one["low"], one["high"]], [at, at], color=color, lw=1.8)
        axes.plot([one["estimate"]], [at], "o", ms=6, color=color)
    axes.axvline(one["chance"], color="#888888", lw=0.8, ls="--")
    axes.set_title(_PANELS[metric])
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_yticks(range(len(names)), [ALL_TITLES[name] for name in names])
    axes.grid(visible=False, axis="y")
    axes.set_xlim(right=1.01)
    axes.set_xlabel("dashed: chance")
    return drawn
