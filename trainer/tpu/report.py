"""The results of TPU checks, as text, Markdown and JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from cxr_tfrecords.pages import markdown
from trainer.tpu.chips import Topology, roofline
from trainer.tpu.compile_step import Compiled
from trainer.tpu.host_ops import Audit

NOTE = (
    "images/s are a roofline estimate from the compiler's own counts, not a measurement: nothing "
    "was executed. Per chip unless it says slice."
)
_HEADER = (
    *("step", "result", "GFLOP", "GB moved", "HBM args", "temps", "MiB total", "of chip"),
    *("all-reduces", "bound", "images/s", "slice"),
)
_SUMMARY_HEADER = (
    *("backbone", "px", "slice", "batch", "steps compiled", "GFLOP/step/chip", "HBM MiB/chip"),
    *("of chip", "all-reduces", "est. images/s/chip", "est. slice"),
)


@dataclasses.dataclass(frozen=True)
class StepCheck:
    """One step on one slice; `compiled` is None if the audit already refused the step."""

    step: str
    audit: Audit
    compiled: Compiled | None

    @property
    def passed(self) -> bool:
        return self.audit.clean and self.compiled is not None and not self.compiled.reason

    @property
    def outcome(self) -> str:
        if self.compiled is None:
            return "not tried"
        if self.compiled.reason:
            return "refused"
        return "cached" if self.compiled.cached else f"compiled {self.compiled.seconds:.0f} s"


@dataclasses.dataclass(frozen=True)
class SliceCheck:
    """All steps of one backbone on one slice.

    Attributes:
      batch_size: images in a step, over all chips.
      max_batch: the largest batch that fits and the smallest that was refused; None if they were
        not searched for.
    """

    backbone: str
    image_size: int
    precision: str
    batch_size: int
    topology: Topology
    steps: tuple[StepCheck, ...]
    max_batch: tuple[int, int] | None = None

    @property
    def passed(self) -> bool:
        return all(step.passed for step in self.steps)

    def images_per_second(self, compiled: Compiled) -> float:
        """Estimated images/s of one chip."""
        line = roofline(self.topology.chip, compiled.flops, compiled.num_bytes)
        return self.batch_size / self.topology.num_chips / line.seconds


def describe(check: SliceCheck) -> str:
    """The table of one slice, and below it each refusal with its reason."""
    topology = check.topology
    head = (
        f"{check.backbone}, {check.image_size} px, {check.precision}, {topology.name}: batch "
        f"{check.batch_size}, {check.batch_size // topology.num_chips} on each of "
        f"{topology.num_chips} chips"
    )
    table = markdown.markdown_table(_HEADER, [_step_row(check, step) for step in check.steps])
    lines = [head, table]
    for step in check.steps:
        lines += [f"{step.step}: {problem}" for problem in step.audit.problems()]
        if step.compiled is not None and step.compiled.reason:
            lines.append(f"{step.step} refused: {step.compiled.reason}")
    if all(step.audit.clean for step in check.steps):
        lines.append("ops that TPUs lack: 0; host callbacks: 0; shapes not static: 0")
    if check.max_batch:
        fits, refused = check.max_batch
        lines.append(f"largest batch that fits: {fits} ({refused} is refused)")
    return "\n".join(lines)


def _step_row(check: SliceCheck, step: StepCheck) -> list[str]:
    compiled = step.compiled
    if compiled is None or compiled.reason:
        return [step.step, step.outcome, *["-"] * 10]
    chip = check.topology.chip
    rate = check.images_per_second(compiled)
    return [
        step.step,
        step.outcome,
        f"{compiled.flops / 1e9:,.1f}",
        f"{compiled.num_bytes / 1e9:,.2f}",
        _mib(compiled.arguments),
        _mib(compiled.temporaries),
        _mib(compiled.hbm),
        f"{compiled.hbm / chip.hbm:.1%}",
        str(compiled.all_reduces),
        roofline(chip, compiled.flops, compiled.num_bytes).bound,
        f"{rate:,.0f}",
        f"{rate * check.topology.num_chips:,.0f}",
    ]


def summarize(checks: Sequence[SliceCheck]) -> str:
    """A Markdown table with the training step of each backbone and slice, as in docs/tpu.md."""
    rows = []
    for check in checks:
        train = check.steps[0]
        figures = _step_row(check, train)
        done = sum(step.passed for step in check.steps)
        rows.append(
            [
                check.backbone,
                str(check.image_size),
                check.topology.name,
                str(check.batch_size),
                f"{done} of {len(check.steps)}",
                *(figures[index] for index in (2, 6, 7, 8, 10, 11)),
            ]
        )
    return markdown.plain_table(_SUMMARY_HEADER, rows)


def to_json(checks: Sequence[SliceCheck], versions: str) -> dict[str, Any]:
    """All results; `estimated` holds figures that are computed from the compiler's counts."""
    return {"versions": versions, "checks": [_slice_json(check) for check in checks]}


def _slice_json(check: SliceCheck) -> dict[str, Any]:
    steps = {}
    for step in check.steps:
        content: dict[str, Any] = {"passed": step.passed, "audit": dataclasses.asdict(step.audit)}
        compiled = step.compiled
        if compiled is not None:
            content["compiled"] = dataclasses.asdict(compiled) | {"hbm": compiled.hbm}
            if not compiled.reason:
                chip = check.topology.chip
                line = roofline(chip, compiled.flops, compiled.num_bytes)
                rate = check.images_per_second(compiled)
                content["estimated"] = {
                    **dataclasses.asdict(line),
                    "images_per_second_per_chip": rate,
                    "images_per_second": rate * check.topology.num_chips,
                }
        steps[step.step] = content
    return {
        "backbone": check.backbone,
        "image_size": check.image_size,
        "mixed_precision": check.precision,
        "batch_size": check.batch_size,
        "topology": dataclasses.asdict(check.topology),
        "chip": dataclasses.asdict(check.topology.chip),
        "passed": check.passed,
        "max_batch": check.max_batch,
        "steps": steps,
    }


def _mib(num_bytes: float) -> str:
    return f"{num_bytes / 2**20:,.0f}" if num_bytes >= 10 * 2**20 else f"{num_bytes / 2**20:,.1f}"
