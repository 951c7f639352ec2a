"""What a step may not hold if it is to run on a TPU, read from its traced graph.

`ops.txt` has the names of the operations that TensorFlow 2.20 has XLA:TPU kernels for
(device XLA_TPU_JIT of the tensorflow-tpu 2.20.0 wheel).
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib

import tensorflow as tf

from trainer.models.tf_internals import called_graphs

_OPS = pathlib.Path(__file__).with_name("ops.txt")
# Arguments of the traced function: no operation of the compiled step.
_ARGUMENTS = {"Placeholder"}
# Those that leave the device in the middle of a step, whatever kernels there are for them.
_HOST = ("PyFunc", "HostCompute", "ToHost", "FromHost", "Outfeed", "Infeed", "XlaSend", "XlaRecv")


@dataclasses.dataclass(frozen=True)
class Audit:
    """What was found; all empty if the step may run on a TPU.

    Attributes:
      unsupported: operations without a TPU kernel.
      host: operations that call back to the host.
      dynamic: tensors whose shape is not known when it is compiled, as `name: shape`.
    """

    num_ops: int
    unsupported: tuple[str, ...]
    host: tuple[str, ...]
    dynamic: tuple[str, ...]

    @property
    def clean(self) -> bool:
        return not (self.unsupported or self.host or self.dynamic)

    def problems(self) -> list[str]:
        """One line a kind."""
        named = {
            "ops that TPUs lack": self.unsupported,
            "host callbacks": self.host,
            "shapes not static": self.dynamic,
        }
        return [f"{kind}: {', '.join(found)}" for kind, found in named.items() if found]


@functools.cache
def supported_ops() -> frozenset[str]:
    """Names of operations with an XLA:TPU kernel."""
    return frozenset(_OPS.read_text(encoding="utf-8").split())


def audit(function: tf.types.experimental.ConcreteFunction) -> Audit:
    """Audits a traced function with all functions that it calls, loops and branches included."""
    operations = [op for graph in called_graphs(function) for op in graph.get_operations()]
    kinds = {op.type for op in operations} - _ARGUMENTS
    outside = {op.type for op in operations if "_xla_outside_compilation" in op.node_def.attr}
    host = {kind for kind in kinds if any(word in kind for word in _HOST)} | outside
    return Audit(
        num_ops=len(kinds),
        unsupported=tuple(sorted(kinds - supported_ops())),
        host=tuple(sorted(host)),
        dynamic=tuple(
            f"{tensor.name}: {tensor.shape}"
            for op in operations
            for tensor in op.outputs
            if not tensor.shape.is_fully_defined()
        ),
    )
