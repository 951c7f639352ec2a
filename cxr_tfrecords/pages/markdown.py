"""Markdown tables: one for terminals, one for files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence


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
