"""What an export says to the user."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from cxr_tfrecords.pages.markdown import markdown_table
from trainer.exporting import contract

_MIB = 2**20
_SHARES = {"trained_at": "trained at", "natural": "of the data", "target": "of the deployment"}


def describe_probabilities(content: dict[str, Any]) -> Iterator[str]:
    """Class shares, temperature and scores on the test split.

    Args:
      content: of `contract.describe_run`.
    """
    rows = [
        [title, *(f"{share:.1%}" for share in content["class_shares"][name].values())]
        for name, title in _SHARES.items()
    ]
    yield markdown_table(["class shares", *content["class_names"]], rows)
    yield f"\ntemperature {content['temperature']:.3f}, fitted on validation\n"
    rows = [
        [name, *("–" if scores[m] is None else f"{scores[m]:.4f}" for m in contract.SCORES)]
        for name, scores in content["test"].items()
    ]
    yield markdown_table(["test split", "Brier score", "ECE", "log loss"], rows)
    if content["test_weighted_to_target"]:
        yield (
            "\nthe test split has other class shares than the deployment: each image was weighted "
            "by the share of its class there / in the test split"
        )


def describe_files(content: dict[str, Any], output_dir: str) -> Iterator[str]:
    """Sizes, differences to exact answers, the cost of 8 bits, and what takes files.

    Args:
      content: of deployment.json.
    """
    checked, rows = content["parity"], []
    for name, file in content["files"].items():
        row = [file["path"], f"{file['bytes'] / _MIB:.1f}"]
        one = checked["formats"].get(name)
        if one is None:
            rows.append([*row, "see below", "", ""])
            continue
        largest = [
            max(value for output, value in one[kind].items() if output != "logits")
            for kind in ("of_file", "of_model", "between")
        ]
        rows.append([*row, *(f"{value:.1e}" for value in largest)])
    yield (
        f"\nlargest difference of a probability, on {checked['images']} images "
        f"({checked['source']}); all get the class that the trained model gives them\n"
    )
    header = ["file", "MiB", "file to exact", "model to exact", "file to model"]
    yield markdown_table(header, rows)
    if content["int8"]:
        yield from _describe_int8(content["int8"])
    saved = content["files"].get("saved_model")
    if saved and saved["no_png_because"]:
        yield f"\nsaved_model takes uint8 pixels, not files: {saved['no_png_because']}"
    elif saved:
        yield f"\nsaved_model takes uint8 pixels; its signature png: {saved['signatures']['png']}"
    yield (
        f"\n{os.path.join(output_dir, contract.FILE)} says how images must be read, what the "
        "outputs mean, and the thresholds: docs/export.md explains each key"
    )


def _describe_int8(cost: dict[str, Any]) -> Iterator[str]:
    rows = [
        [title, f"{cost[key]['model']:.1%}", f"{cost[key]['int8']:.1%}"]
        for key, title in (("accuracy", "accuracy"), ("balanced_accuracy", "balanced accuracy"))
    ]
    yield f"\nwhat 8 bits cost, on {cost['images']} images of {cost['split']}:\n"
    yield markdown_table(["", "trained model", "8 bits"], rows)
    yield (
        f"\n{cost['same_class']:.1%} of the images get the same class; a raw probability differs "
        f"by up to {cost['largest_difference']['probabilities_raw']:.3f}"
    )
