"""The sections of stats.html that show groups of images side by side."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cxr_tfrecords.pages.html import Thumbnail, figure, heading, paragraph, row, table
from cxr_tfrecords.statistics.sources import GROUP_REASONS


def leaks(given: Mapping[str, Any], thumbnails: Mapping[str, Thumbnail]) -> Iterable[str]:
    """Images that left the given splits; nothing where there are none."""
    if not given["images"]:
        return
    yield heading("Images that were in two given splits")
    yield paragraph(
        f"{given['images']:,} images of {given['groups']:,} groups left the training split (or "
        "validation), because a copy of them, or an image of the same patient, is in the test (or "
        "validation) split, which stays as it was given (--given_leaks=drop_from_train). "
        "manifest.json names them. No training or evaluation reads them."
    )
    if given["groups"] > len(given["shown"]):
        yield paragraph(f"The first {len(given['shown'])} groups:")
    yield '<div class="groups">'
    yield from _groups(given["shown"], thumbnails)
    yield "</div>"


def duplicates(copies: Mapping[str, Any], thumbnails: Mapping[str, Thumbnail]) -> Iterable[str]:
    yield heading("Copies and groups")
    reasons, shown = copies["tied_by"], copies["shown"]
    yield paragraph(f"The build looked for: {copies['level']}.")
    yield table(
        ["", "number"],
        [
            ["groups of more than one image", f"{copies['num_groups']:,}"],
            ["images of these groups, the first of each not counted", f"{copies['images']:,}"],
            ["images with identical pixels", f"{reasons['pixels']:,}"],
            ["near-duplicates", f"{reasons['near']:,}"],
            ["images grouped by patient or given column", f"{reasons['group']:,}"],
            ["images whose copies lie in several classes", f"{copies['num_label_conflicts']:,}"],
        ],
    )
    if copies["num_groups"] > len(shown):
        yield paragraph(f"The first {len(shown)} groups, those with label conflicts before others:")
    if shown:
        yield '<div class="groups">'
        yield from _groups(shown, thumbnails)
        yield "</div>"


def _groups(
    shown: Sequence[Mapping[str, Any]], thumbnails: Mapping[str, Thumbnail]
) -> Iterable[str]:
    for group in shown:
        conflict = group["label_conflict"]
        title = "Label conflict: " if conflict else ""
        title += f"{group['images']:,} images"
        if group["images"] > len(group["shown"]):
            title += f", {len(group['shown'])} of them shown"
        yield f'<div class="group{" conflict" if conflict else ""}"><h3>{title}</h3>'
        yield row(_member(one, thumbnails.get(one["filename"])) for one in group["shown"])
        yield "</div>"


def _member(one: Mapping[str, str], thumbnail: Thumbnail | None) -> str:
    state = one["split"] or f"not written: {one['reason']}"
    reasons = ", ".join(GROUP_REASONS[reason] for reason in one["tied_by"].split("+"))
    return figure(thumbnail, [one["filename"], one["class"], state, reasons])
