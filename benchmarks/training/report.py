"""Rows, tables and targets of `benchmarks.training`."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.training.frozen import Run
from cxr_tfrecords.pages.markdown import markdown_table

# System -> images a second, or a share, of one round.
Round = dict[str, float]
Row = dict[str, Any]

LOOP = "our loop"
BARE = "plain tf.function step, no data"
FIT = "model.fit"
FIT_LOOP = "model.fit, steps_per_execution=10"
WAITING = "waiting, host"
TRACED = "waiting, traced"
TORCH = {"contiguous": "PyTorch step, contiguous", "channels_last": "PyTorch step, channels_last"}
CPU_CORE = "--strategy=cpu, 1 core"
ONE_WORKER = "1 worker"
WEAK = "2 workers, twice the batch"
STRONG = "2 workers, the same batch"
WEAK_LOCAL = "2 workers, twice the batch, --nosync_batch_norm"


def of_loops(backbone: str, count: int) -> str:
    return f"{backbone}, --steps_per_loop={count}"


# One speed over another, both of one round, and the least that is wanted.
Comparison = tuple[str, str, float | None]
LOOP_COMPARISONS: tuple[Comparison, ...] = (
    (LOOP, BARE, 0.97),
    (LOOP, FIT, 1.0),
    (LOOP, FIT_LOOP, None),
    *((LOOP, name, None) for name in TORCH.values()),
    *((BARE, name, None) for name in TORCH.values()),
)
WORKER_COMPARISONS: tuple[Comparison, ...] = (
    (ONE_WORKER, CPU_CORE, None),
    (WEAK, ONE_WORKER, 1.7),
    (STRONG, ONE_WORKER, None),
    (WEAK_LOCAL, ONE_WORKER, None),
)
_WAITS = {
    WAITING: "share of the time waiting for data, single steps",
    TRACED: "share of the time waiting for data, our loop, traced",
}
_MOST_WAITING = 0.02
_FROZEN_TARGET = 10.0


def loop_comparisons(backbones: Sequence[str], counts: Sequence[int]) -> list[Comparison]:
    """Each number of steps in a loop against the first, which is 1."""
    return [
        (of_loops(backbone, count), of_loops(backbone, counts[0]), None)
        for backbone in dict.fromkeys(backbones)
        for count in counts[1:]
    ]


def speed_rows(part: str, measured: Sequence[Round], batch_size: int) -> list[Row]:
    """Medians over rounds; `ms` is for `batch_size` images, also where a step has more."""
    rows = []
    for system in measured[0] if measured else ():
        if system in _WAITS:
            continue
        speed = statistics.median(one[system] for one in measured)
        ms = round(1000 * batch_size / speed, 2)
        rows.append({"part": part, "system": system, "images_per_s": round(speed, 1), "ms": ms})
    return rows


def check_speeds(measured: Sequence[Round], comparisons: Sequence[Comparison]) -> list[Row]:
    """The ratios of what was measured, each taken within a round, and the share of waiting."""
    checks = []
    for of, to, target in comparisons:
        if measured and of in measured[0] and to in measured[0]:
            ratios = [one[of] / one[to] for one in measured]
            checks.append(_check(f"{of}, against {to}", ratios, target))
    for system, what in _WAITS.items():
        if measured and system in measured[0]:
            shares = [one[system] for one in measured]
            checks.append(_check(what, shares, _MOST_WAITING, "<="))
    return checks


def frozen_rows(runs: Mapping[str, Run]) -> list[Row]:
    """`training_s` counts what else a cache needs done once, as computing features, than the
    first of them does: it is from the line on the model to the last epoch's, and how much later
    than in the first run the former comes."""
    first = next(iter(runs.values()))
    return [
        {
            "part": "frozen",
            "system": f"--cache={cache}",
            "command_s": round(run.command_s, 2),
            "training_s": round(run.training_s + run.setup_s - first.setup_s, 2),
            "epochs_s": round(run.epochs_s, 2),
            "test_accuracy": run.test_accuracy,
        }
        for cache, run in runs.items()
    ]


def check_frozen(rows: Sequence[Row], test_images: int) -> list[Row]:
    """The first cache against the second."""
    slow, fast = rows
    what = f"frozen backbone: {slow['system']} over {fast['system']}"
    names = {"training_s": _FROZEN_TARGET, "epochs_s": None, "command_s": None}
    checks = [
        _check(f"{what}, {name}", [slow[name] / fast[name]], target)
        for name, target in names.items()
    ]
    other = abs(slow["test_accuracy"] - fast["test_accuracy"]) * test_images
    what = "frozen backbone: difference in test images judged right"
    return [*checks, _check(what, [round(other, 3)], 1.0, "<=")]


def _check(what: str, values: Sequence[float], target: float | None, sign: str = ">=") -> Row:
    value = statistics.median(values)
    check = {"what": what, "value": value, "least": min(values), "most": max(values)}
    if target is None:
        return check
    met = value >= target if sign == ">=" else value <= target
    return {**check, "target": f"{sign} {target:g}", "met": met}


def describe(rows: Sequence[Row], checks: Sequence[Row], batch_size: int) -> str:
    """Markdown: speeds, the frozen runs, and the ratios with their targets."""
    speeds = [
        [row["part"], row["system"], f"{row['images_per_s']:,.1f}", f"{row['ms']:,.1f}"]
        for row in rows
        if "ms" in row
    ]
    names = ("system", "command_s", "training_s", "epochs_s", "test_accuracy")
    frozen = [[str(row[name]) for name in names] for row in rows if "command_s" in row]
    ratios = [
        [
            check["what"],
            f"{check['value']:.3g}",
            f"{check['least']:.3g} to {check['most']:.3g}",
            check.get("target", ""),
            {None: "", True: "met", False: "MISSED"}[check.get("met")],
        ]
        for check in checks
    ]
    tables: list[tuple[list[list[str]], Sequence[str]]] = [
        (speeds, ("part", "system", "images/s", f"ms for {batch_size} images")),
        (frozen, names),
        (ratios, ("ratio", "median", "rounds", "target", "")),
    ]
    return "\n\n".join(markdown_table(head, body) for body, head in tables if body)
