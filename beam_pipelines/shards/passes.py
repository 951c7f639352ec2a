"""The two Beam passes over a scratch folder: inspect every source, write every shard.

They exchange nothing with each other but file names. Each finished piece of work is one whole
file, which a resumed build does not make again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any

import numpy as np
from apache_beam.options.pipeline_options import PipelineOptions

from beam_pipelines.inputs.sources import Sources, in_blocks
from beam_pipelines.planning.plan import BuildPlan, Shard
from beam_pipelines.running.beam_runner import WorkerLostError, run_pass
from beam_pipelines.running.workdir import Scratch
from beam_pipelines.shards import parts
from beam_pipelines.shards.inspection import InspectChunk, Work, chunk_name
from beam_pipelines.shards.write_shards import MEMBER, ShardTask, WriteShard, save_members
from cxr_tfrecords import __version__, files
from cxr_tfrecords.concurrency import marks
from cxr_tfrecords.pages.class_lists import few

# Files that one call inspects, by the least files of a set: few, so that the progress bar moves
# often, but enough that parts cost little (4 ms each) and a large set does not become a million.
CHUNK = {0: 64, 4_000: 256, 100_000: 1024}


def inspect_sources(
    sources: Sources,
    scratch: Scratch,
    work: Work,
    options: PipelineOptions,
    threads: int,
) -> tuple[parts.Parts, int]:
    """Runs the first pass on the chunks that no earlier run has finished.

    Raises:
      WorkerLostError: a worker process ended; the message names the files that it was decoding.
    """
    done = files.names(scratch.parts)
    marked = marks.interrupted(scratch.marks)
    suspects: list[str] = []
    paths: list[str] = []
    tasks: list[tuple[str, str]] = []
    weights: dict[str, int] = {}
    chunk_size = max(size for least, size in CHUNK.items() if len(sources) >= least)
    for files_of_chunk in in_blocks(sources.listed, chunk_size):
        rows = [vars(file) for file in files_of_chunk]
        name = chunk_name(rows, work.config)
        paths.append(files.join(scratch.parts, name))
        if name + parts.ROWS not in done:
            chunk = files.join(scratch.chunks, name)
            with files.replacing(chunk) as temporary, files.open_file(temporary, "w") as file:
                json.dump(rows, file)
            tasks.append((chunk, paths[-1]))
            weights[name + parts.ROWS] = len(rows)
            suspects += [rows[index]["filename"] for index in sorted(marked.get(name, ()))]
    todo = sum(weights.values())
    if suspects:
        # Also after Ctrl-C, which is how a user ends a decoder that hangs.
        print(
            f"an earlier run ended, or was stopped, while it decoded {few(suspects, 8)}: nothing "
            "need be wrong with them; in case one did end it, each is decoded in a process of its "
            "own now",
            flush=True,
        )
    try:
        run_pass(
            "Inspect",
            tasks,
            InspectChunk(
                dataclasses.replace(work, suspects=frozenset(suspects)), threads, scratch.marks
            ),
            options,
            done_folder=scratch.parts,
            weights=weights,
            initial=len(sources) - todo,
        )
    except WorkerLostError as error:
        raise WorkerLostError(f"{error}{_in_work(scratch)}") from error
    files.write_json(scratch.parts_list, paths)
    return parts.Parts(paths), todo


def _in_work(scratch: Scratch) -> str:
    """` while it decoded …`, from the marks of processes that died; '' if there are none."""
    names = [
        files.read_json(files.join(scratch.chunks, name))[index]["filename"]
        for name, indexes in marks.interrupted(scratch.marks).items()
        for index in sorted(indexes)
    ]
    return f" while it decoded {few(names, 8)}" if names else ""


def write_shards(
    folder: str,
    scratch: Scratch,
    inspected: parts.Parts,
    plan: BuildPlan,
    options: PipelineOptions,
    earlier: dict[str, Any] | None = None,
) -> tuple[list[dict[str, Any]], int]:
    """Runs the second pass on the shards that are not in the folder yet.

    Args:
      earlier: manifest of a finished build there, whose shards count as written.

    Returns:
      The manifest's entries of all shards of the plan, and how many were written in this run.
    """
    finished = _finished_entries(folder, scratch, earlier)
    members = _Members(inspected, plan)
    tasks, weights = [], {}
    for shard in plan.shards:
        fingerprint = members.fingerprint(shard)
        if finished.get(shard.file, {}).get("fingerprint") == fingerprint:
            continue
        task = ShardTask(
            plan_path=files.join(scratch.plans, shard.file),
            done_path=files.join(scratch.written, shard.file),
            shard_path=files.join(folder, shard.file),
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
    finished = _finished_entries(folder, scratch, earlier)
    return [finished[shard.file] for shard in plan.shards], len(tasks)


class _Members:
    """Finds the records of a shard in the part files."""

    def __init__(self, inspected: parts.Parts, plan: BuildPlan) -> None:
        self._plan = plan  # its rows start with the existing images, which are in no part
        self._part = inspected.part_of
        self._offset, self._length, self._check = (
            inspected.numbers(column) for column in ("offset", "length", "check")
        )

    def of(self, shard: Shard) -> np.ndarray:
        """`write_shards.MEMBER` of a shard's images in writing order."""
        rows = shard.rows
        result = np.zeros(len(rows), MEMBER)
        for name, column in (
            ("part", self._part),
            ("offset", self._offset),
            ("length", self._length),
            ("check", self._check),
        ):
            result[name] = column[rows - self._plan.num_existing]
        # The record of an image that is alone in its group names the right group already.
        for position in np.flatnonzero(self._plan.group_reasons[rows]):
            result["group"][position] = self._plan.group_id(rows[position])
        return result

    def fingerprint(self, shard: Shard) -> str:
        """Hex digest of all that decides the shard's bytes."""
        rows = shard.rows
        digest = hashlib.sha256(f"{__version__}/{shard.file}/{shard.class_name}".encode())
        checks = self._check[rows - self._plan.num_existing]
        digest.update(checks.tobytes() + self._plan.group_keys[rows].tobytes())
        return digest.hexdigest()


def _finished_entries(
    folder: str, scratch: Scratch, earlier: dict[str, Any] | None
) -> dict[str, dict[str, Any]]:
    """File name -> manifest entry of each shard that is complete on disk, by name and size."""
    entries = {entry["file"]: entry for entry in (earlier or {}).get("shards", [])}
    for name in files.names(scratch.written):
        entries[name] = files.read_json(files.join(scratch.written, name))
    sizes = files.sizes(folder)
    return {name: entry for name, entry in entries.items() if sizes.get(name) == entry["num_bytes"]}
