"""Metrics, intervals and comparisons from confusion matrices alone, such as published ones.

  python -m trainer.from_confusion FILE.json [--out=DIR]

FILE.json: {"class_names": ["COVID", …], "models": {"A": [[689, …], …], …}}, rows being true
classes; or a paper's tables, which are then checked against its matrices and its text (see
trainer/comparison/published_tables.json). Prints Markdown; --out writes it to
DIR/from_confusion.md and the figures to DIR/from_confusion.json.

If a paper's counts imply that test images were trained on, the page begins with them: how many of
each class, and what they leave of the model's accuracy. Where two models were tested on the same
images, it gives the smallest and the largest p-value of McNemar's test that the matrices allow.
"""

from __future__ import annotations

import dataclasses
import json
import os
from typing import Any

from absl import flags

from cxr_tfrecords.errors import UserError, run_main
from cxr_tfrecords.files import write_text


def main(argv: list[str]) -> None:
    if len(argv) != 2:
        raise UserError("name one file: python -m trainer.from_confusion FILE.json")
    # Imported here, so that --help needs no extra.
    from trainer.comparison import confusion_matrices, published_leak, published_tables
    from trainer.comparison.paired_bounds import paired_bounds

    matrices = confusion_matrices.read_matrices(argv[1])
    page = confusion_matrices.describe(matrices, published_leak.describe_leaks(matrices))
    if published_tables.is_published(matrices):
        page += "\n\n" + published_tables.describe_published(matrices)
    print(page)
    if flags.FLAGS.out:
        names = matrices.class_names
        figures = {
            "models": {
                name: confusion_matrices.summarize(counts, names)
                for name, counts in matrices.models.items()
            },
            "comparisons": [dataclasses.asdict(c) for c in confusion_matrices.compare(matrices)],
            "same_images": [
                dataclasses.asdict(bounds) for bounds in paired_bounds(matrices.models)
            ],
            "leaks": list(map(published_leak.leak_figures, published_leak.find_leaks(matrices))),
        }
        _write(flags.FLAGS.out, page, figures)


def _write(directory: str, page: str, figures: dict[str, Any]) -> None:
    try:
        os.makedirs(directory, exist_ok=True)
        contents = {"md": page, "json": json.dumps(figures, indent=1, allow_nan=False)}
        for ending, content in contents.items():
            write_text(os.path.join(directory, f"from_confusion.{ending}"), content + "\n")
    except OSError as error:
        raise UserError(
            f"--out={directory} cannot be written ({error.strerror}): name another"
        ) from error


if __name__ == "__main__":
    flags.DEFINE_string("out", "", "Directory for from_confusion.md and .json. Empty: write none.")
    run_main(main, arguments=True)
