"""What a build tells its user: what it found, and what it made."""

from __future__ import annotations

import collections

from tabulate import tabulate

from beam_pipelines.job import BuildResult
from beam_pipelines.sources import Sources
from cxr_tfrecords.splits import SPLITS


def describe_sources(sources: Sources) -> str:
    """One line on the input: classes with their file counts, and what was passed over."""
    counts = collections.Counter(file.label for file in sources.files)
    classes = ", ".join(f"{name} {counts[i]:,}" for i, name in enumerate(sources.class_names))
    line = f"{sources.root}: {len(sources.files):,} files in {len(counts)} classes ({classes})"
    if sources.ignored:
        shown = ", ".join(sources.ignored[:4]) + (", …" if len(sources.ignored) > 4 else "")
        line += f"\npassed over: {shown}"
    return line


def describe_build(result: BuildResult, output_dir: str, seconds: float) -> str:
    """The closing table: split x class counts, then rejected, duplicates, bytes and speed."""
    manifest = result.manifest
    names, counts = manifest["class_names"], manifest["counts"]
    rows = [
        [split, *(counts[split][n] for n in names), sum(counts[split].values())] for split in SPLITS
    ]
    rows.append(["total", *(sum(row[i] for row in rows) for i in range(1, len(names) + 2))])
    table = tabulate(rows, ["split", *names, "total"], intfmt=",")
    shards, sources = manifest["shards"], manifest["sources"]
    duplicates, rejected = manifest["duplicates"], manifest["rejected"]
    size = sum(shard["num_bytes"] for shard in shards)
    lines = [
        table,
        f"rejected {len(rejected)} of {sources['found']:,} files",
        *(f"  {one['file']}: {one['reason']}" for one in rejected[:5]),
        *([f"  … all {len(rejected)} are in manifest.json"] if len(rejected) > 5 else []),
        f"duplicates {duplicates['images']} in {len(duplicates['groups'])} groups, each kept in "
        "one split",
    ]
    if duplicates["label_conflicts"]:
        lines.append(
            f"warning: {len(duplicates['label_conflicts'])} of these groups lie in more than one "
            "class folder (duplicates.label_conflicts in manifest.json)"
        )
    lines.append(f"{size / 1e6:,.1f} MB in {len(shards)} shards, in {output_dir}")
    if result.inspected or result.written_shards:
        rate = f", {result.inspected / seconds:,.0f} images/s" if result.inspected else ""
        lines.append(f"wrote {result.written_shards} shards in {seconds:.1f} s{rate}")
    else:
        lines.append("up to date: nothing was written")
    return "\n".join(lines)
