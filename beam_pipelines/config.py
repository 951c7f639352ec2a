"""What shapes the bytes of a build, and nothing else."""

from __future__ import annotations

import dataclasses
from typing import Any

from cxr_tfrecords.errors import UserError


@dataclasses.dataclass(frozen=True)
class BuildConfig:
    """The settings that a finished directory must match to be resumed.

    Runner, worker and thread counts are left out on purpose: they never change a byte.

    Attributes:
      image_size: side in pixels; images become square.
      encoding: `png` (lossless, level 1), `raw` bytes or `jpeg` (quality 95, lossy).
      channels: 1 gray, 3 RGB.
      test_fraction: of all images; validation_fraction: of the rest. Both within (0, 1).
      split: `stratified` or `hash`, see `cxr_tfrecords.splits.assign_splits`.
      seed: of the split and of the order inside shards.
      num_shards: shards of each split and class; 0: as many as `shard_size` asks.
      shard_size: images in a shard, at most.
      max_pixels: larger sources are rejected before they are decoded.
    """

    image_size: int = 224
    encoding: str = "png"
    channels: int = 1
    test_fraction: float = 0.2
    validation_fraction: float = 0.2
    split: str = "stratified"
    seed: int = 0
    num_shards: int = 0
    shard_size: int = 1024
    max_pixels: int = 64_000_000

    def __post_init__(self) -> None:
        for name in ("test_fraction", "validation_fraction"):
            if not 0 < getattr(self, name) < 1:
                raise UserError(
                    f"--{name}={getattr(self, name)} must lie between 0 and 1, both excluded"
                )
        for name in ("image_size", "shard_size", "max_pixels"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name}={getattr(self, name)} must be at least 1")
        if self.num_shards < 0:
            raise UserError(f"--num_shards={self.num_shards} must be 0 (by size) or more")

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def differences(self, other: dict[str, Any]) -> list[str]:
        """Lines `--flag: theirs -> ours` for each setting that differs from another build's."""
        own = self.to_json()
        return [
            f"--{name}: {other.get(name, 'absent')} -> {own.get(name, 'absent')}"
            for name in sorted(own.keys() | other.keys())
            if own.get(name) != other.get(name)
        ]
