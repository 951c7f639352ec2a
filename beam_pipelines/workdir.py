"""The build's scratch folder: work lists in, results out, gone when the build is finished.

Work travels by file name, so that the job graph that Beam submits stays small however many
images there are, and a finished piece is one whole file: what a resumed build skips.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

import tensorflow as tf

FOLDER = ".build"


def write_lines(path: str, lines: Iterable[str]) -> None:
    """Writes lines under a temporary name and renames the file once it is whole."""
    temporary = f"{path}.tmp-{os.getpid()}"
    with tf.io.gfile.GFile(temporary, "w") as file:
        for line in lines:
            file.write(line + "\n")
    tf.io.gfile.rename(temporary, path, overwrite=True)


def read_lines(path: str) -> list[str]:
    """Returns a file's lines without their ends."""
    with tf.io.gfile.GFile(path) as file:
        return file.read().splitlines()


def present(folder: str) -> set[str]:
    """Names of the whole files in a folder; empty where there is none."""
    if not tf.io.gfile.exists(folder):
        return set()
    return {name for name in tf.io.gfile.listdir(folder) if ".tmp-" not in name}
