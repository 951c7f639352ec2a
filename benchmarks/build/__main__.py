"""Measures the build and its peers on the same radiographs, interleaved.

  python -m benchmarks.build --images=5000 --json=build.json
  python -m benchmarks.build --memory --memory_images=2000,10000,50000

Each system runs in a fresh process, once a round, in an order that changes from round to round;
ratios are taken within a round, so that other load on the machine hits both sides. Exit code 1 is
a system that failed; a missed target is not an error.
"""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import sys
from collections.abc import Iterator, Sequence

from absl import flags

from benchmarks.build import systems as build_systems
from benchmarks.build.inputs import distinct_folder, read_all, synthetic_folder
from benchmarks.build.report import (
    Row,
    Run,
    machine_facts,
    make_row,
    ratio_lines,
    run_values,
    table,
)
from benchmarks.measure import Measurement, measure
from cxr_tfrecords.errors import UserError, run_main

FLAGS = flags.FLAGS
_ROOT = str(pathlib.Path(__file__).parents[2])
_START_IMAGES = 40
_LEAST_IMAGES = 16  # the rarest class has one then
# No peer may talk to the network or take a GPU: neither is part of what is compared.
_ENVIRONMENT = {
    "CUDA_VISIBLE_DEVICES": "-1",
    "HF_HUB_OFFLINE": "1",
    "NO_GCE_CHECK": "true",
    "PYTHONPATH": _ROOT,
    "TF_CPP_MIN_LOG_LEVEL": "2",  # a failure's last lines are then not TensorFlow's notices
}

flags.DEFINE_integer(
    "images", 2000, "Radiographs that every system stores.", lower_bound=_LEAST_IMAGES
)
flags.DEFINE_string("json", "", "File for the rows.")
flags.DEFINE_integer("rounds", 3, "How often every system runs.", lower_bound=1)
flags.DEFINE_list("systems", list(build_systems.SYSTEMS), "Which to measure.")
flags.DEFINE_integer("image_size", 224, "Side of the stored images, in pixels.", lower_bound=1)
flags.DEFINE_string("work_dir", "data/benchmark", "Where inputs are kept and outputs come and go.")
flags.DEFINE_bool(
    "memory",
    False,
    "Instead, only measure how the peak memory of this-raw grows with --memory_images, once each.",
)
flags.DEFINE_list(
    "memory_images", ["2000", "10000", "50000"], "Image counts of --memory, all distinct images."
)


class _FailedError(Exception):
    """A system ended with an error; the message holds its last lines."""


def main(argv: list[str]) -> int:
    del argv
    unknown = set(FLAGS.systems) - set(build_systems.SYSTEMS)
    if unknown:
        raise UserError(
            f"--systems: {', '.join(sorted(unknown))} unknown; there are "
            f"{', '.join(build_systems.SYSTEMS)}"
        )
    print(machine_facts(), flush=True)
    work_dir = os.path.abspath(FLAGS.work_dir)
    os.makedirs(work_dir, exist_ok=True)
    bench = _Bench(work_dir, FLAGS.image_size)
    if FLAGS.memory:
        rows = _memory_rows(bench, [_count(text) for text in FLAGS.memory_images])
    else:
        systems = list(_installed(FLAGS.systems))
        rows = _compare(bench, systems, FLAGS.images, FLAGS.rounds)
    print("\n" + table(rows))
    if not FLAGS.memory:
        print("\n" + "\n".join(ratio_lines(rows)))
    if FLAGS.json:
        with open(FLAGS.json, "w") as file:
            json.dump(rows, file, indent=1)
            file.write("\n")
    return 1 if bench.failed else 0


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < _LEAST_IMAGES:
        raise UserError(
            f"--memory_images: {text!r} is not a number of at least {_LEAST_IMAGES} images"
        )
    return int(text)


def _installed(systems: Sequence[str]) -> Iterator[str]:
    """The systems that can run, in this module's order; a line for each that cannot."""
    for system in build_systems.SYSTEMS:
        if system not in systems:
            continue
        missing, remedy = build_systems.missing_package(system)
        if missing:
            print(f"{system} is left out: {missing} is not installed ({remedy})", flush=True)
        else:
            yield system


class _Bench:
    """Runs systems and keeps what failed."""

    def __init__(self, work_dir: str, image_size: int) -> None:
        self.work_dir = work_dir
        self.failed: set[str] = set()
        self._size = image_size

    def run(self, system: str, folder: str, images: int) -> tuple[Measurement, Run]:
        """Runs a system once; what it wrote is weighed and removed.

        Raises:
          _FailedError: it ended with an error.
        """
        run_dir = os.path.join(self.work_dir, f"run-{os.getpid()}")
        os.makedirs(run_dir)
        # What earlier runs wrote must reach the disk on their account, not on this one's.
        os.sync()
        try:
            out = os.path.join(run_dir, "out")
            command = build_systems.command(system, folder, out, self._size)
            measured = measure(command, cwd=_ROOT, env={**_ENVIRONMENT, "TMPDIR": run_dir})
            if measured.exit_code != 0:
                lines = "".join(f"\n  {line}" for line in measured.error_lines)
                raise _FailedError(f"{system} failed (exit code {measured.exit_code}):{lines}")
            return measured, run_values(measured, images, _folder_bytes(out))
        finally:
            shutil.rmtree(run_dir)

    def try_run(self, system: str, folder: str, images: int) -> tuple[Measurement, Run] | None:
        """As `run`; a failure is shown and noted instead, and gives None."""
        try:
            return self.run(system, folder, images)
        except _FailedError as error:
            print(error, file=sys.stderr, flush=True)
            self.failed.add(system)
            return None


def _compare(bench: _Bench, systems: Sequence[str], images: int, rounds: int) -> list[Row]:
    print(f"making or finding {images} synthetic radiographs in {bench.work_dir}", flush=True)
    folder = synthetic_folder(bench.work_dir, images)
    read_all(folder)
    starts = _starts(bench, systems) if images > _START_IMAGES else {}
    runs: dict[str, list[Run]] = {system: [] for system in systems}
    for number in range(rounds):
        for system in _order(systems, number):
            if system in bench.failed:
                continue
            result = bench.try_run(system, folder, images)
            if result:
                runs[system].append(result[1])
                print(f"round {number + 1} of {rounds}: {_line(system, result[1])}", flush=True)
    return [
        make_row(system, images, runs[system], starts.get(system))
        for system in systems
        if system not in bench.failed
    ]


def _starts(bench: _Bench, systems: Sequence[str]) -> dict[str, float]:
    """CPU seconds of each system on a handful of images: nearly all of it is start and imports.

    The less of two runs: the first one also reads the system's own files into the page cache and
    compiles them, which thereby no round has to pay.
    """
    folder = synthetic_folder(bench.work_dir, _START_IMAGES)
    cpu_seconds: dict[str, float] = {}
    for system in [*systems, *systems]:
        result = None if system in bench.failed else bench.try_run(system, folder, _START_IMAGES)
        if result:
            cpu_seconds[system] = min(cpu_seconds.get(system, result[0].cpu_s), result[0].cpu_s)
    for system, seconds in cpu_seconds.items():
        print(f"start: {system} {seconds:.2f} CPU seconds", flush=True)
    return cpu_seconds


def _order(systems: Sequence[str], number: int) -> list[str]:
    """Another order every round, so that none always runs after the same one."""
    first = number * len(systems) // 3 % max(1, len(systems))
    order = [*systems[first:], *systems[:first]]
    return order[::-1] if number % 2 else order


def _memory_rows(bench: _Bench, counts: Sequence[int]) -> list[Row]:
    rows = []
    for images in sorted(counts):
        print(f"making or finding {images} distinct images in {bench.work_dir}", flush=True)
        folder = distinct_folder(bench.work_dir, images, max(counts))
        read_all(folder)
        result = bench.try_run("this-raw", folder, images)
        if result:
            rows.append(make_row("this-raw", images, [result[1]]))
            print(_line("this-raw", result[1]), flush=True)
    return rows


def _line(system: str, run: Run) -> str:
    peak = run["peak_pss_mb"]
    memory = "" if peak is None else f", {peak:.0f} MB"
    return (
        f"{system} {run['cpu_ms_per_image']:.2f} CPU ms an image, "
        f"{run['images_per_s']:.0f} images/s{memory}"
    )


def _folder_bytes(folder: str) -> int:
    return sum(
        os.path.getsize(os.path.join(parent, name))
        for parent, _, names in os.walk(folder)
        for name in names
    )


if __name__ == "__main__":
    run_main(main)
