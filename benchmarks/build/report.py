"""Rows, the table and the ratios with their targets, from the measurements of all rounds."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import platform
import statistics
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.measure import Measurement
from cxr_tfrecords.concurrency.cores import usable_cores
from cxr_tfrecords.pages.markdown import markdown_table

METRICS = ("cpu_ms_per_image", "images_per_s", "peak_pss_mb", "bytes_per_image")
_PACKAGES = (
    "numpy",
    "opencv-python-headless",
    "pillow",
    "pyarrow",
    "apache-beam",
    "tensorflow-datasets",
    "webdataset",
    "datasets",
)
_TENSORFLOWS = ("tensorflow-cpu", "tensorflow", "tensorflow-tpu")

Run = dict[str, float | None]
Row = dict[str, Any]


def run_values(measured: Measurement, images: int, output_bytes: int) -> Run:
    """One run's values by the names of the row's columns."""
    return {
        "cpu_ms_per_image": measured.cpu_s * 1e3 / images,
        "images_per_s": images / measured.wall_s,
        "peak_pss_mb": measured.peak_pss_mb,
        "bytes_per_image": output_bytes / images,
    }


def make_row(system: str, images: int, runs: list[Run], start_cpu_s: float | None = None) -> Row:
    """Medians over the rounds, and the rounds' own values under `runs`."""
    row: Row = {"system": system}
    for metric in METRICS:
        values = [value for run in runs if (value := run[metric]) is not None]
        row[metric] = statistics.median(values) if values else None
    return {**row, "start_cpu_s": start_cpu_s, "rounds": len(runs), "images": images, "runs": runs}


def table(rows: Sequence[Row]) -> str:
    columns = ("system", "images", "start_cpu_s", *METRICS)
    shown = [[_rounded(row[column]) for column in columns] for row in rows]
    return markdown_table(columns, shown)


def _rounded(value: Any) -> str:
    if not isinstance(value, float):
        return "-" if value is None else f"{value}"
    return f"{value:,.2f}" if abs(value) < 100 else f"{value:,.0f}"


@dataclasses.dataclass(frozen=True)
class Target:
    """A ratio (or value) of one round and the bound that its median should keep.

    Attributes:
      title: what it is.
      of: the value of one round's runs, by system; a KeyError is a system without a run.
      bound: the target.
      at_least: whether the bound is the least wanted value, or the greatest.
      strict: whether the bound itself misses.
    """

    title: str
    of: Callable[[dict[str, Run]], float | None]
    bound: float
    at_least: bool = False
    strict: bool = False

    def meets(self, value: float) -> bool:
        if value == self.bound:
            return not self.strict
        return (value > self.bound) == self.at_least


def _cpu(round_runs: dict[str, Run], system: str) -> float:
    return _number(round_runs[system]["cpu_ms_per_image"])


def _number(value: float | None) -> float:
    if value is None:
        raise KeyError("not measured here")
    return value


def _cheapest(round_runs: dict[str, Run], *systems: str) -> float:
    figures = [_cpu(round_runs, system) for system in systems if system in round_runs]
    if not figures:
        raise KeyError(systems[0])
    return min(figures)


def _cpu_ratio(system: str, to: str, bound: float) -> Target:
    return Target(
        f"{system} CPU / {to} CPU", lambda runs: _cpu(runs, system) / _cpu(runs, to), bound
    )


TARGETS = (
    _cpu_ratio("this-png", "floor-png", 1.2),
    _cpu_ratio("this-raw", "floor-raw", 1.25),
    _cpu_ratio("this-png", "own-png", 1.2),
    _cpu_ratio("this-raw", "own-raw", 1.25),
    Target(
        "floor-png wall / this-png wall",
        lambda runs: (
            _number(runs["this-png"]["images_per_s"]) / _number(runs["floor-png"]["images_per_s"])
        ),
        1.6,
        at_least=True,
    ),
    Target(
        "this-png CPU / cheapest of webdataset and hf-parquet",
        lambda runs: _cpu(runs, "this-png") / _cheapest(runs, "webdataset", "hf-parquet"),
        1.0,
    ),
    _cpu_ratio("this-png", "tfds-beam", 0.6),
    Target(
        "this-raw peak memory, MB",
        lambda runs: _number(runs["this-raw"]["peak_pss_mb"]),
        300,
        strict=True,
    ),
)


def ratio_lines(rows: Sequence[Row]) -> list[str]:
    """One line a target: the median of the rounds' own ratios, so that load cancels out."""
    by_system = {row["system"]: row["runs"] for row in rows}
    rounds = max((len(runs) for runs in by_system.values()), default=0)
    # A system that failed in some round has no rows at all, so the rounds of all others pair up.
    paired = [{system: runs[i] for system, runs in by_system.items()} for i in range(rounds)]
    return [_target_line(target, paired) for target in TARGETS]


def _target_line(target: Target, paired: Sequence[dict[str, Run]]) -> str:
    sign = ("<=", "<")[target.strict] if not target.at_least else ">="
    wanted = f"(target {sign} {target.bound:g})"
    try:
        values = [_number(target.of(runs)) for runs in paired]
    except KeyError:
        values = []
    if not values:
        return f"{target.title}: not measured {wanted}"
    value = statistics.median(values)
    spread = f", rounds {min(values):.3g} to {max(values):.3g}" if len(values) > 1 else ""
    verdict = "met" if target.meets(value) else "missed"
    return f"{target.title}: {value:.3g} {wanted}{spread}: {verdict}"


def machine_facts() -> str:
    """What the numbers depend on, besides the code."""
    load = "/".join(f"{value:.1f}" for value in os.getloadavg())
    versions = [_version(package) for package in _PACKAGES]
    installed = [text for text in map(_version, _TENSORFLOWS) if not text.endswith(" -")]
    return (
        f"CPU {_cpu_model()}, {usable_cores()} cores, load {load}\n"
        f"Python {platform.python_version()}, {platform.system()} {platform.machine()}\n"
        f"{', '.join(versions + (installed[:1] or ['tensorflow -']))}"
    )


def _version(package: str) -> str:
    try:
        return f"{package} {importlib.metadata.version(package)}"
    except importlib.metadata.PackageNotFoundError:
        return f"{package} -"


def _cpu_model() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"
