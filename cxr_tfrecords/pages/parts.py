"""A page as a sequence of parts, which becomes HTML and Markdown alike.

A part is ("heading", text), ("text", text), ("warning", text), ("table", header, rows) or
("picture", …), which only HTML shows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from cxr_tfrecords.pages.html import box, heading, paragraph, stacked, table
from cxr_tfrecords.pages.markdown import escaped, escaped_table


def to_html(parts: Iterable[tuple[Any, ...]], draw: Callable[..., str] = str) -> Iterator[str]:
    """The parts as HTML. draw: makes a picture of the values after "picture"."""
    show: dict[str, Callable[..., str]] = {
        "heading": heading,
        "text": paragraph,
        "warning": lambda text: box("amber", text),
        "table": lambda header, rows: table(header, [[*map(stacked, row)] for row in rows]),
        "picture": draw,
    }
    return (show[kind](*values) for kind, *values in parts)


def to_markdown(parts: Iterable[tuple[Any, ...]]) -> Iterator[str]:
    """The parts as paragraphs of Markdown, without pictures."""
    for kind, *values in parts:
        if kind == "table":
            yield escaped_table(*values)
        elif kind != "picture":
            yield "## " * (kind == "heading") + escaped(values[0])
