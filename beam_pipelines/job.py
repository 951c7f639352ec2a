"""A build from start to end: check the directory, inspect, plan, write, finish.

The two Beam passes exchange nothing but file names; the plan between them is made here, from
columns of numbers, so it is the same whatever runner did the reading.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any

import numpy as np
from apache_beam.options.pipeline_options import PipelineOptions

from beam_pipelines import finish, parts, workdir
from beam_pipelines.config import BuildConfig, salt_id
from beam_pipelines.inspection import InspectChunk, Work, chunk_name
from beam_pipelines.plan import BuildPlan, Shard, plan_build
from beam_pipelines.run import default_threads, run_pass
from beam_pipelines.sources import Sources
from beam_pipelines.workdir import Scratch
from beam_pipelines.write import MEMBER, ShardTask, WriteShard, save_members
from cxr_tfrecords import __version__, dataset_dir, files
from cxr_tfrecords.errors import UserError

# Files that one call inspects: few enough for a lively progress bar, many enough that a large
# set does not become a million parts.
_CHUNK, _LARGE_CHUNK, _LARGE_SET = 64, 1024, 100_000


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
    salt: str = "",
) -> BuildResult:
    """Builds, resumes or mends a dataset directory.

    Args:
      salt: of patient ids, see `tables.tie_digest`.

    Raises:
      UserError: see the messages; nothing of an earlier build is lost, and a shard is either
        whole or absent.
    """
    config = dataclasses.replace(config, salt_id=salt_id(salt))
    threads = threads or default_threads(options)
    scratch = Scratch(files.join(output_dir, workdir.FOLDER))
    with workdir.locked(output_dir), files.explained_writes(f"to --output_dir={output_dir}"):
        files.remove_temporary(output_dir)
        earlier = _earlier_build(output_dir, scratch, sources, config, overwrite, resume)
        if earlier and _is_current(output_dir, sources):
            return BuildResult(earlier, 0, 0)
        _start(scratch, sources, config)
        work = Work(sources.root, sources.class_names, config, salt)
        inspected, todo = _inspect(sources, scratch, work, options, threads)
        if earlier and earlier["sources"]["fingerprint"] != finish.sources_fingerprint(inspected):
            scratch.remove()
            raise UserError(
                f"files in {sources.root} have changed since {output_dir} was built: build into "
                "another --output_dir, or start again with --overwrite"
            )
        plan = plan_build(sources.class_names, inspected, config, max_bad_fraction)
        if overwrite:
            _remove_earlier(output_dir, scratch)
        entries, written = _write(output_dir, scratch, inspected, plan, options, earlier)
        manifest = finish.make_manifest(plan, inspected, config, sources, entries)
        finish.write_finished(output_dir, plan, inspected, manifest)
        scratch.remove()
        return BuildResult(manifest, todo, written)


def _earlier_build(
    output_dir: str,
    scratch: Scratch,
    sources: Sources,
    config: BuildConfig,
    overwrite: bool,
    resume: bool,
) -> dict[str, Any] | None:
    """Checks that the directory may be built into; returns its finished manifest, if any."""
    with files.explained(output_dir, "output_dir"):
        foreign = finish.unexpected_files(output_dir)
    if foreign:
        raise UserError(
            f"--output_dir={output_dir} holds files that are not a build's "
            f"({', '.join(foreign[:3])}): name an empty or new directory"
        )
    if overwrite:
        return None
    earlier, state = None, None
    if files.exists(files.join(output_dir, dataset_dir.MANIFEST)):
        earlier = dataset_dir.read_manifest(output_dir)
        state = {"config": earlier["config"], "listing": earlier["sources"]["listing"]}
    elif files.exists(scratch.state) and files.names(output_dir) - {workdir.FOLDER}:
        # Until the first shard, other settings do no harm: parts are named after them.
        state = files.read_json(scratch.state)
    if state and not resume:
        raise UserError(
            f"--output_dir={output_dir} holds a build: --resume goes on with it, "
            "--overwrite starts again"
        )
    if state:
        _refuse_other_build(output_dir, state, sources, config)
    return earlier


def _start(scratch: Scratch, sources: Sources, config: BuildConfig) -> None:
    """Makes the scratch folder, and notes what is being built for a later --resume."""
    scratch.make()
    files.write_json(scratch.state, {"config": config.to_json(), "listing": sources.listing_digest})


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
    manifest = files.join(output_dir, dataset_dir.MANIFEST)
    return sources.newest_ns <= files.modified_ns(manifest)


def _inspect(
    sources: Sources,
    scratch: Scratch,
    work: Work,
    options: PipelineOptions,
    threads: int,
) -> tuple[parts.Parts, int]:
    """Runs the first pass on the chunks that no earlier run has finished."""
    done = files.names(scratch.parts)
    paths: list[str] = []
    tasks: list[tuple[str, str]] = []
    weights: dict[str, int] = {}
    chunk_size = _CHUNK if len(sources) <= _LARGE_SET else _LARGE_CHUNK
    for rows in sources.chunks(chunk_size):
        name = chunk_name(rows, work.config)
        paths.append(files.join(scratch.parts, name))
        if name + parts.ROWS not in done:
            chunk = files.join(scratch.chunks, name)
            with files.replacing(chunk) as temporary, files.open_file(temporary, "w") as file:
                json.dump(rows, file)
            tasks.append((chunk, paths[-1]))
            weights[name + parts.ROWS] = len(rows)
    todo = sum(weights.values())
    run_pass(
        "Inspect",
        tasks,
        InspectChunk(work, threads),
        options,
        done_folder=scratch.parts,
        weights=weights,
        initial=len(sources) - todo,
    )
    files.write_json(scratch.parts_list, paths)
    return parts.Parts(paths), todo


def _write(
    output_dir: str,
    scratch: Scratch,
    inspected: parts.Parts,
    plan: BuildPlan,
    options: PipelineOptions,
    earlier: dict[str, Any] | None,
) -> tuple[list[dict[str, Any]], int]:
    """Runs the second pass on the shards that are not there yet; returns all their entries."""
    finished = _finished_entries(output_dir, scratch, earlier)
    members = _Members(inspected, plan)
    tasks, weights = [], {}
    for shard in plan.shards:
        fingerprint = members.fingerprint(shard)
        if finished.get(shard.file, {}).get("fingerprint") == fingerprint:
            continue
        task = ShardTask(
            plan_path=files.join(scratch.plans, shard.file),
            done_path=files.join(scratch.written, shard.file),
            shard_path=files.join(output_dir, shard.file),
            entry={
                "file": shard.file,
                "split": shard.split,
                "class": shard.class_name,
                "fingerprint": fingerprint,
            },
        )
        save_members(task.plan_path, members.of(shard))
        tasks.append(task)
        weights[shard.file] = len(shard.rows)
    run_pass(
        "Write",
        tasks,
        WriteShard(scratch.parts_list),
        options,
        done_folder=scratch.written,
        weights=weights,
        initial=sum(len(shard.rows) for shard in plan.shards) - sum(weights.values()),
    )
    finished = _finished_entries(output_dir, scratch, earlier)
    return [finished[shard.file] for shard in plan.shards], len(tasks)


class _Members:
    """Where the records of shards lie in the parts."""

    def __init__(self, inspected: parts.Parts, plan: BuildPlan) -> None:
        self._plan = plan
        self._part = inspected.part_of
        self._offset, self._length, self._check = (
            inspected.numbers(column) for column in ("offset", "length", "check")
        )

    def of(self, shard: Shard) -> np.ndarray:
        """`write.MEMBER` of a shard's images in writing order."""
        rows = shard.rows
        result = np.zeros(len(rows), MEMBER)
        for name, column in (
            ("part", self._part),
            ("offset", self._offset),
            ("length", self._length),
            ("check", self._check),
        ):
            result[name] = column[rows]
        # An image alone in its group has its own pixels' digest as group, and in its record.
        for place in np.flatnonzero(self._plan.ties[rows]):
            result["group"][place] = self._plan.group_id(rows[place])
        return result

    def fingerprint(self, shard: Shard) -> str:
        """Hex digest of all that decides the shard's bytes."""
        rows = shard.rows
        digest = hashlib.sha256(f"{__version__}/{shard.file}/{shard.class_name}".encode())
        digest.update(self._check[rows].tobytes() + self._plan.group_keys[rows].tobytes())
        return digest.hexdigest()


def _finished_entries(
    output_dir: str, scratch: Scratch, earlier: dict[str, Any] | None
) -> dict[str, dict[str, Any]]:
    """File name -> manifest entry of each shard that is whole on disk, by name and size."""
    entries = {entry["file"]: entry for entry in (earlier or {}).get("shards", [])}
    for name in files.names(scratch.written):
        entries[name] = files.read_json(files.join(scratch.written, name))
    sizes = files.sizes(output_dir)
    return {name: entry for name, entry in entries.items() if sizes.get(name) == entry["num_bytes"]}


def _remove_earlier(output_dir: str, scratch: Scratch) -> None:
    """--overwrite, once the new plan has passed every check: the manifest goes first."""
    names = files.names(output_dir) - {workdir.FOLDER}
    for name in sorted(names, key=lambda name: name != dataset_dir.MANIFEST):
        files.remove(files.join(output_dir, name))
    files.remove_tree(scratch.written)
    files.makedirs(scratch.written)
