"""Compiles one exported step with the TPU compiler of libtpu, on a machine without a TPU.

  python -m trainer.tpu.compile_step STEP.stablehlo v5e:2x2 CACHE_DIR RESULT.json

It runs in a separate process for two reasons: libtpu and TensorFlow each bring their own runtime,
and an internal error of the compiler ends its process. Several processes may compile at once.

Results are kept in files. A file's name is a hash of the program (without names and source lines),
the versions of jax and libtpu, and the topology. jax has no public way to compile a program that
it did not make, so its private modules are used; setup.py pins the version this was written for.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
import os
import pathlib
import re
import sys
import tempfile
import time
from typing import Any

from cxr_tfrecords import files
from trainer.tpu import jax_internals
from trainer.tpu.chips import Topology, parse_topology

PACKAGES = ("jax", "libtpu")


@dataclasses.dataclass(frozen=True)
class Compiled:
    """The compiler's figures for the program of one chip.

    Attributes:
      topology: name of the slice.
      reason: why the compiler refused the program; all figures are then zero. Empty if it compiled.
      flops, num_bytes: operations and bytes moved in one step, by the compiler's cost model; the
        bytes include those that stay in on-chip memory.
      arguments, outputs, aliased, temporaries: bytes of HBM. Updated variables overwrite their old
        values; these outputs are counted as aliased.
      all_reduces: number in the optimized program, in which XLA has merged some.
      seconds: time that compiling took.
      versions: see `versions`.
      cached: the result was read from the cache; `seconds` is then that of the earlier run.
    """

    topology: str
    reason: str = ""
    flops: float = 0.0
    num_bytes: float = 0.0
    arguments: int = 0
    outputs: int = 0
    aliased: int = 0
    temporaries: int = 0
    all_reduces: int = 0
    seconds: float = 0.0
    versions: str = ""
    cached: bool = False

    @property
    def hbm(self) -> int:
        """Bytes of HBM that a step needs at the same time."""
        return self.arguments + self.outputs - self.aliased + self.temporaries


def versions() -> str:
    """`jax 0.10.2, libtpu 0.0.52`; raises PackageNotFoundError if one is missing."""
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)


def compile_file(path: str, topology: Topology, cache_dir: str) -> Compiled:
    """Compiles a serialized StableHLO program, or reads the result of an earlier run."""
    with jax_internals.parsed_module(pathlib.Path(path).read_bytes()) as module:
        _drop_copies(module)
        kept = pathlib.Path(cache_dir, f"{_key(module, topology)}.json")
        if kept.exists():
            content = json.loads(kept.read_text(encoding="utf-8"))
            return Compiled(**{**content, "cached": True})
        compiled = _compile(module, topology)
        kept.parent.mkdir(parents=True, exist_ok=True)
        files.write_json(str(kept), dataclasses.asdict(compiled))
        return compiled


def _key(module: Any, topology: Topology) -> str:
    text = module.operation.get_asm(enable_debug_info=False)
    # TensorFlow numbers functions in the order of tracing, so equal steps may differ in numbers.
    text = re.sub(r"_inference_(\w+?)_\d+__", r"_inference_\1__", text)
    content = "\n".join([versions(), topology.name, text])
    return hashlib.sha256(content.encode()).hexdigest()


def _drop_copies(module: Any) -> None:
    """Removes `mhlo.copy`, which TensorFlow writes and libtpu's StableHLO reader does not know.

    It only makes sure that no result shares a buffer with an argument; values stay the same.
    """
    copies = []
    stack = [module.operation]
    while stack:
        operation = stack.pop()
        if operation.name == "mhlo.copy":
            copies.append(operation)
        stack += [
            child.operation for region in operation.regions for block in region for child in block
        ]
    for operation in copies:
        operation.results[0].replace_all_uses_with(operation.operands[0])
        operation.erase()


def _compile(module: Any, topology: Topology) -> Compiled:
    import jax
    import numpy as np
    from jax.experimental import topologies

    described: dict[str, Any] = {"topology": topology.name, "versions": versions()}
    config = topology.chip.chip_config
    dump = tempfile.TemporaryDirectory()
    try:
        slice_ = topologies.get_topology_desc(
            topology.name, "tpu", **({"chip_config_name": config} if config else {})
        )
        devices: Any = slice_.devices
        if len(devices) != topology.num_chips:
            reason = f"{len(devices)} devices for {topology.num_chips} chips"
            return Compiled(reason=reason, **described)
        options = jax_internals.compile_options()
        options.num_replicas = len(devices)
        build = options.executable_build_options
        build.num_replicas = len(devices)
        ids = np.array([[device.id] for device in devices])
        # The optimized program is read from a file that the compiler writes, because jaxlib fails
        # to read some programs for v5p and v6e (RET_CHECK async-update, jaxlib 0.10.2).
        build.debug_options.xla_dump_to = dump.name
        build.debug_options.xla_dump_hlo_as_text = True
        build.device_assignment = jax_internals.device_assignment(ids)
        start = time.monotonic()
        program = devices[0].client.compile(module, jax_internals.device_list(devices), options)
    except jax.errors.JaxRuntimeError as error:
        return Compiled(reason=_reason(str(error)), **described)
    seconds = time.monotonic() - start
    memory = program.get_compiled_memory_stats()
    cost = program.cost_analysis()
    cost = cost[0] if isinstance(cost, list) else cost
    with dump:
        (optimized,) = pathlib.Path(dump.name).glob("*.after_optimizations.txt")
        text = optimized.read_text(encoding="utf-8")
    return Compiled(
        flops=cost["flops"],
        num_bytes=cost["bytes accessed"],
        arguments=memory.argument_size_in_bytes,
        outputs=memory.output_size_in_bytes,
        aliased=memory.alias_size_in_bytes,
        temporaries=memory.temp_size_in_bytes,
        all_reduces=len(re.findall(r" all-reduce(?:-start)?\(", text)),
        seconds=round(seconds, 1),
        **described,
    )


def _reason(message: str) -> str:
    """The compiler's message, without its table of the largest buffers."""
    lines = [line.strip() for line in message.strip().splitlines() if line.strip()]
    return " ".join(lines[:2])[:300]


def main() -> None:
    path, name, cache_dir, result = sys.argv[1:]
    # The caller removes this folder, even if this process crashes.
    tempfile.tempdir = os.path.dirname(path)
    topology = parse_topology(name)
    os.environ.update(
        JAX_PLATFORMS="cpu",
        TPU_SKIP_MDS_QUERY="1",  # else libtpu asks a metadata server, which does not exist
        TPU_ACCELERATOR_TYPE=topology.chip.accelerator_type,
        TPU_WORKER_HOSTNAMES="localhost",
        ALLOW_MULTIPLE_LIBTPU_LOAD="1",  # else a second process aborts; none uses a TPU
    )
    compiled = compile_file(path, topology, cache_dir)
    files.write_json(result, dataclasses.asdict(compiled))


if __name__ == "__main__":
    main()
