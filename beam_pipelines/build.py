"""Turns a folder of radiographs, one sub-folder a class, into TFRecord shards.

  python -m beam_pipelines.build --runner=DirectRunner --input_dir=DIR --output_dir=DATA

Without --input_dir it first makes, and then uses, the embedded synthetic radiographs. PNG, JPEG
and DICOM files are read, each decoded once; then copies (identical pixels, near-duplicates, one
patient) are found and united, groups of them are split, and each shard is written whole. Copies
of one radiograph never lie in two splits.

A build that was interrupted goes on where it stopped; a finished one is left alone. Flags that
are not listed here go to Apache Beam: --runner=DataflowRunner --project=… --setup_file=./setup.py,
--direct_num_workers=…, and all the others (launch/ has a script for each runner).
"""

from __future__ import annotations

import dataclasses
import gc
import os
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from absl import flags, logging

from beam_pipelines.inputs import group_salt
from beam_pipelines.settings.call import BuildCall
from beam_pipelines.settings.config import BuildConfig
from cxr_tfrecords import dataset_dir, files
from cxr_tfrecords.console.printable import printable
from cxr_tfrecords.errors import UserError, run_main
from cxr_tfrecords.settings import define_flags, flag_values

if TYPE_CHECKING:
    from beam_pipelines.inputs.sources import Sources

FLAGS = flags.FLAGS
DEFAULT_OUTPUT = "data/synthetic-tfrecords"
define_flags(BuildCall)
define_flags(BuildConfig)


def main(argv: list[str]) -> None:
    logging.set_verbosity(logging.ERROR)  # Beam's import notes which optional parts are absent
    call = BuildCall(**flag_values(BuildCall))
    given = (call.input_dir or os.path.splitext(call.input_csv)[0]).rstrip("/")
    output_dir = call.output_dir or (f"{given}-tfrecords" if given else DEFAULT_OUTPUT)
    print(f"building into {output_dir}", flush=True)
    before = dataset_dir.read_manifest(output_dir) if call.append else {}
    config = _config_from_flags(before.get("config", {}))
    _check_inputs(call)
    salt = _find_salt(call, config, output_dir)
    # Imported late: they load Beam, and --help or a wrong path should be answered at once. All that
    # they make stays, so looking for garbage in it, now and later, would only cost time: 0.2 s of
    # the start, and half a second of a build of 20,000 images.
    gc.disable()
    from beam_pipelines import append, job, summary
    from beam_pipelines.settings import beam_flags

    gc.freeze()
    gc.enable()
    options = beam_flags.parse(argv[1:], list(FLAGS))
    if not beam_flags.runs_locally(options):
        logging.set_verbosity(logging.INFO)  # a remote runner tells its job's address and state
    sources = _find_sources(call, config, output_dir, salt, before.get("class_names", ()))
    print(printable(summary.describe_sources(sources)), flush=True)
    may_hold_ids = sources.listed.may_hold_ids or bool(before.get("config", {}).get("salt_id"))
    kept = group_salt.keep_salt(
        call.group_salt_file, salt, may_hold_ids=may_hold_ids, for_names=config.anonymize_names
    )
    started = time.monotonic()
    common: dict[str, Any] = {
        "max_bad_fraction": call.max_bad_fraction,
        "threads": call.worker_threads,
        "salt": kept,
        "page": call.stats,
    }
    if call.append:
        result = append.append(sources, output_dir, config, options, **common)
    else:
        result = job.build(
            sources,
            output_dir,
            config,
            options,
            overwrite=call.overwrite,
            resume=call.resume,
            **common,
        )
    seconds = time.monotonic() - started
    print(printable(summary.describe_build(result, output_dir, seconds)))
    if kept and result.manifest["config"]["salt_id"]:
        print(
            "ids of patients are hashed with the secret in "
            f"{call.group_salt_file or group_salt.default_path()}: pass it to nobody, and keep it "
            "for --append"
        )


def _check_inputs(call: BuildCall) -> None:
    """Refuses paths that are not there, before Beam is imported."""
    from beam_pipelines.folders import listing

    for name in ("input_dir", "input_csv", "group_csv"):
        path = getattr(call, name)
        if path and files.is_local(path) and not os.path.exists(path):
            raise UserError(f"--{name}={path} does not exist: check the path")
    if call.input_dir and files.is_local(call.input_dir) and not os.path.isdir(call.input_dir):
        raise listing.not_a_folder(call.input_dir)


def _find_salt(call: BuildCall, config: BuildConfig, output_dir: str) -> str:
    """See `group_salt.find_salt`; refuses an output directory that cannot be built into."""
    from beam_pipelines.dataset import earlier_build

    earlier_id = "" if call.overwrite else earlier_build.salt_id_of(output_dir)
    salt = group_salt.find_salt(call.group_salt_file, output_dir, earlier_id)
    if files.is_local(output_dir):
        if not call.append:
            salted = dataclasses.replace(config, salt_id=group_salt.salt_id(salt))
            earlier_build.check_settings(output_dir, salted, call.overwrite, call.resume)
        reason = files.why_unwritable(output_dir)
        if reason:
            raise UserError(f"cannot write to --output_dir={output_dir}: {reason}: name another")
    return salt


def _config_from_flags(built_with: Mapping[str, Any]) -> BuildConfig:
    """The flags that shape bytes, as one value.

    Args:
      built_with: settings of a data set that is appended to, in place of flags not given.
    """
    values = flag_values(BuildConfig)
    kept = {name: built_with[name] for name in values.keys() & built_with.keys()}
    values |= {name: value for name, value in kept.items() if not FLAGS[name].present}
    return BuildConfig(**{**values, "balance_splits": tuple(values["balance_splits"])})


def _find_sources(
    call: BuildCall,
    config: BuildConfig,
    output_dir: str,
    salt: str,
    known_classes: Sequence[str],
) -> Sources:
    from beam_pipelines.inputs import input_tables, sources

    for name in ("path_column", "label_column", "label_separator"):
        if getattr(call, name) and not call.input_csv:
            raise UserError(f"--{name} needs --input_csv, the list that it is about")
    if call.input_csv:
        listed = input_tables.read_input_csv(
            call.input_csv,
            call.input_dir,
            salt,
            known_classes=known_classes,
            splits_choice=config.splits,
            split_names=config.split_names,
            path_column=call.path_column,
            label_column=call.label_column,
            group_column="" if call.group_csv else call.group_column,
            label_separator=call.label_separator,
        )
    else:
        if call.input_dir:
            sources.check_outside(call.input_dir, output_dir)
        folder = call.input_dir or _synthetic(call.synthetic_scale)
        listed = sources.find_sources(
            folder,
            with_masks=config.with_masks,
            recursive=call.recursive,
            known_classes=known_classes,
            splits_choice=config.splits,
            split_names=config.split_names,
        )
    if call.group_csv:
        listed = input_tables.group_by_csv(listed, call.group_csv, call.group_column, salt)
    elif call.group_column and not call.input_csv:
        raise UserError("--group_column needs --group_csv or --input_csv, the table that has it")
    if config.anonymize_names:  # the digest of few names would confirm a guess at them
        listed.listed.digest = group_salt.group_digest(listed.listed.digest, salt)
    return listed


def _synthetic(scale: float) -> str:
    from cxr_tfrecords.console.progress import progress
    from cxr_tfrecords.synthetic import write_synthetic

    folder = f"data/synthetic-radiographs-{scale:g}"
    if not os.path.exists(folder):
        print(f"no --input_dir: making synthetic radiographs in {folder}", flush=True)
    with progress(None, "Synthesize", " images", shown=not os.path.exists(folder)) as bar:

        def count(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        write_synthetic(folder, scale=scale, progress=count)
    return folder


if __name__ == "__main__":
    # Unknown flags go to Beam.
    kept = "finished work is kept, run the same command again to go on"
    run_main(main, known_only=True, interrupted=kept)
