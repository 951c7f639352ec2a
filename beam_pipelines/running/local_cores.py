"""How the local runner uses the cores of a machine: threads of one process, or processes."""

from __future__ import annotations

from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions

from beam_pipelines.inputs.sources import FileList
from beam_pipelines.settings.beam_flags import runs_locally
from cxr_tfrecords.concurrency.cores import usable_cores

# Threads share one interpreter, which only one of them at a time may use: two cores are kept busy
# by threads, more are not. Processes cost some two seconds of processor time each to start, in each
# pass, which this many files, or fewer large ones, win back (docs/build.md has the measurement).
PROCESSES_FROM_CORES = 3
PROCESSES_FROM_FILES = 10_000
PROCESSES_FROM_BYTES = 500_000_000
# The second pass copies a file's record in 0.15 ms, so that it wins them back much later.
PROCESSES_WRITE_FROM_FILES = 100_000


def default_threads(options: PipelineOptions) -> int:
    """A worker's threads: all cores for the local runner; elsewhere the runner fills the cores."""
    return usable_cores() if runs_locally(options) else 1


def spread(
    options: PipelineOptions, threads: int, listed: FileList
) -> tuple[PipelineOptions, PipelineOptions, int]:
    """Options of both passes, and the threads a worker, with which a build of these files uses all
    cores.

    Args:
      threads: as the user wants them; then one process has them, unless Beam's flags say
        otherwise. 0: nothing is said.

    Returns:
      Options of their own where processes pay, else those that were given.
    """
    direct = options.view_as(DirectOptions)
    if not runs_locally(options) or threads:
        return options, options, threads or 1
    cores = usable_cores()
    if direct.direct_running_mode != "in_memory" or direct.direct_num_workers != 1:
        # 0 workers are Beam's word for as many as there are cores.
        return options, options, max(1, cores // (direct.direct_num_workers or cores))
    pays = len(listed) >= PROCESSES_FROM_FILES or listed.num_bytes >= PROCESSES_FROM_BYTES
    if cores < PROCESSES_FROM_CORES or not pays:
        return options, options, cores
    processes = PipelineOptions.from_dictionary(options.get_all_options(drop_default=True))
    direct = processes.view_as(DirectOptions)
    direct.direct_running_mode, direct.direct_num_workers = "multi_processing", cores
    return processes, options if len(listed) < PROCESSES_WRITE_FROM_FILES else processes, 1
