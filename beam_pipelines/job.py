"""A build from start to end: check the directory, inspect, plan, write, finish.

The two Beam passes exchange nothing but file names; the plan between them is made here, from
small records, so it is the same whatever runner did the reading.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from typing import Any

import tensorflow as tf
from apache_beam.options.pipeline_options import PipelineOptions

from beam_pipelines import finish, workdir
from beam_pipelines.config import BuildConfig
from beam_pipelines.inspection import InspectChunk, Inspection, read_parts
from beam_pipelines.plan import BuildPlan, ShardPlan, manifest_members, plan_build
from beam_pipelines.run import default_threads, run_pass
from beam_pipelines.sources import Sources
from beam_pipelines.write import ShardTask, WriteShard
from cxr_tfrecords import dataset_dir
from cxr_tfrecords.errors import UserError

_STATE = "build.json"
_CHUNK = 64  # files that one call inspects: small enough for a lively progress bar


@dataclasses.dataclass(frozen=True)
class BuildResult:
    """What a build did: the manifest, and how many images were read in this run."""

    manifest: dict[str, Any]
    inspected: int
    written_shards: int


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
) -> BuildResult:
    """Builds, resumes or mends a dataset directory.

    Raises:
      UserError: see the messages; nothing of an earlier build is lost, and a shard is either
        whole or absent.
    """
    threads = threads or default_threads(options)
    scratch = os.path.join(output_dir, workdir.FOLDER)
    earlier = _earlier_build(output_dir, scratch, sources, config, overwrite, resume)
    if earlier and _is_current(output_dir, sources):
        return BuildResult(earlier, 0, 0)
    _start(output_dir, scratch, sources, config)
    inspections, inspected = _inspect(sources, scratch, config, options, threads)
    plan = plan_build(sources.class_names, inspections, config, max_bad_fraction)
    if earlier and earlier["sources"]["fingerprint"] != finish.sources_fingerprint(
        plan.inspections
    ):
        _remove_scratch(scratch)
        raise UserError(
            f"files in {sources.root} have changed since {output_dir} was built: build into "
            "another --output_dir, or start again with --overwrite"
        )
    if overwrite:
        _remove_earlier(output_dir)
    entries, written = _write(sources, output_dir, scratch, plan, config, options, earlier, threads)
    manifest = finish.make_manifest(plan, config, sources.listing_digest, sources.ignored, entries)
    finish.write_finished(output_dir, plan, manifest)
    _remove_scratch(scratch)
    return BuildResult(manifest, inspected, written)


def _earlier_build(
    output_dir: str,
    scratch: str,
    sources: Sources,
    config: BuildConfig,
    overwrite: bool,
    resume: bool,
) -> dict[str, Any] | None:
    """Checks that the directory may be built into; returns its finished manifest, if any."""
    if not tf.io.gfile.exists(output_dir):
        return None
    foreign = finish.unexpected_files(output_dir)
    if foreign:
        raise UserError(
            f"--output_dir={output_dir} holds files that are not a build's "
            f"({', '.join(foreign[:3])}): name an empty or new directory"
        )
    if overwrite:
        return None
    earlier, state = None, None
    state_path = os.path.join(scratch, _STATE)
    if tf.io.gfile.exists(os.path.join(output_dir, dataset_dir.MANIFEST)):
        earlier = dataset_dir.read_manifest(output_dir)
        state = {"config": earlier["config"], "listing": earlier["sources"]["listing"]}
    elif tf.io.gfile.exists(state_path) and _holds_shards(output_dir):
        # Until the first shard, other settings do no harm: chunks are named after them.
        state = json.loads("\n".join(workdir.read_lines(state_path)))
    if state and not resume:
        raise UserError(
            f"--output_dir={output_dir} holds a build: --resume goes on with it, "
            "--overwrite starts again"
        )
    if state:
        _refuse_other_build(output_dir, state, sources, config)
    return earlier


def _holds_shards(output_dir: str) -> bool:
    return any(not name.startswith(workdir.FOLDER) for name in tf.io.gfile.listdir(output_dir))


def _start(output_dir: str, scratch: str, sources: Sources, config: BuildConfig) -> None:
    """Makes the scratch folder, and notes what is being built for a later --resume."""
    try:
        tf.io.gfile.makedirs(scratch)
        dataset_dir.write_json(
            os.path.join(scratch, _STATE),
            {"config": config.to_json(), "listing": sources.listing_digest},
        )
    except tf.errors.OpError as error:
        raise UserError(
            f"cannot write to --output_dir={output_dir}: {error.message.splitlines()[0]}"
        ) from error


def _refuse_other_build(
    output_dir: str, state: dict[str, Any], sources: Sources, config: BuildConfig
) -> None:
    differences = config.differences(state["config"])
    if state["listing"] != sources.listing_digest:
        differences.append(f"the files in --input_dir={sources.root} are not those it was made of")
    if differences:
        lines = "".join(f"\n  {line}" for line in differences)
        raise UserError(
            f"--output_dir={output_dir} holds another build:{lines}\n"
            "name another --output_dir, or start again with --overwrite"
        )


def _is_current(output_dir: str, sources: Sources) -> bool:
    """As `make` decides: all shards are whole, and no source is newer than the manifest."""
    try:
        dataset_dir.load(output_dir)
    except UserError:
        return False
    manifest = os.path.join(output_dir, dataset_dir.MANIFEST)
    if os.path.exists(manifest):
        built = os.stat(manifest).st_mtime_ns
    else:  # not a local path; TensorFlow knows its time to the second
        built = tf.io.gfile.stat(manifest).mtime_nsec
    return max(file.mtime_ns for file in sources.files) <= built


def _inspect(
    sources: Sources, scratch: str, config: BuildConfig, options: PipelineOptions, threads: int
) -> tuple[list[Inspection], int]:
    """Runs the first pass on the chunks that no earlier run has finished."""
    chunks_folder, parts_folder = (os.path.join(scratch, n) for n in ("chunks", "inspected"))
    tf.io.gfile.makedirs(chunks_folder)
    tf.io.gfile.makedirs(parts_folder)
    done = workdir.present(parts_folder)
    parts: list[str] = []
    tasks: list[tuple[str, str]] = []
    weights: dict[str, int] = {}
    for start in range(0, len(sources.files), _CHUNK):
        files = sources.files[start : start + _CHUNK]
        lines = [json.dumps(dataclasses.asdict(file)) for file in files]
        # The name holds all that decides the result: a file touched since is read again.
        name = hashlib.sha256(json.dumps([lines, config.to_json()]).encode()).hexdigest()
        parts.append(os.path.join(parts_folder, name))
        if name not in done:
            chunk = os.path.join(chunks_folder, name)
            workdir.write_lines(chunk, lines)
            tasks.append((chunk, parts[-1]))
            weights[name] = len(files)
    todo = sum(weights.values())
    run_pass(
        "Inspect",
        tasks,
        InspectChunk(sources.root, config, threads),
        options,
        done_folder=parts_folder,
        weights=weights,
        initial=len(sources.files) - todo,
    )
    return read_parts(parts), todo


def _write(
    sources: Sources,
    output_dir: str,
    scratch: str,
    plan: BuildPlan,
    config: BuildConfig,
    options: PipelineOptions,
    earlier: dict[str, Any] | None,
    threads: int,
) -> tuple[list[dict[str, Any]], int]:
    """Runs the second pass on the shards that are not there yet; returns all their entries."""
    plans_folder, done_folder = (os.path.join(scratch, n) for n in ("plans", "written"))
    tf.io.gfile.makedirs(plans_folder)
    tf.io.gfile.makedirs(done_folder)
    finished = _finished_entries(output_dir, done_folder, earlier)
    tasks, weights = [], {}
    for shard in plan.shards:
        fingerprint = shard.fingerprint(config)
        if finished.get(shard.file, {}).get("fingerprint") == fingerprint:
            continue
        task = _task(shard, fingerprint, output_dir, plans_folder, done_folder)
        workdir.write_lines(task.plan_path, manifest_members(shard))
        tasks.append(task)
        weights[shard.file] = len(shard.members)
    run_pass(
        "Write",
        tasks,
        WriteShard(sources.root, config, threads),
        options,
        done_folder=done_folder,
        weights=weights,
        initial=len(plan.assignments) - sum(weights.values()),
    )
    finished = _finished_entries(output_dir, done_folder, earlier)
    return [finished[shard.file] for shard in plan.shards], len(tasks)


def _task(
    shard: ShardPlan, fingerprint: str, output_dir: str, plans_folder: str, done_folder: str
) -> ShardTask:
    return ShardTask(
        plan_path=os.path.join(plans_folder, shard.file),
        done_path=os.path.join(done_folder, shard.file),
        shard_path=os.path.join(output_dir, shard.file),
        label=shard.label,
        entry={
            "file": shard.file,
            "split": shard.split,
            "class": shard.class_name,
            "fingerprint": fingerprint,
        },
    )


def _finished_entries(
    output_dir: str, done_folder: str, earlier: dict[str, Any] | None
) -> dict[str, dict[str, Any]]:
    """File name -> manifest entry of each shard that is whole on disk, by name and size."""
    entries = {entry["file"]: entry for entry in (earlier or {}).get("shards", [])}
    for name in workdir.present(done_folder):
        entries[name] = json.loads("\n".join(workdir.read_lines(os.path.join(done_folder, name))))
    return {
        name: entry
        for name, entry in entries.items()
        if tf.io.gfile.exists(path := os.path.join(output_dir, name))
        and tf.io.gfile.stat(path).length == entry["num_bytes"]
    }


def _remove_earlier(output_dir: str) -> None:
    """--overwrite, once the new plan has passed every check: the manifest goes first."""
    names = [n for n in tf.io.gfile.listdir(output_dir) if not n.startswith(workdir.FOLDER)]
    for name in sorted(names, key=lambda name: name != dataset_dir.MANIFEST):
        tf.io.gfile.remove(os.path.join(output_dir, name))
    done = os.path.join(output_dir, workdir.FOLDER, "written")
    if tf.io.gfile.exists(done):
        tf.io.gfile.rmtree(done)


def _remove_scratch(scratch: str) -> None:
    if tf.io.gfile.exists(scratch):
        tf.io.gfile.rmtree(scratch)
