"""Rows, medians and targets of `benchmarks.samplers`."""

from __future__ import annotations

import statistics

PLAIN = "rejection_resample"
PLAIN_LATE = "rejection_resample before decoding"
FOLDER = "image_dataset_from_directory"
CACHES = ("none", "memory")
# (system, epoch) -> images a second, of one round.
Round = dict[tuple[str, int | None], float]
_SAMPLER_TARGETS = {"undersample": 0.95, "oversample": 0.95, "weighted": 0.95, "rejection": 0.9}
_FOLDER_TARGETS = {1: 1.2, 2: 3.0}


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


def describe(rows: list[dict]) -> str:
    lines = [f"{'system':40}{'epoch':>6}{'images/s':>12}{'ratio to none':>15}"]
    for row in rows:
        lines.append(
            f"{row['system']:40}{row['epoch'] or '':>6}{row['images_per_s']:12,.0f}"
            f"{row['ratio_to_none']:15.2f}"
        )
    return "\n".join(lines)
