"""Markdown tables: one for terminals, one for files."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table for a terminal: padded; the first column to the left, the others to the right."""
    lines = [list(header), *map(list, rows)]
    widths = [max(3, *map(len, column)) for column in zip(*lines, strict=True)]
    padded = [
        [
            cell.rjust(w) if i else cell.ljust(w)
            for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ]
        for row in lines
    ]
    rule = ["-" * w if i == 0 else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (padded[0], rule, *padded[1:]))


def plain_table(header: Sequence[str], rows: Sequence[Sequence[str]], *, texts: int = 1) -> str:
    """The same table for a file, without padding; the first `texts` columns to the left."""
    lines = [header, ["---"] * texts + ["---:"] * (len(header) - texts), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def escaped_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """`plain_table` of cells that hold names of classes, files or the like."""
    return plain_table([*map(escaped, header)], [[*map(escaped, row)] for row in rows])


def escaped(text: object) -> str:
    """Text that any Markdown renderer shows as it is, also in a table: a class may be called `a|b`
    or `<b>`. Entities are used because not every renderer knows a backslash before these."""
    line = "".join(c if c.isprintable() else " " for c in str(text))
    # An underscore inside a word, and the brackets of an interval, have no meaning.
    marks = r"[&<>|\\`*~$]|\[(?![+\-−]?\d)|\](?=[(\[:])|(?<!\w)_|_(?!\w)"
    return re.sub(marks, lambda mark: f"&#{ord(mark[0])};", line)


def all_escaped(content: Any) -> Any:
    """A copy of JSON values in which every text is escaped, keys of mappings too, so that names
    which are keys are still found. Keys of our own have nothing to escape."""
    if isinstance(content, str):
        return _escaped_once(content)
    if isinstance(content, Mapping):
        return {all_escaped(key): all_escaped(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [all_escaped(value) for value in content]
    return content


_escaped_once = functools.lru_cache(1 << 14)(escaped)  # the same few keys come very often


def code(text: object) -> str:
    """Text as code within a line, whatever characters it holds."""
    line = "".join(c if c.isprintable() else " " for c in str(text))
    fence = _fence(line, 1)
    space = " " if "`" in line else ""
    return f"{fence}{space}{line}{space}{fence}"


def code_block(text: str, language: str = "") -> str:
    """Lines of code, whatever characters they hold."""
    fence = _fence(text, 3)
    return f"{fence}{language}\n{text}\n{fence}"


def _fence(text: str, shortest: int) -> str:
    """More backticks than stand in a row anywhere in the text."""
    longest = max(map(len, re.findall("`+", text)), default=0)
    return "`" * max(shortest, longest + 1)
