"""All private parts of jax that the TPU check uses; any release may change them.

Written for and tested with jax 0.10.2, which the extra tpu-check pins. If a part is missing, the
check stops and says what to install: without the compiler it would prove nothing.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from typing import Any

from cxr_tfrecords.errors import UserError


@contextlib.contextmanager
def parsed_module(serialized: bytes) -> Iterator[Any]:
    """The StableHLO module of a serialized program, valid within the context.

    Raises:
      UserError: this version of jax lacks a private part that is needed.
    """
    make_context = _part("jax._src.interpreters.mlir", "make_ir_context")
    parse = _part("jax._src.lib.mlir.ir", "Module").parse
    with make_context():
        yield parse(serialized)


def compile_options() -> Any:
    """An empty `CompileOptions`; raises UserError as `parsed_module`."""
    return _part("jax._src.lib.xla_client", "CompileOptions")()


def device_assignment(ids: Any) -> Any:
    """The `DeviceAssignment` of device ids, int [replicas, 1]; raises UserError likewise."""
    return _part("jax._src.lib.xla_client", "DeviceAssignment").create(ids)


def device_list(devices: Any) -> Any:
    """The compiler's own list of devices; raises UserError likewise."""
    return _part("jax._src.lib._jax", "DeviceList")(tuple(devices))


def _part(module: str, name: str) -> Any:
    import jax

    try:
        package, _, last = module.rpartition(".")
        # Some of these modules are attributes of their package and cannot be imported by name.
        owner = getattr(importlib.import_module(package), last, None)
        return getattr(owner or importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise UserError(
            f"jax {jax.__version__} has no {module}.{name}: install the versions of the extra, "
            "pip install '.[tpu-check]'"
        ) from error
