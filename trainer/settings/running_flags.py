"""Flags on a run while it runs: host loops, checkpoints, a trace. None changes its results."""

from __future__ import annotations

from absl import flags

flags.DEFINE_integer(
    "steps_per_loop",
    0,
    "Steps between two looks of the host (and moves of the bar). 0: a twentieth of an epoch, at "
    "most 100.",
    lower_bound=0,
)
# Interruptions, see docs/faults.md
flags.DEFINE_integer(
    "checkpoint_every",
    0,
    "Steps between two checkpoints, counted over the whole run. 0: at the ends of epochs only.",
    lower_bound=0,
)
flags.DEFINE_integer(
    "keep_checkpoints", 2, "Checkpoints kept on disk, besides the best weights.", lower_bound=1
)
flags.DEFINE_alias("checkpoint_keep", "keep_checkpoints")
flags.DEFINE_integer(
    "worker_timeout",
    1800,
    "multi_worker: a worker that sees no finished loop of steps or batch of an evaluation for so "
    "many seconds says where it waits and exits with 75. 0: never.",
    lower_bound=0,
)
flags.DEFINE_integer(
    "profile",
    0,
    "Steps to trace, after the first host loop of the first epoch that this process trains. One "
    "line says what bounds them: computing, waiting for images or sums over replicas; the trace in "
    "RUN/profile is for TensorBoard. 0: none.",
    lower_bound=0,
)
