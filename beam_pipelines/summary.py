"""The lines that a build prints about its input and its result."""

from __future__ import annotations

from typing import Any

from beam_pipelines.inputs.sources import Sources
from beam_pipelines.job import BuildResult
from cxr_tfrecords import dataset_dir, stats
from cxr_tfrecords.pages import class_lists
from cxr_tfrecords.pages.class_lists import few
from cxr_tfrecords.pages.markdown import markdown_table


def describe_sources(sources: Sources) -> str:
    """One line on the input: classes with their file counts, and what was skipped."""
    counts = sources.listed.label_counts
    classes = few(f"{name} {counts[i]:,}" for i, name in enumerate(sources.class_names))
    line = f"{sources.root}: {len(sources):,} files in {len(counts)} classes ({classes})"
    if sources.ignored:
        shown = ", ".join(sources.ignored[:4]) + (", …" if len(sources.ignored) > 4 else "")
        line += f"\nskipped: {shown}"
    return "\n".join([line, *sources.notes])


def describe_build(result: BuildResult, output_dir: str, seconds: float) -> str:
    """The closing table: split x class counts, then rejected, duplicates, bytes and speed."""
    manifest = result.manifest
    names, counts = manifest["class_names"], manifest["counts"]
    splits = dataset_dir.split_names(manifest)
    numbers = {split: [counts[split][n] for n in names] for split in splits}
    numbers["total"] = [sum(column) for column in zip(*numbers.values(), strict=True)]
    shown = class_lists.shown_classes(numbers["total"])
    rows = [
        ["split", *(names[c] for c in shown), "total"],
        *(
            [split, *(f"{of_class[c]:,}" for c in shown), f"{sum(of_class):,}"]
            for split, of_class in numbers.items()
        ),
    ]
    if len(names) > class_lists.COLUMNS:
        rows = [*map(list, zip(*rows, strict=True))]
    table = markdown_table(rows[0], rows[1:])
    shards, sources = manifest["shards"], manifest["sources"]
    size = sum(shard["num_bytes"] for shard in shards)
    rejected = manifest["rejected"]
    lines = [
        *result.notes,
        table,
        *filter(None, [class_lists.left_out(len(names), dataset_dir.MANIFEST)]),
        f"rejected {sources['rejected']:,} of {sources['found']:,} files",
        *(f"  {one['file']}: {one['reason']}" for one in rejected[:5]),
        *(["  … all of them are in sources.csv"] if len(rejected) > 5 else []),
        *(f"set aside {n:,}: {reason}" for reason, n in sources["set_aside"].items()),
        *_describe_warnings(manifest.get("warnings", {})),
        *_describe_duplicates(manifest["duplicates"]),
        *manifest.get("notes", []),
        *stats.describe(output_dir),
        f"{size / 1e6:,.1f} MB in {len(shards)} shards, in {output_dir}",
    ]
    if result.inspected or result.written_shards:
        rate = f", {result.inspected / seconds:,.0f} images/s" if result.inspected else ""
        lines.append(f"wrote {result.written_shards} shards in {seconds:.1f} s{rate}")
    else:
        lines.append("up to date: nothing was written")
    return "\n".join(lines)


def _describe_warnings(warnings: dict[str, Any]) -> list[str]:
    return [
        f"warning: {text}: {one['files']:,} files ({', '.join(one['first'][:5])}"
        f"{', …' if one['files'] > 5 else ''}); column warning of sources.csv has all"
        for text, one in warnings.items()
    ]


def _describe_duplicates(duplicates: dict[str, Any]) -> list[str]:
    if duplicates["level"].startswith("none"):
        return ["warning: copies were not looked for (--dedup=off): splits may leak"]
    reasons = duplicates["tied_by"]
    lines = [
        f"groups of more than one image {duplicates['num_groups']:,}, each in one split (images "
        f"with identical pixels {reasons['pixels']:,}, near-duplicates {reasons['near']:,}, "
        f"grouped by patient or column {reasons['group']:,})"
    ]
    if duplicates["num_label_conflicts"]:
        lines.append(
            f"warning: copies of {duplicates['num_label_conflicts']:,} images lie in more than one "
            "class (--label_conflicts; duplicates.label_conflicts in manifest.json)"
        )
    return lines
