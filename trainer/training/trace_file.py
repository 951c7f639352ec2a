"""Where the time of training steps goes, measured from a trace by TensorFlow's profiler.

    with trace_file.session(logdir):
        with trace_file.host_loop(step):
            trainer.train_steps(batches, count)
            trainer.learner.meters.read()  # waits until a GPU has finished
    shares = trace_file.measure_shares(logdir)

Every moment of a traced host loop is counted once, as the first of these that applies:

  compute    an operation of the training step runs, in any replica. On a CPU: its operations on the
             host, not those of tf.data's functions, which read and decode. With a GPU or TPU: what
             its own timeline shows, and the host's operations do not count.
  reduction  a sum over replicas is being computed: gradients, the moments of synchronised
             BatchNormalization, the loss. Waiting for a slower replica or worker is part of it.
  input      a replica waits for its part of a batch, or copies it to its GPU.
  rest       none of these: TensorFlow between two operations, operations too short to be recorded,
             the host between two calls, processors that other programs use.

So `compute` hides what happens at the same time. Reading that takes processors away from computing
makes `compute` longer, and a replica that waits while another computes does not count as waiting.
With several workers, only the chief's process is measured. The timelines of GPUs and TPUs are
recognised by the names that TensorFlow gives them; this has not been run on such a device.
"""

from __future__ import annotations

import contextlib
import dataclasses
import glob
import os
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

_LOOP = "host_loop"
_PROCESS = "ExecutorState::Process"
_GET_NEXT = re.compile(r"IteratorGetNext\w*Op::DoCompute")
_OPERATION = re.compile(r"[^:\s]+:(\w+)")  # name:type
# These only contain other operations, or wait for a batch, which _GET_NEXT counts.
_CONTAINER = re.compile(r"\w*(PartitionedCall|While|If|Case|RemoteCall|IteratorGetNext\w*)")
# Sums over replicas: names of host operations, of NVIDIA's kernels, of XLA's operations.
_SUM = re.compile(r"Collective|Nccl|nccl|all-reduce|all-gather|reduce-scatter")
_DEVICE_LINES = ("Stream", "XLA Ops")  # a device's other lines are summaries of these
_WORDS = {
    "compute": "compute",
    "input": "input (waiting for images)",
    "reduction": "reduction (sums over replicas)",
    "rest": "rest",
}


@dataclasses.dataclass(frozen=True)
class Shares:
    """Where the time of a trace went.

    Attributes:
      compute, input, reduction, rest: shares of `seconds`, see the module; their sum is 1.
      seconds: length of all host loops of a trace, without the time between them.
    """

    compute: float
    input: float
    reduction: float
    rest: float
    seconds: float

    @property
    def bound(self) -> str:
        """Name of the largest share."""
        return max(_WORDS, key=lambda name: getattr(self, name))

    def describe(self) -> str:
        """`compute 97.1%, …, rest 2.1%: bound by compute`."""
        parts = (f"{word} {getattr(self, name):.1%}" for name, word in _WORDS.items())
        bound = "none of the three" if self.bound == "rest" else self.bound
        return f"{', '.join(parts)}: bound by {bound}"


@contextlib.contextmanager
def session(logdir: str) -> Iterator[None]:
    """Traces into a new folder LOGDIR/plugins/profile/TIME; nothing is kept on an error."""
    # 2: operations, but not each line of Python.
    options = tf.profiler.experimental.ProfilerOptions(host_tracer_level=2, python_tracer_level=0)
    tf.profiler.experimental.start(logdir, options)
    saved = False
    try:
        yield
        saved = True
    finally:
        tf.profiler.experimental.stop(save=saved)


def host_loop(step: int) -> contextlib.AbstractContextManager:
    """Marks a host loop for `measure_shares`; TensorBoard shows `step`, counted over the run."""
    return tf.profiler.experimental.Trace(_LOOP, step_num=step, _r=1)


def measure_shares(logdir: str) -> Shares:
    """Shares of the newest trace below a directory.

    Raises:
      ValueError: there is no trace, or no host loop in it.
    """
    paths = glob.glob(os.path.join(logdir, "plugins", "profile", "*", "*.xplane.pb"))
    if not paths:
        raise ValueError(f"no trace in {logdir}")
    intervals = _read_intervals(max(paths, key=os.path.getmtime))
    if not len(intervals["window"]):
        raise ValueError(f"no host loop in the trace in {logdir}")
    lengths = split_time(**intervals)
    total = sum(lengths.values())
    return Shares(**{name: n / total for name, n in lengths.items()}, seconds=total / 1e9)


def split_time(
    window: np.ndarray, compute: np.ndarray, reduction: np.ndarray, input: np.ndarray
) -> dict[str, int]:
    """Divides the length of `window` among the others, each moment to the first that covers it;
    `rest`: moments that none covers.

    Args:
      window, …: int64 [n, 2], starts and ends in nanoseconds, in any order; they may overlap.
    """
    cuts = np.unique(np.concatenate([window, compute, reduction, input]))
    left, lengths = _covered(window, cuts), {}
    for name, intervals in (("compute", compute), ("reduction", reduction), ("input", input)):
        here = left & _covered(intervals, cuts)
        lengths[name] = int(np.diff(cuts)[here].sum())
        left &= ~here
    return lengths | {"rest": int(np.diff(cuts)[left].sum())}


def _covered(intervals: np.ndarray, cuts: np.ndarray) -> np.ndarray:
    """bool [len(cuts) - 1]: whether an interval, which begins and ends at cuts, covers each gap."""
    begun, ended = (
        np.bincount(np.searchsorted(cuts, points), minlength=len(cuts)) for points in intervals.T
    )
    return np.cumsum(begun - ended)[:-1] > 0


def _read_intervals(path: str) -> dict[str, np.ndarray]:
    """The arguments of `split_time` from a trace, in nanoseconds."""
    # Imported here, so that training without --profile does not need this part of TensorFlow.
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    with open(path, "rb") as file:
        planes = xplane_pb2.XSpace.FromString(file.read()).planes
    intervals: dict[str, list] = defaultdict(list)
    for plane in planes:
        if plane.name.startswith("/device:"):
            _read_device(plane, intervals)
    on_device = bool(intervals["compute"])
    for plane in planes:
        if plane.name.startswith("/host:"):
            _read_host(plane, intervals, operations=not on_device)
    names = ("window", "compute", "reduction", "input")
    return {name: np.array(intervals[name], np.int64).reshape(-1, 2) for name in names}


def _read_device(plane: Any, intervals: Mapping[str, list]) -> None:
    for line in plane.lines:
        if line.name.startswith(_DEVICE_LINES):
            for event in line.events:
                name = plane.event_metadata[event.metadata_id].name
                copied = name.startswith("MemcpyH2D")
                kind = "input" if copied else "reduction" if _SUM.search(name) else "compute"
                intervals[kind].append(_interval(line, event))


def _read_host(plane: Any, intervals: Mapping[str, list], *, operations: bool) -> None:
    """Adds the host's intervals; those of operations that compute only with `operations`."""
    kinds = {key: _host_kind(value.name) for key, value in plane.event_metadata.items()}
    steps, by_line = set(), []
    for line in plane.lines:
        of_line: dict[str, list] = defaultdict(list)
        for event in line.events:
            kind = kinds[event.metadata_id]
            if kind == "process":
                of_line[kind].append((*_interval(line, event), _step_id(plane, event)))
            elif kind:
                of_line[kind].append(_interval(line, event))
                if kind == "input":
                    steps.add(_step_id(plane, event))
        for kind in ("window", "reduction", "input"):
            intervals[kind] += of_line[kind]
        by_line.append(of_line)
    # An operation does not name its function call, but the executor that runs it in the same
    # thread does.
    for of_line in by_line if operations else []:
        of_steps = [(start, end) for start, end, step in of_line["process"] if step in steps]
        if of_steps and of_line["compute"]:
            computed, ran = np.array(of_line["compute"]), np.array(of_steps)
            cuts = np.unique(np.concatenate([computed, ran]))
            both = _covered(computed, cuts) & _covered(ran, cuts)
            intervals["compute"] += zip(cuts[:-1][both], cuts[1:][both], strict=True)


def _host_kind(name: str) -> str | None:
    if name in (_LOOP, _PROCESS):
        return "window" if name == _LOOP else "process"
    if _GET_NEXT.fullmatch(name):
        return "input"
    operation = _OPERATION.fullmatch(name)
    if operation is None or _CONTAINER.fullmatch(operation[1]):
        return None
    return "reduction" if _SUM.match(operation[1]) else "compute"


def _interval(line: Any, event: Any) -> tuple[int, int]:
    start = line.timestamp_ns * 1000 + event.offset_ps
    return start // 1000, (start + event.duration_ps) // 1000


def _step_id(plane: Any, event: Any) -> int | None:
    """Which call of a function an event belongs to."""
    for stat in event.stats:
        if plane.stat_metadata[stat.metadata_id].name == "id":
            return getattr(stat, stat.WhichOneof("value"))
    return None
