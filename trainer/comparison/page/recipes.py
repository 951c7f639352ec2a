"""The page's section on recipes: in what they differ, and what their authors report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from cxr_tfrecords.pages.html import paragraph, table
from trainer.comparison.recipes import text


def recipes(content: Mapping[str, Any]) -> Iterator[str]:
    """Tables of the differing settings and of the reported figures beside those measured here."""
    yield paragraph("Settings in which the recipes differ; all others are the same.")
    header, rows = text.settings_table(content)
    yield table(header, rows, texts=len(header))
    if rows := text.reported_rows(content):
        yield "<h3>What the authors report</h3>"
        yield table(text.REPORTED_HEADER, rows, texts=2)
        if counts := text.count_rows(content):
            yield table(text.COUNT_HEADER, counts, texts=2)
        if matrices := list(text.matrix_tables(content)):
            yield paragraph(text.MATRIX_NOTE)
            for matrix in matrices:
                yield table(*matrix)
        yield from map(paragraph, text.sources(content))
        yield paragraph(text.REPORTED_NOTE, "quiet")
