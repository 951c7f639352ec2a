"""Rounds of `benchmarks.samplers`: every system once, in an order that changes."""

from __future__ import annotations

import functools
import statistics
from collections.abc import Callable, Mapping, Sequence

from benchmarks.samplers import systems as pipelines
from benchmarks.samplers.report import CACHES, FOLDER, PLAIN, PLAIN_LATE, Round
from cxr_tfrecords.dataset_dir import DatasetDir
from trainer.balancing.sampler_table import SAMPLERS
from trainer.input.split_batches import SplitSource

# An epoch from memory takes a tenth of a second, too short to be compared.
_SPLITS_FROM_MEMORY = 10


def measure(
    data: DatasetDir, folder: str, chosen: Sequence[str], *, rounds: int, batch_size: int
) -> list[Round]:
    """Runs all systems once a round, the first of several only to warm files and code.

    Args:
      folder: empty, for the images as files; chosen: samplers besides `none`.
    """
    pipelines.write_folder(data, folder)
    sources = {cache: pipelines.open_source(data, cache) for cache in CACHES}
    systems = _systems(data, folder, chosen, sources, batch_size)
    starts: dict[str, list[float]] = {cache: [] for cache in CACHES}
    measured = []
    warm_up = rounds > 1
    for number in range(0 if warm_up else 1, rounds + 1):
        names = list(systems)
        shift = number % len(names)
        figures: Round = {}
        for name in names[shift:] + names[:shift]:
            figures |= systems[name]()
        for cache, source in sources.items():
            starts[cache].append(pipelines.epoch_start(data, source, batch_size))
        measured.append({key: figures[key] for key in sorted(figures, key=_order)})
        print(f"round {number} of {rounds}{' (warm-up)' if not number else ''}", flush=True)
    for cache, seconds in starts.items():
        print(f"start of an epoch, cache={cache}: {statistics.median(seconds[warm_up:]):.2f} s")
    return measured[warm_up:]


def _order(key: tuple[str, int | None]) -> tuple:
    system, epoch = key
    names = [f"{name}, cache={cache}" for cache in CACHES for name in SAMPLERS]
    names += [PLAIN, PLAIN_LATE, FOLDER]
    return epoch or 0, names.index(system)


def _systems(
    data: DatasetDir,
    folder: str,
    chosen: Sequence[str],
    sources: Mapping[str, SplitSource],
    size: int,
) -> Mapping[str, Callable[[], Round]]:
    """Name -> what measures that system once."""
    systems: dict[str, Callable[[], Round]] = {}

    def of_sampler(sampler: str, cache: str) -> Round:
        splits = _SPLITS_FROM_MEMORY if cache == "memory" else 1
        rate = pipelines.timed(pipelines.our_images, data, sources[cache], sampler, size, splits)
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
            if sampler not in ("none", *chosen):
                continue
            systems[f"{sampler} {cache}"] = functools.partial(of_sampler, sampler, cache)
        systems[f"new run {cache}"] = functools.partial(of_new_run, cache)
    systems[PLAIN] = functools.partial(of_plain, PLAIN, True)
    systems[PLAIN_LATE] = functools.partial(of_plain, PLAIN_LATE, False)
    systems[FOLDER] = of_folder
    return systems
