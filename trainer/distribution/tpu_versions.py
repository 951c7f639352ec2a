"""Whether the installed packages can use a TPU.

This is checked before TensorFlow is imported, because with a wrong libtpu the process aborts
without a message.
"""

from __future__ import annotations

import glob
import importlib.metadata
import re
from collections.abc import Mapping

from cxr_tfrecords.errors import UserError

# tensorflow-tpu 2.20.0 works with this libtpu and older ones. From 0.0.46 on, libtpu lacks
# functions that it calls.
NEWEST_LIBTPU = "0.0.43.2"
_BROKEN_FROM = (0, 0, 46)
_PACKAGES = ("tensorflow-tpu", "libtpu")


def installed_versions() -> dict[str, str | None]:
    """Versions of tensorflow-tpu and libtpu; None if not installed."""
    versions: dict[str, str | None] = {}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return versions


def check_libtpu(versions: Mapping[str, str | None]) -> None:
    """Raises UserError if tensorflow-tpu would abort with the installed libtpu."""
    tensorflow, libtpu = (versions[name] for name in _PACKAGES)
    if tensorflow is None:
        return  # another TensorFlow, which reports by itself that it finds no TPU
    if libtpu is None or _parts(libtpu) >= _BROKEN_FROM:
        problem = "is not installed" if libtpu is None else f"{libtpu} does not match"
        raise UserError(
            f"--strategy=tpu: libtpu {problem} (tensorflow-tpu is {tensorflow}): pip install "
            f"'libtpu<={NEWEST_LIBTPU}'"
        )


def has_local_tpu(environment: Mapping[str, str]) -> bool:
    """Whether this is a TPU VM, which has devices /dev/accel0, … or (newer ones) /dev/vfio/0, …"""
    if glob.glob("/dev/accel[0-9]*"):
        return True
    return "TPU_ACCELERATOR_TYPE" in environment and bool(glob.glob("/dev/vfio/[0-9]*"))


def _parts(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version))
