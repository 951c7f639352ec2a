"""A build from start to end: check the directory, inspect, plan, write, finish.

The two Beam passes exchange nothing but file names; the plan between them is made here, from
columns of numbers, so it is the same whatever runner did the reading.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from apache_beam.options.pipeline_options import PipelineOptions

from beam_pipelines.dataset import commit
from beam_pipelines.dataset.earlier_build import describe_replaced, find_earlier_build
from beam_pipelines.dataset.left_out import write_left_out
from beam_pipelines.dataset.manifest import (
    make_manifest,
    sources_fingerprint,
    write_metadata,
)
from beam_pipelines.dataset.source_list import write_sources
from beam_pipelines.inputs.group_salt import check_protection, salt_id
from beam_pipelines.inputs.sources import Sources
from beam_pipelines.planning.grouping import has_ids
from beam_pipelines.planning.plan import plan_build
from beam_pipelines.running import local_cores, workdir
from beam_pipelines.running.workdir import Scratch
from beam_pipelines.settings.config import BuildConfig
from beam_pipelines.shards import passes
from beam_pipelines.shards.inspection import Work
from cxr_tfrecords import dataset_dir, files, tfds_metadata
from cxr_tfrecords.concurrency import locks
from cxr_tfrecords.console.printable import printable
from cxr_tfrecords.decoding import rules
from cxr_tfrecords.errors import UserError


@dataclasses.dataclass(frozen=True)
class BuildResult:
    """What a build did: the manifest, how many images were read in this run, lines to show."""

    manifest: dict[str, Any]
    inspected: int
    written_shards: int
    notes: tuple[str, ...] = ()


def build(
    sources: Sources,
    output_dir: str,
    config: BuildConfig,
    options: PipelineOptions,
    *,
    overwrite: bool,
    resume: bool,
    max_bad_fraction: float,
    threads: int = 0,
    salt: str | None = "",
    page: bool = True,
) -> BuildResult:
    """Builds, resumes or repairs a dataset directory.

    Args:
      salt: of ids of patients, see `group_salt.find_salt`.
      page: make the statistics page, see `cxr_tfrecords.stats`.

    Raises:
      UserError: see the messages; nothing of an earlier build is lost, and a shard is either
        whole or absent.
    """
    config = dataclasses.replace(config, salt_id="" if salt is None else salt_id(salt))
    first, second, threads = local_cores.spread(options, threads, sources.listed)
    tfds_metadata.slugs(sources.class_names)  # refuses names before hours of work, not after
    scratch = Scratch(files.join(output_dir, workdir.FOLDER))
    named = f"--output_dir={output_dir}"
    with locks.held(output_dir, named), files.explained_writes(f"to {named}"):
        commit.finish_interrupted(output_dir, scratch)
        earlier = find_earlier_build(output_dir, config, overwrite, resume, sources)
        if earlier and _is_current(output_dir, sources):
            scratch.remove()  # of a build that was killed after it had written its manifest
            return BuildResult(earlier, 0, 0)
        replaced = "" if earlier or overwrite else describe_replaced(output_dir, config)
        if replaced:
            print(printable(replaced), flush=True)
        _start(scratch, sources, config)
        work = Work(sources.root, sources.class_names, config, salt or "")
        inspected, todo = passes.inspect_sources(sources, scratch, work, first, threads)
        if earlier and earlier["sources"]["fingerprint"] != sources_fingerprint(inspected):
            scratch.remove()
            raise UserError(
                f"files in {sources.root} have changed since {output_dir} was built: build into "
                "another --output_dir, or start again with --overwrite"
            )
        notes = check_protection(has_ids(inspected), salt)
        plan = plan_build(sources.class_names, inspected, config, max_bad_fraction)
        if overwrite:
            _remove_earlier(output_dir, scratch)
        entries, written = passes.write_shards(
            output_dir, scratch, inspected, plan, second, earlier
        )
        manifest = make_manifest(plan, inspected, inspected, config, sources, entries)
        path = files.join(output_dir, dataset_dir.SOURCES)
        write_sources(path, plan, inspected, sort=config.anonymize_names)
        if page:
            write_left_out(output_dir, output_dir, manifest, inspected)
        write_metadata(output_dir, manifest, page=page)
        scratch.remove()
        return BuildResult(manifest, todo, written, notes)


def _start(scratch: Scratch, sources: Sources, config: BuildConfig) -> None:
    """Makes the scratch folder, and writes down what is built, for a later --resume."""
    scratch.make()
    made = {"config": config.to_json(), "pixel_rules": rules.VERSION}
    files.write_json(scratch.state, {**made, "listing": sources.listed.digest})


def _is_current(output_dir: str, sources: Sources) -> bool:
    """As `make` decides: all shards are whole, and no source is newer than the manifest."""
    try:
        dataset_dir.list_shards(output_dir, dataset_dir.read_manifest(output_dir))
    except UserError:
        return False
    manifest = files.join(output_dir, dataset_dir.MANIFEST)
    return sources.listed.newest_ns <= files.modified_ns(manifest)


def _remove_earlier(output_dir: str, scratch: Scratch) -> None:
    """--overwrite, once the new plan has passed every check: the manifest goes first."""
    names = files.names(output_dir) - {workdir.FOLDER}
    for name in sorted(names, key=lambda name: name != dataset_dir.MANIFEST):
        files.remove(files.join(output_dir, name))
    files.remove_tree(scratch.written)
    files.makedirs(scratch.written)
