"""Audits the traced graph of a step for what a TPU cannot run.

`ops.txt` lists the operations for which TensorFlow 2.20 has an XLA:TPU kernel (device XLA_TPU_JIT
of the tensorflow-tpu 2.20.0 wheel).
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib

import tensorflow as tf

from trainer.models.tf_internals import called_graphs

_OPS = pathlib.Path(__file__).with_name("ops.txt")
# Arguments of the traced function, which are not operations of the compiled step.
_ARGUMENTS = {"Placeholder"}
# Parts of the names of operations that leave the device during a step, even if they have kernels.
_HOST = ("PyFunc", "HostCompute", "ToHost", "FromHost", "Outfeed", "Infeed", "XlaSend", "XlaRecv")


@dataclasses.dataclass(frozen=True)
class Audit:
    """The result of an audit; the three tuples are empty if the step can run on a TPU.

    Attributes:
      num_ops: number of different operations in the step.
      unsupported: operations without a TPU kernel.
      host: operations that call back to the host.
      dynamic: tensors whose shape is unknown when the step is compiled, as `name: shape`.
    """

    num_ops: int
    unsupported: tuple[str, ...]
    host: tuple[str, ...]
    dynamic: tuple[str, ...]

    @property
    def clean(self) -> bool:
        return not (self.unsupported or self.host or self.dynamic)

    def problems(self) -> list[str]:
        """One line for each kind of problem."""
        kinds = {
            "ops that TPUs lack": self.unsupported,
            "host callbacks": self.host,
            "shapes not static": self.dynamic,
        }
        return [f"{kind}: {', '.join(names)}" for kind, names in kinds.items() if names]


@functools.cache
def supported_ops() -> frozenset[str]:
    """Names of operations with an XLA:TPU kernel."""
    return frozenset(_OPS.read_text(encoding="utf-8").split())


def audit(function: tf.types.experimental.ConcreteFunction) -> Audit:
    """Audits a traced function and all functions that it calls, including loops and branches."""
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
