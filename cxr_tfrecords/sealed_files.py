"""Reads results of other commands, which may have been changed since."""

from __future__ import annotations

from typing import Any

from cxr_tfrecords import files
from cxr_tfrecords.checks import seal
from cxr_tfrecords.errors import UserError


def read_sealed(path: str, remedy: str, writer: str) -> dict[str, Any]:
    """The content of a JSON file that was written by `seal.sealed`.

    Args:
      remedy: end of the message where there is no such file.
      writer: the command that writes it.

    Raises:
      UserError: it is missing, damaged, was changed, or is older than the digests.
    """
    content = files.read_named_json(path, remedy)
    if problem := seal.find_change(content, writer):
        raise UserError(f"{path} {problem}")
    return content
