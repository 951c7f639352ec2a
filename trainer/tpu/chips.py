"""TPU chips and slices: the limits that a compiled step is compared with.

Figures per chip are from Google's documentation of each generation, pages
https://docs.cloud.google.com/tpu/docs/v4, /v5e, /v5p and /v6e ("key chip specifications").
"""

from __future__ import annotations

import dataclasses
import math
import re

from cxr_tfrecords.errors import UserError


@dataclasses.dataclass(frozen=True)
class Chip:
    """One generation of chips.

    Attributes:
      peak: FLOP/s in bfloat16.
      hbm: bytes of high-bandwidth memory (HBM).
      bandwidth: of the HBM, bytes/s.
      dimensions: of the torus that connects the chips.
      accelerator_type: a value of TPU_ACCELERATOR_TYPE, which libtpu needs. Any known value will
        do, because nothing is executed.
      chip_config: libtpu's name for the setting in which a chip is one device. Without it, the two
        cores of a v4 chip are two devices; Cloud TPUs and TPUStrategy use them as one ("megacore").
    """

    peak: float
    hbm: float
    bandwidth: float
    dimensions: int
    accelerator_type: str
    chip_config: str | None = None


# The documentation says GiB for v4 and GB for the others. The compiler's own limit on v5e is 15.75
# GiB, more than 16 * 10^9 bytes, so GiB are meant.
CHIPS = {
    "v4": Chip(275e12, 32 * 2**30, 1200e9, 3, "v4-8", "megacore"),
    "v5e": Chip(197e12, 16 * 2**30, 819e9, 2, "v5litepod-4"),
    "v5p": Chip(459e12, 95 * 2**30, 2765e9, 3, "v5p-8"),
    "v6e": Chip(918e12, 32 * 2**30, 1638e9, 2, "v6e-4"),
}


@dataclasses.dataclass(frozen=True)
class Topology:
    """A slice of chips, such as `v5e:2x2`; each chip runs one replica."""

    name: str
    generation: str
    num_chips: int

    @property
    def chip(self) -> Chip:
        return CHIPS[self.generation]


def parse_topology(name: str) -> Topology:
    """Reads the name of a slice: `v5e:2x2`, `v5p:2x2x1`, …

    Raises:
      UserError: the generation is unknown or has another number of dimensions.
    """
    generation, _, shape = name.partition(":")
    if generation not in CHIPS:
        raise UserError(f"--topology={name}: {generation!r} is not one of {', '.join(CHIPS)}")
    dimensions = CHIPS[generation].dimensions
    example = f"{generation}:{'2x2' if dimensions == 2 else '2x2x1'}"
    if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", shape) or shape.count("x") + 1 != dimensions:
        raise UserError(
            f"--topology={name} needs {dimensions} sizes after the colon, as in {example}"
        )
    return Topology(name, generation, math.prod(int(size) for size in shape.split("x")))


@dataclasses.dataclass(frozen=True)
class Roofline:
    """The least time that a step can take, by the compiler's counts.

    It is an estimate, because nothing was executed (Williams et al., Roofline, 2009).

    Attributes:
      seconds: of a step.
      bound: `compute` or `memory`, whichever takes longer.
    """

    seconds: float
    bound: str


def roofline(chip: Chip, flops: float, num_bytes: float) -> Roofline:
    """The roofline of one chip's part of a step: the longer of computing and memory traffic.

    Communication between chips and reading of images are left out.

    Args:
      flops: floating-point operations of the step; num_bytes: bytes that it moves.
    """
    compute, memory = flops / chip.peak, num_bytes / chip.bandwidth
    return Roofline(max(compute, memory), "compute" if compute >= memory else "memory")
