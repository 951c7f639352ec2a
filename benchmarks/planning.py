"""What planning a build costs by the number of files: time and memory, no pixel read.

  python -m benchmarks.planning --paths=1000000,5000000,20000000 --json=FILE

Everything between listing and writing is done for real, on made-up paths and digests: the list of
files, the search for copies and near-duplicates, the split, the shards and what each holds. Only
the first pass, which would decode the images, is left out. Each size runs in a fresh process.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from absl import flags

from beam_pipelines.inputs.sources import FileList, SourceFile
from beam_pipelines.planning.plan import plan_build
from beam_pipelines.settings.config import BuildConfig
from benchmarks.measure import measure
from cxr_tfrecords.errors import run_main
from cxr_tfrecords.pages.markdown import markdown_table

FLAGS = flags.FLAGS
flags.DEFINE_list("paths", ["1000000", "5000000"], "Numbers of files.")
flags.DEFINE_string("json", "", "File for the rows.")
flags.DEFINE_integer("one", 0, "Plan so many files in this process and print the seconds.")

TARGET_MB = 2000
# The public data set's class ratio, of 21,165.
CLASSES = {"COVID": 3616, "Lung_Opacity": 6012, "Normal": 10192, "Viral Pneumonia": 1345}
_BLOCK = 1 << 20


@dataclasses.dataclass(frozen=True)
class MadeUp:
    """Columns as the first pass would leave them: random digests, one file in 200 a copy."""

    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def numbers(self, column: str) -> np.ndarray:
        if column == "label":
            return self.labels
        value = {"length": 30_000, "split": -1}[column]
        return np.full(len(self), value, np.int8 if column == "split" else np.int32)

    def digests(self, column: str) -> np.ndarray:
        words = 4 if column == "near" else 2
        result = np.zeros((len(self), words), np.uint64)
        if column in ("tie", "patient"):
            return result
        source = np.random.Philox(key=["pixels", "stored", "near"].index(column))
        for start in range(0, len(self), _BLOCK):
            part = result[start : start + _BLOCK]
            part[:] = source.random_raw(part.size).reshape(part.shape)
            part[199::200] = part[198::200][: len(part[199::200])]
        return result

    def strings(self, column: str, rows: np.ndarray) -> list[str]:
        return [f"{column} {row}" for row in rows]


def _files(counts: dict[str, int]) -> Iterator[SourceFile]:
    for label, (name, count) in enumerate(counts.items()):
        for number in range(count):
            yield SourceFile(f"{name}/images/{name}-{number:08d}.png", label, 30_000, 1)


def plan_once(paths: int) -> dict[str, float]:
    """Seconds of listing and planning so many files in this process."""
    total = sum(CLASSES.values())
    counts = {name: count * paths // total for name, count in CLASSES.items()}
    started = time.monotonic()
    listed = FileList(_files(counts))
    listing = time.monotonic() - started
    labels = np.repeat(np.arange(len(counts), dtype=np.int32), list(counts.values()))
    started = time.monotonic()
    plan = plan_build(list(counts), MadeUp(labels), BuildConfig(), max_bad_fraction=0.0)
    planning = time.monotonic() - started
    assert sum(len(shard.rows) for shard in plan.shards) == len(listed)
    return {"list_s": listing, "plan_s": planning}


def main(argv: list[str]) -> None:
    del argv
    if FLAGS.one:
        print(json.dumps(plan_once(FLAGS.one)))
        return
    rows: list[dict[str, Any]] = []
    for paths in map(int, FLAGS.paths):
        measured = measure([sys.executable, "-m", "benchmarks.planning", f"--one={paths}"])
        if measured.exit_code:
            raise SystemExit("\n".join(measured.error_lines))
        rows.append(
            {
                "paths": paths,
                "wall_s": round(measured.wall_s, 2),
                "cpu_us_per_path": round(measured.cpu_s / paths * 1e6, 3),
                "peak_pss_mb": round(measured.peak_pss_mb or 0),
                **json.loads(measured.output),
            }
        )
        table = [[f"{value:,}" for value in row.values()] for row in rows]
        print(markdown_table(list(rows[0]), table), flush=True)
    worst = max(row["peak_pss_mb"] for row in rows)
    growth = rows[-1]["cpu_us_per_path"] / rows[0]["cpu_us_per_path"]
    print(f"peak memory {worst} MB, target {TARGET_MB}: {'met' if worst < TARGET_MB else 'missed'}")
    print(f"CPU a path, largest against smallest: {growth:.2f}")
    if FLAGS.json:
        with open(FLAGS.json, "w", encoding="utf-8") as file:
            json.dump(rows, file, indent=1)


if __name__ == "__main__":
    run_main(main)
