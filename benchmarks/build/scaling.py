"""Measures how the build uses more than one core: by threads, and by processes.

  python -m benchmarks.build.scaling --images=20000 --cores=2

Each build is bound to so many cores by `taskset` and runs on all images and on a quarter of them.
The difference of the two times is that of the images alone, without start and planning. From the
speed on P cores follows the share of the work that only one core at a time can do (Karp and Flatt,
"Measuring parallel processor performance", CACM 33(5), 1990), and from that what Amdahl's law
expects of 16 and 64 cores: computed, not measured.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
from collections.abc import Iterator

from absl import flags

from benchmarks.build import systems
from benchmarks.build.inputs import link_folder, read_all, synthetic_folder
from benchmarks.build.report import machine_facts
from benchmarks.measure import measure
from cxr_tfrecords.errors import UserError, run_main
from cxr_tfrecords.pages.markdown import markdown_table

FLAGS = flags.FLAGS
_PARTS = 4  # the small build has one of so many parts of the images
_FAR = (16, 64)


def serial_share(speed_up: float, cores: int) -> float:
    """The part of the work that is not divided among the cores, by Karp and Flatt; at least 0."""
    return max(0.0, (1 / speed_up - 1 / cores) / (1 - 1 / cores))


def expected_speed_up(share: float, cores: int) -> float:
    """Amdahl's law: how much faster than one core so many are."""
    return 1 / (share + (1 - share) / cores)


def main(argv: list[str]) -> None:
    del argv
    available = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if len(available) < FLAGS.cores or not shutil.which("taskset"):
        raise UserError(
            f"--cores={FLAGS.cores}: this process may use {len(available)} cores, and needs the "
            "command taskset"
        )
    print(machine_facts(), flush=True)
    work_dir = os.path.abspath(FLAGS.work_dir)
    os.makedirs(work_dir, exist_ok=True)
    large = synthetic_folder(work_dir, FLAGS.images)
    small_images = FLAGS.images // _PARTS
    small = f"{large}-part-{small_images}"
    if not os.path.exists(small):
        link_folder(large, small, small_images)
    read_all(large)
    speeds: dict[tuple[str, int], list[float]] = {}
    for number in range(FLAGS.rounds):
        for mode, cores, beam_flags in _modes(FLAGS.cores):
            seconds = [
                _seconds(folder, work_dir, available[:cores], beam_flags)
                for folder in (small, large)
            ]
            speed = (FLAGS.images - small_images) / (seconds[1] - seconds[0])
            speeds.setdefault((mode, cores), []).append(speed)
            print(
                f"round {number + 1} of {FLAGS.rounds}: {mode} on {cores}: {seconds[0]:.1f} s and "
                f"{seconds[1]:.1f} s, {speed:.0f} images/s",
                flush=True,
            )
    rows = _rows(speeds)
    print("\n" + markdown_table(list(rows[0]), [list(row.values()) for row in rows]))
    if FLAGS.json:
        with open(FLAGS.json, "w") as file:
            json.dump([{"mode": m, "cores": c, "speeds": v} for (m, c), v in speeds.items()], file)


def _modes(cores: int) -> Iterator[tuple[str, int, list[str]]]:
    """Name, cores and flags of each build of a round."""
    yield "one thread", 1, ["--worker_threads=1"]
    yield "threads", cores, [f"--worker_threads={cores}"]
    processes = ["--direct_running_mode=multi_processing", f"--direct_num_workers={cores}"]
    yield "processes", cores, [*processes, "--worker_threads=1"]


def _seconds(folder: str, work_dir: str, cores: list[int], beam_flags: list[str]) -> float:
    """Wall time of a build that must succeed."""
    out = os.path.join(work_dir, f"scaling-{os.getpid()}")
    pinned = ["taskset", "--cpu-list", ",".join(map(str, cores))]
    build = systems.command(f"this-{FLAGS.encoding}", folder, out, FLAGS.image_size)
    os.sync()
    try:
        measured = measure([*pinned, *build, *beam_flags])
    finally:
        shutil.rmtree(out, ignore_errors=True)
    if measured.exit_code:
        raise UserError("a build failed:\n" + "\n".join(measured.error_lines))
    return measured.wall_s


def _rows(speeds: dict[tuple[str, int], list[float]]) -> list[dict[str, str]]:
    one = speeds["one thread", 1]
    rows = []
    for (mode, cores), values in speeds.items():
        ratios = [value / first for value, first in zip(values, one, strict=True)]
        ratio = statistics.median(ratios)
        row = {"mode": mode, "cores": str(cores), "images/s": f"{statistics.median(values):.0f}"}
        if cores == 1:
            rows.append(row | dict.fromkeys(["to one", "one at a time", *map(str, _FAR)], ""))
            continue
        share = serial_share(ratio, cores)
        rows.append(
            row
            | {
                "to one": f"{ratio:.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
                "one at a time": f"{share:.1%}",
                **{str(far): f"{expected_speed_up(share, far):.1f}" for far in _FAR},
            }
        )
    return rows


if __name__ == "__main__":
    flags.DEFINE_integer("images", 20_000, "Radiographs of the larger build.", lower_bound=1000)
    flags.DEFINE_integer("cores", 2, "Cores of the machine to use.", lower_bound=2)
    flags.DEFINE_integer("rounds", 3, "How often each build runs.", lower_bound=1)
    flags.DEFINE_string("encoding", "png", "What the build stores, png or raw.")
    flags.DEFINE_integer("image_size", 224, "Side of the stored images, in pixels.", lower_bound=1)
    flags.DEFINE_string(
        "work_dir", "data/benchmark", "Where inputs are kept and outputs come and go."
    )
    flags.DEFINE_string("json", "", "File for the rows.")
    run_main(main)
