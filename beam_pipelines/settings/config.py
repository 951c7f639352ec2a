"""What shapes the bytes of a build, and nothing else."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Any

from cxr_tfrecords import __version__, enhance, images, near_duplicates, splits
from cxr_tfrecords.errors import UserError

DEDUPS = ("keep", "drop", "off")
CONFLICTS = ("keep", "drop", "error")
# Settings that decide what the first pass makes of a file; the others only move its record.
_INSPECTION = (
    *("image_size", "encoding", "channels", "enhance", "max_pixels", "with_masks"),
    *("patient_ids", "salt_id"),
)


@dataclasses.dataclass(frozen=True)
class BuildConfig:
    """The settings that a finished directory must match to be resumed.

    Runner, worker and thread counts are left out on purpose: they never change a byte.

    Attributes:
      image_size: side in pixels; images become square.
      encoding: `png` (lossless), `raw` bytes or `jpeg` (quality 95, lossy).
      channels: 1 gray, 3 RGB.
      enhance: contrast enhancement after resizing, see `cxr_tfrecords.enhance`.
      with_masks: store each image's lung mask beside it.
      test_fraction: of all images; validation_fraction: of the rest. Both within (0, 1).
      split: `stratified` or `hash`, see `cxr_tfrecords.splits.assign_splits`.
      seed: of the split and of the order inside shards.
      dedup: what happens to copies: `keep` them in one split, `drop` all but the first, or
        `off`: look for none.
      near_distance: images whose perceptual hashes differ in at most so many bits of 256 count
        as copies; -1: only identical pixels do.
      label_conflicts: copies in several classes: `keep`, `drop` or `error`.
      balance_splits: splits that are cut to the size of their smallest class.
      patient_ids: unite images by the patient that DICOM files name.
      salt_id: tells another `--group_salt` without telling the salt.
      num_shards: shards of each split and class; 0: as many as `shard_size` asks.
      shard_size: images in a shard, at most.
      max_pixels: larger sources are rejected before they are decoded.
    """

    image_size: int = 224
    encoding: str = "png"
    channels: int = 1
    enhance: str = "none"
    with_masks: bool = False
    test_fraction: float = 0.2
    validation_fraction: float = 0.2
    split: str = "stratified"
    seed: int = 0
    dedup: str = "keep"
    near_distance: int = near_duplicates.DEFAULT_MAX_DISTANCE
    label_conflicts: str = "keep"
    balance_splits: tuple[str, ...] = ()
    patient_ids: bool = True
    salt_id: str = ""
    num_shards: int = 0
    shard_size: int = 1024
    max_pixels: int = images.DEFAULT_MAX_PIXELS

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
        if not -1 <= self.near_distance <= 64:
            raise UserError(
                f"--near_distance={self.near_distance} must lie within 0 and 64 bits, or be -1: "
                "identical pixels only"
            )
        if self.enhance not in enhance.METHODS:
            raise UserError(f"--enhance={self.enhance} is none of {', '.join(enhance.METHODS)}")
        wrong = set(self.balance_splits) - set(splits.SPLITS)
        if wrong or splits.TRAIN in self.balance_splits:
            raise UserError(
                f"--balance_splits={','.join(self.balance_splits)} can hold validation and test; "
                "the training stream is balanced when training (trainer.main --sampler)"
            )

    def to_json(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "balance_splits": list(self.balance_splits)}

    def inspection_settings(self) -> dict[str, Any]:
        """What decides the records of the first pass, the software's version included."""
        return {"version": __version__, **{name: getattr(self, name) for name in _INSPECTION}}

    def differences(self, other: Mapping[str, Any]) -> list[str]:
        """Lines `--flag: theirs -> ours` for each setting that differs from another build's."""
        own = self.to_json()
        shown = {"salt_id": "group_salt"}
        return [
            f"--{shown.get(name, name)}: {other.get(name, 'absent')} -> {own.get(name, 'absent')}"
            for name in sorted(own.keys() | other.keys())
            if own.get(name) != other.get(name)
        ]


def salt_id(salt: str) -> str:
    """Six hex digits that tell one salt from another."""
    return hashlib.blake2b(salt.encode(), digest_size=3, person=b"cxr-salt-id").hexdigest()
