"""Texts that may hold names of files, as a terminal shows them."""

from __future__ import annotations

import re

# All control characters but line feed and tab, marks that turn the direction of what follows, and
# bytes of names that are not UTF-8.
_OBEYED = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """The text with escapes such as \\x1b for characters that a terminal would obey."""
    return _OBEYED.sub(lambda one: one[0].encode("unicode_escape").decode(), text)
