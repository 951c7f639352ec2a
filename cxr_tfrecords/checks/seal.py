"""A digest in a JSON file of ours, by which a reader sees that the file was not changed since."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

KEY = "digest"


def digest(content: Mapping[str, Any]) -> str:
    """Hex SHA-256 of all but the key `digest`, whatever the layout of the file."""
    plain = {key: value for key, value in content.items() if key != KEY}
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """The content with its digest, to be written."""
    # As it is read back: keys are texts then, which are sorted otherwise than numbers.
    return {**content, KEY: digest(json.loads(json.dumps(content)))}


def find_change(content: Any, writer: str) -> str:
    """What is wrong with the content of a file that was written by `sealed`; empty if nothing is.

    Args:
      writer: the command that writes it.
    """
    if not isinstance(content, dict) or KEY not in content:
        return f"has another layout than this version writes (no {KEY}): run {writer} again"
    if content[KEY] != digest(content):
        return (
            f"was changed after {writer} had written it (its {KEY} is of other content): run "
            f"{writer} again"
        )
    return ""
