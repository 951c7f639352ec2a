"""The sections of stats.html about the source files: what they are, which to look at, which are not
in the data set."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from cxr_tfrecords.pages.html import heading, paragraph, plot, table


def describe_sources(sources: Mapping[str, Any], plots: Mapping[str, bytes]) -> Iterable[str]:
    yield heading("Source files")
    rows = []
    for name, one in sources.items():
        sizes = "; ".join(f"{h} × {w}: {count:,}" for h, w, count in one["sizes"][:5])
        more = one["num_sizes"] - len(one["sizes"][:5])
        quartiles = " / ".join(f"{one['bytes'][q] / 1000:,.1f}" for q in ("q1", "median", "q3"))
        rows.append(
            [
                name,
                _tally(one["formats"]),
                _tally(one["modes"]),
                sizes + (f"; {more:,} more sizes" if more else ""),
                quartiles,
            ]
        )
    header = ["class", "format", "mode", "height × width, most common", "quartiles of kB"]
    yield table(header, rows, texts=4)
    yield plot(plots["bytes"], "File sizes by class")
    if "sizes" in plots:
        yield plot(plots["sizes"], "Height and width of the sources by class")
        yield paragraph("The larger a mark, the larger the share of its class.", "quiet")


def list_warnings(warnings: Mapping[str, Any]) -> Iterable[str]:
    """Nothing where no file has a warning."""
    if not warnings:
        return
    yield heading("Files to look at")
    rows = [[text, f"{one['files']:,}"] for text, one in warnings.items()]
    yield table(["warning", "files"], rows)
    for text, one in warnings.items():
        more = one["files"] - len(one["first"])
        names = "; ".join(one["first"]) + (f"; and {more:,} more, in sources.csv" if more else "")
        yield paragraph(f"{text.capitalize()}: {names}.")


def list_not_written(numbers: Mapping[str, Any]) -> Iterable[str]:
    rejected, aside = numbers["rejected"], numbers["sources"]["set_aside"]
    yield heading("Files that were not written")
    if not rejected["files"] and not aside:
        yield paragraph("None.")
    rows = [["rejected", one["reason"], f"{one['files']:,}"] for one in rejected["reasons"]]
    rows += [["set aside", reason, f"{count:,}"] for reason, count in aside.items()]
    if rows:
        yield table(["", "reason", "files"], rows, texts=2)
    if (more := rejected["num_reasons"] - len(rejected["reasons"])) > 0:
        yield paragraph(f"… and {more:,} more reasons.")
    if rejected["first"]:
        listed = [[one["file"], one["reason"]] for one in rejected["first"]]
        yield table(["rejected file", "reason"], listed, texts=2)
    if (more := rejected["files"] - len(rejected["first"])) > 0:
        yield paragraph(f"… and {more:,} more, in sources.csv.")


def _tally(counts: Mapping[str, int]) -> str:
    ordered = sorted(counts.items(), key=lambda one: (-one[1], one[0]))
    return "; ".join(f"{value}: {count:,}" for value, count in ordered)
