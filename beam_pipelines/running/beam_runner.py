"""Runs one pass on a Beam runner, with a progress bar and one-line errors."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import (
    DirectOptions,
    PipelineOptions,
    StandardOptions,
)
from apache_beam.transforms.environments import SubprocessSDKEnvironment

from beam_pipelines.running import lost_workers
from beam_pipelines.settings.beam_flags import runs_locally
from cxr_tfrecords import files
from cxr_tfrecords.concurrency import no_proxy
from cxr_tfrecords.console.progress import Progress, progress
from cxr_tfrecords.errors import TemporaryError, UserError

_REFRESH_SECONDS = 0.25
_REMOTE_REFRESH_SECONDS = 5.0  # a listing of an object store costs money
_EXTRAS = {"DataflowRunner": "gcp", "DaskRunner": "dask"}
_REFUSED_OPTIONS = "Pipeline has validations errors:"  # the start of Beam's message


class WorkerLostError(TemporaryError):
    """A worker process ended before its work did."""


def run_pass(
    title: str,
    items: Sequence[Any],
    work: beam.DoFn | beam.PTransform,
    options: PipelineOptions,
    *,
    done_folder: str,
    weights: Mapping[str, int],
    initial: int,
) -> None:
    """Feeds items to a DoFn or transform on the runner that the options name, and waits.

    Args:
      title: names the pass, in Beam's job graph and before the progress bar.
      items: the work, one element a call.
      done_folder: where `work` leaves one file for each finished item. Beam's own counters
        arrive only at the end, on most runners; these files are there on all of them.
      weights: name of such a file -> the number of images it stands for.
      initial: images that an earlier run has finished.

    Raises:
      UserError: `work` raised it; without the text that Beam puts around it.
      WorkerLostError: a worker process of --direct_running_mode=multi_processing ended.
    """
    if not items:
        return
    total = initial + sum(weights.values())
    stop = threading.Event()
    with progress(total, title, " images", initial=initial) as bar:
        watcher = threading.Thread(
            target=_watch, args=(bar, stop, done_folder, weights, initial), daemon=True
        )
        watcher.start()
        try:
            _run(title, items, work, options)
        finally:
            stop.set()
            watcher.join()


def make_pipeline(
    title: str,
    items: Sequence[Any],
    work: beam.DoFn | beam.PTransform,
    options: PipelineOptions,
) -> beam.Pipeline:
    """The job graph of a pass; the runner distributes whatever `items` holds, so keep it small.

    Raises:
      UserError: there is no such runner, or it refuses the options.
    """
    name = options.view_as(StandardOptions).runner
    try:
        if runs_locally(options):
            runner, options = _local_runner(options)
            pipeline = beam.Pipeline(runner=runner, options=options)
        else:
            pipeline = beam.Pipeline(options=options)
    except (ValueError, ImportError, AttributeError) as error:
        _explain_missing(error, options)
        reason = " ".join(str(error).removeprefix(_REFUSED_OPTIONS).split())
        raise UserError(f"--runner={name}: {reason}") from error
    # Beam makes a folder in $TMPDIR for packages of Java transforms. There are none here, and a
    # process that is killed would leave it.
    with contextlib.suppress(OSError, AttributeError):
        os.rmdir(pipeline.local_tempdir)
    _ = (
        pipeline
        | f"{title}Work" >> beam.Create(items)
        | f"{title}Spread" >> beam.Reshuffle()
        | title >> (beam.ParDo(work) if isinstance(work, beam.DoFn) else work)
    )
    return pipeline


def _local_runner(options: PipelineOptions) -> tuple[Any, PipelineOptions]:
    """The class behind --runner=DirectRunner, and the options to run it with.

    Asked for by name, Beam would first try to download its Prism runner, and hang where there is
    no network.
    """
    from apache_beam.runners.portability.fn_api_runner import fn_runner

    if options.view_as(DirectOptions).direct_running_mode != "multi_processing":
        return fn_runner.FnApiRunner(), options
    lost_workers.notice_ends()
    no_proxy.reach_directly()
    # The same processes as Beam would start, but by a command of ours: see `local_worker`.
    command = f"exec {shlex.quote(sys.executable)} -m beam_pipelines.running.local_worker"
    environment = SubprocessSDKEnvironment.from_command_string(command)
    options = PipelineOptions.from_dictionary(options.get_all_options(drop_default=True))
    options.view_as(DirectOptions).direct_running_mode = "in_memory"  # would replace the command
    return fn_runner.FnApiRunner(default_environment=environment), options


def _run(
    title: str,
    items: Sequence[Any],
    work: beam.DoFn | beam.PTransform,
    options: PipelineOptions,
) -> None:
    pipeline = make_pipeline(title, items, work, options)
    # Beam's worker threads print the stack trace of every failure directly to standard error.
    local = runs_locally(options)
    traces = contextlib.redirect_stderr(io.StringIO()) if local else contextlib.nullcontext()
    try:
        with traces:
            pipeline.run().wait_until_finish()
    except Exception as error:
        if lost_workers.LOST in str(error):
            raise WorkerLostError("a worker process ended") from error
        match = re.search(r"UserError: (.*?)(?: \[while running|\n|$)", str(error), re.DOTALL)
        if isinstance(error, UserError) or match:
            message = match.group(1) if match else str(error).split(" [while running")[0]
            raise UserError(message.strip()) from error
        _explain_missing(error, options)
        raise


def _explain_missing(error: Exception, options: PipelineOptions) -> None:
    """Raises a UserError if the packages of a remote runner are missing."""
    name = options.view_as(StandardOptions).runner or ""
    extra = _EXTRAS.get(name.rpartition(".")[2])
    if extra and isinstance(error, ImportError):
        raise UserError(
            f"--runner={name} needs packages that are missing: pip install 'cxr-balance[{extra}]'"
        ) from error


def _watch(
    bar: Progress, stop: threading.Event, folder: str, weights: Mapping[str, int], initial: int
) -> None:
    finished = False
    seconds = _REFRESH_SECONDS if files.is_local(folder) else _REMOTE_REFRESH_SECONDS
    while not finished:
        finished = stop.wait(seconds)  # reads the folder once more after the pass has ended
        names = files.names(folder)
        bar.n = initial + sum(weights[name] for name in names & weights.keys())
        bar.refresh()
