"""The moment at which an append takes effect: decided in one file, then carried out.

Appending renames shards (TFDS wants their total in each name) and replaces the metadata. Both
cannot be one atomic step, so a file in the scratch folder lists first what is to be done; the next
build into the directory, whatever its purpose, finishes a commit that was killed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from beam_pipelines.dataset.manifest import write_metadata
from beam_pipelines.running.workdir import Scratch
from cxr_tfrecords import dataset_dir, files


def staged_sources(scratch: Scratch) -> str:
    """Path of the new sources.csv until the commit."""
    return files.join(scratch.root, dataset_dir.SOURCES)


def commit(
    output_dir: str,
    scratch: Scratch,
    manifest: dict[str, Any],
    renamed: Mapping[str, str],
    *,
    page: bool = True,
) -> None:
    """Puts the shards in `scratch.appended` and a new manifest into the directory.

    Args:
      renamed: old name -> new name of the shards that are there.
      page: see `manifest.write_metadata`.
    """
    decided = {"manifest": manifest, "renamed": dict(renamed), "page": page}
    files.write_json(scratch.commit, decided)
    finish_interrupted(output_dir, scratch)


def finish_interrupted(output_dir: str, scratch: Scratch) -> None:
    """Carries out what `commit` decided; does nothing if there is no decision."""
    if not files.exists(scratch.commit):
        return
    remedy = f"delete {scratch.root} to give up the append that was interrupted"
    decided = files.read_named_json(scratch.commit, remedy)
    present, waiting = files.names(output_dir), files.names(scratch.appended)
    for old, new in decided["renamed"].items():
        if old in present:
            files.rename(files.join(output_dir, old), files.join(output_dir, new))
    for entry in decided["manifest"]["shards"]:
        if entry["file"] in waiting:
            source = files.join(scratch.appended, entry["file"])
            files.rename(source, files.join(output_dir, entry["file"]))
    if files.exists(staged_sources(scratch)):
        files.rename(staged_sources(scratch), files.join(output_dir, dataset_dir.SOURCES))
    write_metadata(output_dir, decided["manifest"], page=decided.get("page", True))
    scratch.remove()
