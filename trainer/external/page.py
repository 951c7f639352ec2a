"""evaluation.html and evaluation.md: one page on how finished runs do on another data set."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cxr_tfrecords.pages.figures import draw
from cxr_tfrecords.pages.html import RESULTS, box, document, heading, paragraph
from cxr_tfrecords.pages.markdown import escaped
from cxr_tfrecords.pages.parts import to_html, to_markdown
from trainer.external import other_names, text
from trainer.external.figures import Answers
from trainer.external.pictures import draw_reliability
from trainer.runs import remote_run

_HEADLINE = (
    "The class is that of the highest raw probability. Intervals are of 95%, over groups of images "
    "(copies, patients); the two sets of images are independent. Differences are elsewhere minus "
    "internal."
)
_SEEDS = " Figures are means over seeds, with intervals for other seeds and other images."
_PROBABILITIES = (
    "Raw: at the class shares of training, after any balancing. Prior-corrected: at those of the "
    "training split (Saerens et al. 2002). Calibrated: also at a temperature that was fitted on "
    "validation (Guo et al. 2017). With a bias for each class: at a temperature and biases that "
    "were fitted on validation (Alexandari et al. 2020); class shares are estimated from these. "
    "The last two rows are at the class shares there, estimated without labels or known from them. "
    "Lower is better for log loss, Brier score (0 to 2) and ECE."
)
_LINES = (
    "Of the calibrated probabilities, each class against all others. Intercept: 0 is right; below "
    "0 the class is predicted too often. Slope: 1 is right; below 1 the probabilities are too "
    "extreme (Van Calster et al. 2019)."
)
_RELIABILITY = (
    "On the dashed line, predicted probabilities and observed shares agree. Each bin holds about "
    "the same number of images, with Wilson's 95% interval."
)
_LIMITS = (
    "One data set is one place: another hospital may differ in another way. Copies are compared by "
    "the pixels; whether a patient is in both data sets cannot be seen. Nothing was chosen or "
    "fitted on these images except what is said to be. This is not a medical device."
)


def render(content: Mapping[str, Any], answers: Sequence[Answers]) -> str:
    """The page as HTML, without scripts or outside resources."""
    views = text.views(content)
    body = [
        box("red" if text.is_lower(figures) else "gray", text.verdict(content, title, figures))
        for title, figures in views
    ]
    body += [box("gray", line) for _, one in views for line in other_names.sentences(one)]
    body += [box("amber", note) for note in text.notes(content)]
    by_path = {remote_run.address_of(one.run.path): one for one in answers}
    numbers = itertools.count()  # ids of pictures differ

    def draw_first(path: str) -> str:
        return draw(
            f"reliability-{next(numbers)}",
            "Reliability of the calibrated probabilities, internally and elsewhere",
            functools.partial(draw_reliability, by_path[path]),
        )

    for title, figures in views:
        body += to_html(_parts(content, title, figures), draw_first)
    body += [heading("Limits"), paragraph(_LIMITS)]
    return document(_title(content), "\n".join(body), RESULTS)


def render_markdown(content: Mapping[str, Any]) -> str:
    """The same without pictures."""
    views = text.views(content)
    lines = [f"# {escaped(_title(content))}"]
    lines += [f"**{escaped(text.verdict(content, title, figures))}**" for title, figures in views]
    lines += [escaped(line) for _, one in views for line in other_names.sentences(one)]
    lines += [f"- {escaped(note)}" for note in text.notes(content)]
    for title, figures in views:
        lines += to_markdown(_parts(content, title, figures))
    return "\n\n".join([*lines, "## Limits", _LIMITS]) + "\n"


def _title(content: Mapping[str, Any]) -> str:
    names = [text.run_name(one) for one in content["runs"]]
    return f"Does it hold elsewhere? {', '.join(names)} on {text.set_name(content)}"


def _parts(
    content: Mapping[str, Any], title: str, figures: Mapping[str, Any]
) -> Iterator[tuple[Any, ...]]:
    """Of a run or a mean, see `cxr_tfrecords.pages.parts`."""
    of = f", {title}" if len(content["runs"]) > 1 else ""
    yield "heading", f"Internal test and elsewhere{of}"
    yield "text", _HEADLINE + (_SEEDS if len(figures["runs"]) > 1 else "")
    yield "table", text.metric_header(), text.metric_rows(figures)
    if len(figures["runs"]) > 1:
        yield "text", f"By seed, {text.TITLES[text.PRIMARY]}:"
        yield "table", text.metric_header("run"), text.by_run_rows(content)
    yield "heading", f"By class{of}"
    yield "table", text.class_header(), text.class_rows(content, figures)
    if note := text.rare_note(figures):
        yield "text", note
    yield "heading", f"Which class is taken for which, elsewhere{of}"
    names = content["class_names"]
    yield "table", ["true class", "images", *names], text.confusion_rows(content, figures)
    if figures["other_names"]:
        yield "heading", f"Classes there of another name{of}"
        yield "text", other_names.NOTE
        yield "table", *other_names.table(content, figures)
    yield "heading", f"Class shares{of}"
    yield "table", ["class shares", *names], text.share_rows(figures)
    useful, note = text.shares_note(figures)
    yield "text" if useful else "warning", note
    yield "text", text.correction_note(figures)
    yield "heading", f"Probabilities{of}"
    yield "text", _PROBABILITIES
    yield "table", text.probability_header(), text.probability_rows(figures)
    yield "text", _LINES
    yield "table", text.line_header(), text.line_rows(content, figures)
    yield "picture", figures["runs"][0]
    yield "text", _RELIABILITY
    for column, values in figures.get("subgroups", {"columns": {}})["columns"].items():
        yield "heading", f"Subgroups there, by {column}{of}"
        yield "table", text.subgroup_header(content), text.subgroup_rows(content, values)
