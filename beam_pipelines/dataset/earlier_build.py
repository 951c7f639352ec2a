"""Whether an output directory may be built into, and what an earlier build left in it.

Nothing here needs Beam, so that a directory is refused before it is imported.
"""

from __future__ import annotations

from typing import Any

from beam_pipelines.dataset.manifest import unexpected_files
from beam_pipelines.inputs.sources import Sources
from beam_pipelines.running import workdir
from beam_pipelines.running.workdir import Scratch
from beam_pipelines.settings.config import BuildConfig
from cxr_tfrecords import dataset_dir, files
from cxr_tfrecords.decoding import rules
from cxr_tfrecords.errors import UserError


def check_settings(output_dir: str, config: BuildConfig, overwrite: bool, resume: bool) -> None:
    """Refuses a directory as `find_earlier_build` does, as far as it can be told without sources.

    Raises:
      UserError: the directory holds other files, or a build of other settings.
    """
    # An append that was killed while it changed the directory is finished first, by `commit`.
    if not files.exists(Scratch(files.join(output_dir, workdir.FOLDER)).commit):
        find_earlier_build(output_dir, config, overwrite, resume)


def salt_id_of(output_dir: str) -> str:
    """`config.salt_id` of a build that is finished or interrupted; empty if there is none."""
    state = Scratch(files.join(output_dir, workdir.FOLDER)).state
    with files.explained(output_dir, "output_dir"):
        if files.exists(files.join(output_dir, dataset_dir.MANIFEST)):
            return dataset_dir.read_manifest(output_dir)["config"].get("salt_id", "")
        return files.read_json(state)["config"].get("salt_id", "") if files.exists(state) else ""


def find_earlier_build(
    output_dir: str,
    config: BuildConfig,
    overwrite: bool,
    resume: bool,
    sources: Sources | None = None,
) -> dict[str, Any] | None:
    """Checks that the directory may be built into; returns its finished manifest, if any.

    Args:
      sources: compared with those of the earlier build; None: they are not listed yet.

    Raises:
      UserError: the directory holds other files, or a build of other settings or sources.
    """
    scratch = Scratch(files.join(output_dir, workdir.FOLDER))
    with files.explained(output_dir, "output_dir"):
        foreign = unexpected_files(output_dir)
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
        made = {"config": earlier["config"], "pixel_rules": earlier.get("pixel_rules", 1)}
        state = {**made, **earlier["sources"]}
    elif files.exists(scratch.state) and files.names(output_dir) - {workdir.FOLDER}:
        # Until the first shard is written, other settings do no harm (`describe_replaced` tells of
        # them): part files are named after their settings.
        state = files.read_named_json(scratch.state, f"delete {scratch.root} and build again")
    if state and not resume:
        raise UserError(
            f"--output_dir={output_dir} holds a build: --resume goes on with it, "
            "--overwrite starts again"
        )
    if state:
        _refuse_other_build(output_dir, state, sources, config)
    return earlier


def describe_replaced(output_dir: str, config: BuildConfig) -> str:
    """A line on a build of other settings that stopped before its first shard, and whose place
    this one takes; '' if there is none."""
    scratch = Scratch(files.join(output_dir, workdir.FOLDER))
    if not files.exists(scratch.state):
        return ""
    state = files.read_named_json(scratch.state, f"delete {scratch.root} and build again")
    rule_changes = rules.changes_since(state.get("pixel_rules", 1))
    differences = config.differences(state["config"]) + rule_changes
    if not differences:
        return ""
    kept = config.inspects_as(state["config"]) and not rule_changes
    return (
        f"the unfinished build in {output_dir} had other settings ({'; '.join(differences)}): "
        + ("what it has read is used" if kept else "its work is not used")
    )


def _refuse_other_build(
    output_dir: str, state: dict[str, Any], sources: Sources | None, config: BuildConfig
) -> None:
    differences = config.differences(state["config"])
    differences += rules.changes_since(state.get("pixel_rules", 1))
    if state.get("appended"):
        differences.append("images were appended since: --append adds more")
    elif sources and state["listing"] != sources.listed.digest:
        differences.append(
            f"the files in --input_dir={sources.root}, or what a table or --splits says of them, "
            "are not those it was made of"
        )
    if differences:
        lines = "".join(f"\n  {line}" for line in differences)
        raise UserError(
            f"--output_dir={output_dir} holds another build:{lines}\n"
            "name another --output_dir, or start again with --overwrite"
        )
