"""Images a second of the training stream for each sampler, and against its peers, interleaved.

  python -m benchmarks.samplers --json=samplers.json --rounds=5

Without --data_dir it builds synthetic radiographs of 224 px first. Every round runs every system
once, in an order that changes; ratios are taken within a round, so that other load on the machine
hits both sides, and the median over rounds is shown. No model is trained: this is what the input
pipeline could feed. Every system delivers as many images as the training split holds, in one
stream; what the start of an epoch costs besides is printed for itself. Our images are mirrored at
random, the peers' are not. A missed target is not an error.
"""

from __future__ import annotations

import functools
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

from absl import flags

from cxr_tfrecords import dataset_dir, files
from cxr_tfrecords.errors import UserError, run_main
from cxr_tfrecords.quiet import quiet_tensorflow
from trainer.sampling_shares import SAMPLERS

FLAGS = flags.FLAGS

flags.DEFINE_string("data_dir", "", "Dataset directory. Empty: synthetic radiographs, built once.")
flags.DEFINE_float("synthetic_scale", 0.2, "Size of the synthetic set; 1.0: 21,165 images.", 0.001)
flags.DEFINE_string("work_dir", "data/benchmark", "Where the synthetic set is built and kept.")
flags.DEFINE_string("json", "", "File for the rows.")
flags.DEFINE_integer(
    "rounds", 5, "How often every system runs, after a warm-up. 1: no warm-up.", lower_bound=1
)
flags.DEFINE_list("samplers", list(SAMPLERS), "Which to measure; none always is.")
flags.DEFINE_integer("batch_size", 32, "Images in a batch.", lower_bound=1)

PLAIN = "rejection_resample"
PLAIN_LATE = "rejection_resample before decoding"
FOLDER = "image_dataset_from_directory"
CACHES = ("none", "memory")
# (system, epoch) -> images a second, of one round.
Round = dict[tuple[str, int | None], float]
_SAMPLER_TARGETS = {"undersample": 0.95, "oversample": 0.95, "weighted": 0.95, "rejection": 0.9}
_FOLDER_TARGETS = {1: 1.2, 2: 3.0}


def main(argv: list[str]) -> None:
    if argv[1:]:
        raise UserError(f"unknown argument {argv[1]!r}: flags look like --name=value")
    if unknown := set(FLAGS.samplers) - set(SAMPLERS):
        raise UserError(f"--samplers={min(unknown)} is none of {', '.join(SAMPLERS)}")
    data = dataset_dir.load(FLAGS.data_dir or _build())
    print(
        f"{data.path}: {data.num_examples('train'):,} training images, {data.image_size} px, "
        f"{data.encoding}; {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
        flush=True,
    )
    quiet_tensorflow()
    with tempfile.TemporaryDirectory() as folder:
        measured = _measure(data, folder)
    rows = make_rows(measured)
    print(_describe(rows))
    print("\n".join(check_targets(measured)))
    if FLAGS.json:
        files.write_json(FLAGS.json, rows)


def make_rows(measured: list[Round]) -> list[dict]:
    """Medians over rounds; ratios are to `none, cache=none`, but in memory to `none` in memory."""
    return [
        {
            "system": system,
            "epoch": epoch,
            "images_per_s": round(statistics.median(one[system, epoch] for one in measured), 1),
            "ratio_to_none": round(_ratio(measured, (system, epoch), _baseline(system)), 3),
        }
        for system, epoch in measured[0]
    ]


def check_targets(measured: list[Round]) -> list[str]:
    """One line a target, met or missed."""
    lines = []
    for cache in CACHES:
        for sampler, target in _SAMPLER_TARGETS.items():
            system = f"{sampler}, cache={cache}"
            if (system, None) not in measured[0]:
                continue
            ratio = _ratio(measured, (system, None), _baseline(system))
            lines.append(_verdict(f"{system} against none", ratio, target))
    for epoch, target in _FOLDER_TARGETS.items():
        ratio = _ratio(measured, ("none, cache=memory", epoch), (FOLDER, epoch))
        lines.append(_verdict(f"none, cache=memory against {FOLDER}, epoch {epoch}", ratio, target))
    return lines


def _verdict(what: str, ratio: float, target: float) -> str:
    return f"{'met' if ratio >= target else 'MISSED':6} {ratio:6.2f} (target {target}) {what}"


def _baseline(system: str) -> tuple[str, None]:
    return f"none, cache={'memory' if system.endswith('=memory') else 'none'}", None


def _ratio(measured: list[Round], of: tuple[str, int | None], to: tuple[str, int | None]) -> float:
    return statistics.median(one[of] / one[to] for one in measured)


def _describe(rows: list[dict]) -> str:
    lines = [f"{'system':40}{'epoch':>6}{'images/s':>12}{'ratio to none':>15}"]
    for row in rows:
        lines.append(
            f"{row['system']:40}{row['epoch'] or '':>6}{row['images_per_s']:12,.0f}"
            f"{row['ratio_to_none']:15.2f}"
        )
    return "\n".join(lines)


def _measure(data: dataset_dir.DatasetDir, folder: str) -> list[Round]:
    """Runs all systems once a round, the first of several only to warm files and code."""
    from benchmarks import sampler_systems

    sampler_systems.write_folder(data, folder)
    sources = {cache: sampler_systems.open_source(data, cache) for cache in CACHES}
    systems = _systems(data, folder, sources)
    starts: dict[str, list[float]] = {cache: [] for cache in CACHES}
    measured = []
    warm_up = FLAGS.rounds > 1
    for number in range(0 if warm_up else 1, FLAGS.rounds + 1):
        names = list(systems)
        shift = number % len(names)
        found: Round = {}
        for name in names[shift:] + names[:shift]:
            found |= systems[name]()
        for cache, source in sources.items():
            starts[cache].append(sampler_systems.epoch_start(data, source, FLAGS.batch_size))
        measured.append({key: found[key] for key in sorted(found, key=_order)})
        print(f"round {number} of {FLAGS.rounds}{' (warm-up)' if not number else ''}", flush=True)
    for cache, seconds in starts.items():
        print(f"start of an epoch, cache={cache}: {statistics.median(seconds[warm_up:]):.2f} s")
    return measured[warm_up:]


def _order(key: tuple[str, int | None]) -> tuple:
    system, epoch = key
    names = [f"{name}, cache={cache}" for cache in CACHES for name in SAMPLERS]
    names += [PLAIN, PLAIN_LATE, FOLDER]
    return epoch or 0, names.index(system)


def _systems(
    data: dataset_dir.DatasetDir, folder: str, sources: Mapping[str, Any]
) -> Mapping[str, Callable[[], Round]]:
    """Name -> what measures that system once."""
    from benchmarks import sampler_systems as pipelines

    size = FLAGS.batch_size
    systems: dict[str, Callable[[], Round]] = {}

    def of_sampler(sampler: str, cache: str) -> Round:
        rate = pipelines.timed(pipelines.our_images, data, sources[cache], sampler, size)
        return {(f"{sampler}, cache={cache}", None): rate}

    def of_plain(name: str, decode_first: bool) -> Round:
        with pipelines.silent_stderr():  # it prints a message for each batch of rejections
            rate = pipelines.timed(
                lambda: pipelines.plain_rejection(data, size, decode_first=decode_first)
            )
        return {(name, None): rate}

    def of_new_run(cache: str) -> Round:
        system = f"none, cache={cache}"
        opened: list = []

        def first() -> int:
            delivered, source = pipelines.our_first_epoch(data, cache, size)
            opened.append(source)
            return delivered

        rate = pipelines.timed(first)
        second = pipelines.timed(pipelines.our_images, data, opened[0], "none", size)
        return {(system, 1): rate, (system, 2): second}

    def of_folder() -> Round:
        opened: list = []

        def first() -> int:
            opened.append(pipelines.folder_dataset(data, folder, size))
            return pipelines.folder_epoch(opened[0])

        rate = pipelines.timed(first)
        return {(FOLDER, 1): rate, (FOLDER, 2): pipelines.timed(pipelines.folder_epoch, opened[0])}

    for cache in CACHES:
        for sampler in SAMPLERS:
            if sampler not in ("none", *FLAGS.samplers):
                continue
            systems[f"{sampler} {cache}"] = functools.partial(of_sampler, sampler, cache)
        systems[f"new run {cache}"] = functools.partial(of_new_run, cache)
    systems[PLAIN] = functools.partial(of_plain, PLAIN, True)
    systems[PLAIN_LATE] = functools.partial(of_plain, PLAIN_LATE, False)
    systems[FOLDER] = of_folder
    return systems


def _build() -> str:
    """Path of the synthetic dataset directory, built in a process of its own if it is not there."""
    path = os.path.join(FLAGS.work_dir, f"synthetic-{FLAGS.synthetic_scale:g}-tfrecords")
    command = [sys.executable, "-m", "beam_pipelines.build", f"--output_dir={path}"]
    command += [f"--synthetic_scale={FLAGS.synthetic_scale}", "--image_size=224"]
    if subprocess.run(command, check=False, stdout=subprocess.DEVNULL).returncode:
        raise UserError(f"{' '.join(command)} failed")
    return path


if __name__ == "__main__":
    run_main(main)
