"""Writes comparison.json, .md, .html and comparison_classes.csv, and prints the verdict."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from cxr_tfrecords import files
from cxr_tfrecords.pages.markdown import all_escaped
from trainer.comparison.class_tables import FILE_NAME, write_classes
from trainer.comparison.confusion_matrices import Matrices
from trainer.comparison.markdown_text import markdown
from trainer.comparison.methods import Entry
from trainer.comparison.page.page import write_page
from trainer.comparison.recipes import text as recipe_text
from trainer.comparison.study_progress import announced
from trainer.comparison.subgroups import text
from trainer.comparison.verdict_text import headline, verdict_lines, warnings


def write_comparison(
    study_dir: str, content: Mapping[str, Any], entries: Sequence[Entry], paper: Matrices | None
) -> None:
    """Writes the four files into a folder, which is made if it is missing.

    Args:
      content: what `compare_methods.compare` gives for these entries.
      paper: a paper's tables to show beside, as `paper.read_paper` reads them.
    """
    os.makedirs(study_dir, exist_ok=True)
    plain = json.loads(json.dumps(content))  # turns tuples into lists, as JSON does
    files.write_json(os.path.join(study_dir, "comparison.json"), plain)
    write_classes(os.path.join(study_dir, FILE_NAME), plain)
    escaped = all_escaped(content)
    path = os.path.join(study_dir, "comparison.md")
    page = markdown(content) + text.markdown(escaped) + recipe_text.markdown(escaped)
    files.write_text(path, page)
    print("\n" + headline(content))
    for line in verdict_lines(content):
        print(f"  {line}")
    for line in warnings(content):
        print(f"note: {line}")
    print()
    with announced("drawing the page"):
        html = write_page(study_dir, content, entries, paper=paper)
    print(f"{html} shows everything, {path} its tables")
