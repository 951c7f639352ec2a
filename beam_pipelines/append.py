"""--append: new images into a finished data set; no old image changes its split or its bytes.

The plan takes the old images from sources.csv, with the splits that they have: a new image
that copies one of them, or shows the same patient, follows it. Nothing in the directory changes
before the new shards are written (see `commit`).
"""

from __future__ import annotations

import dataclasses
import hashlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from apache_beam.options.pipeline_options import PipelineOptions

from beam_pipelines.dataset import commit
from beam_pipelines.dataset.existing_rows import CombinedRows, ExistingRows, read_existing_rows
from beam_pipelines.dataset.left_out import write_left_out
from beam_pipelines.dataset.manifest import make_manifest
from beam_pipelines.dataset.source_list import write_sources
from beam_pipelines.inputs.group_salt import check_protection, salt_id
from beam_pipelines.inputs.sources import FileList, SourceFile, Sources, in_blocks
from beam_pipelines.job import BuildResult
from beam_pipelines.planning.grouping import has_ids
from beam_pipelines.planning.plan import BuildPlan, plan_build
from beam_pipelines.running import local_cores, workdir
from beam_pipelines.running.workdir import Scratch
from beam_pipelines.settings.config import BuildConfig
from beam_pipelines.shards import passes
from beam_pipelines.shards.inspection import Work
from cxr_tfrecords import dataset_dir, files
from cxr_tfrecords.concurrency import locks
from cxr_tfrecords.decoding import rules
from cxr_tfrecords.errors import UserError

_HASHING_THREADS = 8  # mostly waiting for the disk or the store
_BLOCK = 4096


def append(
    sources: Sources,
    output_dir: str,
    config: BuildConfig,
    options: PipelineOptions,
    *,
    max_bad_fraction: float,
    threads: int = 0,
    salt: str | None = "",
    page: bool = True,
) -> BuildResult:
    """Adds the files that a finished data set does not hold yet.

    Files that it holds already, by name and bytes, are skipped: `sources` may list old and new
    ones together.

    Args:
      sources: labels are those of the data set, see `sources.find_sources`.
      config: that of the data set.
      page: whether to make the statistics page; without, an earlier one is removed.

    Raises:
      UserError: there is no finished data set, it was built with other settings, a file of
        the data set has other bytes now, or what `job.build` raises.
    """
    config = dataclasses.replace(config, salt_id="" if salt is None else salt_id(salt))
    scratch = Scratch(files.join(output_dir, workdir.FOLDER))
    named = f"--output_dir={output_dir}"
    with locks.held(output_dir, named), files.explained_writes(f"to {named}"):
        commit.finish_interrupted(output_dir, scratch)
        before = dataset_dir.read_manifest(output_dir)
        dataset_dir.list_shards(output_dir, before)  # refuses a directory that lacks shards
        _refuse_other_settings(output_dir, before, config)
        existing = read_existing_rows(output_dir, before)
        work = Work(sources.root, sources.class_names, config, salt or "")
        new, changed = _new_files(sources, existing, work)
        note = f"appending {len(new):,} of {len(sources):,} files, the others are in it already"
        if not len(new):
            scratch.remove()  # of an append that was killed after it had written its manifest
            return BuildResult(before, 0, 0, (note,))
        existing = existing.without(changed)
        scratch.make()
        first, second, threads = local_cores.spread(options, threads, new.listed)
        inspected, todo = passes.inspect_sources(new, scratch, work, first, threads)
        columns = CombinedRows(existing, inspected)
        notes = (note, *check_protection(has_ids(columns), salt))
        earlier_plan = existing.plan(before)
        plan = plan_build(sources.class_names, columns, config, max_bad_fraction, earlier_plan)
        entries, written = passes.write_shards(scratch.appended, scratch, inspected, plan, second)
        renamed = _new_names(before, plan)
        old = [{**e, "file": renamed.get(e["file"], e["file"])} for e in before["shards"]]
        manifest = make_manifest(
            plan, columns, inspected, config, new, _in_order(old + entries, plan), before
        )
        path = commit.staged_sources(scratch)
        write_sources(path, plan, inspected, existing, renamed, sort=config.anonymize_names)
        write_left_out(output_dir, scratch.root, manifest, inspected)
        commit.commit(output_dir, scratch, manifest, renamed, page=page)
        return BuildResult(manifest, todo, written, notes)


def _refuse_other_settings(output_dir: str, before: dict[str, Any], config: BuildConfig) -> None:
    differences = config.differences(before["config"])
    if differences:
        lines = "".join(f"\n  {line}" for line in differences)
        raise UserError(
            f"--append: {output_dir} was built with other settings:{lines}\n"
            "leave these flags out, or build a new --output_dir from all data"
        )
    changes = rules.changes_since(before.get("pixel_rules", 1))
    if changes:
        lines = "".join(f"\n  {line}" for line in changes)
        raise UserError(
            f"--append: {output_dir} was built with other rules for pixels, by which its images "
            f"and the new ones would differ:{lines}\nbuild a new --output_dir from all data"
        )
    if config.balance_splits:
        raise UserError(
            "--append cannot keep splits balanced that were cut to their smallest class "
            "(--balance_splits): build a new --output_dir from all data"
        )


def _new_files(sources: Sources, existing: ExistingRows, work: Work) -> tuple[Sources, set[str]]:
    """The files that are not in the data set yet, and the stored names of files that it rejected
    and that have changed since."""
    digests = dict(zip(existing.texts("filename"), existing.texts("sha256"), strict=True))
    written = dict(zip(existing.texts("filename"), existing.texts("shard"), strict=True))

    def is_new(file: SourceFile) -> bool:
        name = work.stored_name(file.filename)
        path = files.join(sources.root, file.filename)
        return name not in digests or _sha256(path) != digests[name]

    fresh: list[SourceFile] = []
    with ThreadPoolExecutor(_HASHING_THREADS) as pool:
        for block in in_blocks(sources.listed, _BLOCK):
            answers = pool.map(is_new, block)
            fresh += [file for file, new in zip(block, answers, strict=True) if new]
    names = {work.stored_name(file.filename): file.filename for file in fresh}
    changed = names.keys() & digests.keys()
    for name in sorted(changed):
        if written[name]:
            raise UserError(
                f"--append: {names[name]} is in the data set already, with other bytes: give the "
                "new file another name, or build a new --output_dir from all data"
            )
    return dataclasses.replace(sources, listed=FileList(fresh)), changed


def _sha256(path: str) -> str:
    """Hex digest of a file's bytes; '' if it cannot be read, as sources.csv has it."""
    try:
        return hashlib.sha256(files.read_regular(path)).hexdigest()
    except OSError:
        return ""


def _new_names(before: dict[str, Any], plan: BuildPlan) -> dict[str, str]:
    """Old name -> new name of the shards whose split and class get more of them."""
    added: dict[tuple[str, str], int] = {}
    for shard in plan.shards:
        key = shard.split, shard.class_name
        added[key] = added.get(key, 0) + 1
    renamed = {}
    for entry in before["shards"]:
        stem, _, place = entry["file"].rpartition("-")
        total = int(place) + added.get((entry["split"], entry["class"]), 0)
        name = f"{stem}-{total:05d}"
        if name != entry["file"]:
            renamed[entry["file"]] = name
    return renamed


def _in_order(entries: list[dict[str, Any]], plan: BuildPlan) -> list[dict[str, Any]]:
    def key(entry: dict[str, Any]) -> tuple[int, int, str]:
        label = plan.class_names.index(entry["class"])
        return plan.split_names.index(entry["split"]), label, entry["file"]

    return sorted(entries, key=key)
