"""comparison.html: one page on a comparison, without scripts or outside resources.

    content = compare_methods.compare(entries, reference="none")
    write_page(study_dir, content, entries)

Numbers come from `content` (comparison.json); curves and training come from the runs' files.
Only the gallery needs images, models and TensorFlow; it says what is missing.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from cxr_tfrecords import files
from cxr_tfrecords.pages.html import document, escaped, heading, paragraph
from trainer.comparison.confusion_matrices import Matrices
from trainer.comparison.methods import Entry, pool
from trainer.comparison.page.benefit import benefit
from trainer.comparison.page.gallery import mistakes
from trainer.comparison.page.limits import checklists, limits
from trainer.comparison.page.paper import paper_tables
from trainer.comparison.page.probabilities import curves, probabilities, thresholds
from trainer.comparison.page.recipes import recipes
from trainer.comparison.page.results import (
    confusion,
    forest,
    recall,
    results,
    sampling,
    training,
    verdict,
)
from trainer.comparison.page.subgroups import subgroups
from trainer.comparison.text import design_line, title

FILE_NAME = "comparison.html"
_CSS = """
:root { color-scheme: light dark; }
nav { margin: 14px 0; font-size: .875rem; display: flex; flex-wrap: wrap; gap: 4px 14px; }
nav a { color: inherit; }
.verdicts { display: grid; gap: 8px; margin: 12px 0; }
.verdicts .box { margin: 0; padding: 8px 14px; }
.verdicts .box p { font-weight: 400; margin: 0; max-width: none; }
.card { background: #fff; border-radius: 6px; margin: 10px 0; }
.picture { display: block; width: 100%; height: auto; }
.picture * { stroke-linejoin: round; stroke-linecap: butt; }
small { font-size: .8rem; opacity: .85; }
th { white-space: normal; vertical-align: bottom; }
thead th:not(.text) { min-width: 5.5em; overflow-wrap: break-word; }
th.text:first-child, td.text:first-child { position: sticky; left: 0; background: #fff; }
td.text:last-child { overflow-wrap: anywhere; }
details { margin: 10px 0; }
summary { cursor: pointer; font-weight: 600; }
.blank { color: #8a5a00; font-style: italic; }
li { margin: 6px 0; max-width: 78ch; }
.box p { overflow-wrap: anywhere; }
.row { margin: 10px 0; }
figure.several { width: 276px; }
figure.several > div { display: flex; gap: 4px; }
figure.several img { width: 136px; height: 136px; }
@media (prefers-color-scheme: dark) {
  body { background: #15181c; color: #e4e6e8; }
  h2 { border-color: #3a3f45; }
  th.text:first-child, td.text:first-child { background: #15181c; }
  .quiet { color: #a3a9b0; }
  th, td { border-color: #2b3036; }
  th { border-color: #59616a; }
  .red { background: #3a1d1d; }
  .amber { background: #3a2c14; }
  .green { background: #17301d; }
  .gray { background: #23272c; }
  .blank { color: #e0b060; }
  figure img, figure .none { background: #2b3036; }
  figure .none { color: #a3a9b0; }
}
@media (max-width: 600px) {
  body { padding: 16px 12px 40px; font-size: 15px; }
  h1 { font-size: 1.3rem; }
  th, td { padding-right: 10px; }
}
@media print {
  :root { color-scheme: light; }
  body { max-width: none; padding: 0; font-size: 10pt; background: #fff; color: #222; }
  nav { display: none; }
  h2, h3 { break-after: avoid; }
  .card, .box, figure, tr { break-inside: avoid; }
  .wide { overflow: visible; }
  th.text:first-child, td.text:first-child { position: static; background: none; }
  table { font-size: 8pt; }
  th, td { padding-right: 6px; white-space: normal; border-color: #ddd; }
  .box { print-color-adjust: exact; -webkit-print-color-adjust: exact; color: #222; }
  .red { background: #fdecea; } .green { background: #e9f5ec; } .gray { background: #f2f2f2; }
  .quiet, small { color: #444; }
  details::details-content { content-visibility: visible; block-size: auto; }
}
"""


def write_page(
    study_dir: str,
    content: Mapping[str, Any],
    entries: Sequence[Entry],
    *,
    paper: Matrices | None = None,
    gallery: bool = True,
) -> str:
    """Writes comparison.html and returns its path.

    Args:
      content: what `compare_methods.compare` gives for these entries.
      paper: a paper's tables to show beside, as `paper.read_paper` reads them.
      gallery: False leaves the gallery out, and with it all use of images and models.

    Raises:
      UserError: a run lacks its predictions.
    """
    path = os.path.join(study_dir, FILE_NAME)
    files.write_text(path, render(content, entries, paper=paper, gallery=gallery))
    return path


def render(
    content: Mapping[str, Any],
    entries: Sequence[Entry],
    *,
    paper: Matrices | None = None,
    gallery: bool = True,
) -> str:
    """The whole page; see `write_page`."""
    sections = list(_sections(content, entries, paper, gallery))
    links = "".join(f'<a href="#{key}">{escaped(name)}</a>' for key, name, _ in sections)
    body = [paragraph(design_line(content), "quiet"), f"<nav>{links}</nav>"]
    for key, name, lines in sections:
        body += [f'<section id="{key}">', heading(name), *lines, "</section>"]
    return document(title(content), "\n".join(body), _CSS)


def _sections(
    content: Mapping[str, Any], entries: Sequence[Entry], paper: Matrices | None, gallery: bool
) -> Iterator[tuple[str, str, Iterable[str]]]:
    """(anchor, heading, HTML) in the order of the page."""
    predictions = {entry.name: pool(entry.by_seed[0]) for entry in entries}
    yield "differences", "Differences at a glance", forest(content)
    yield "verdict", "Verdict", verdict(content)
    yield "results", "Results", results(content)
    yield "confusion", "Confusion matrices", confusion(content)
    yield "recall", "Recall by class", recall(content)
    if "subgroups" in content:
        yield "subgroups", "Subgroups", subgroups(content)
    yield "training", "Training", training(content, entries)
    yield (
        "sampling",
        "Classes before and after sampling",
        sampling(content, entries),
    )
    yield "probabilities", "Probabilities", probabilities(content)
    yield (
        "curves",
        "ROC and precision-recall curves",
        curves(content, predictions),
    )
    yield "thresholds", "Operating points", thresholds(content)
    yield "benefit", "Net benefit", benefit(content)
    if gallery:
        yield "mistakes", "Most confident mistakes", mistakes(content, entries)
    if "recipes" in content:
        yield "recipes", "The recipes", recipes(content)
    if paper is not None:
        yield "paper", "A paper's tables beside these", paper_tables(content, paper)
    yield "limits", "Limits", limits(content)
    yield "checklists", "Checklists", checklists(content, entries)
