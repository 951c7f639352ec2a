"""Compiles the training and evaluation steps with the real TPU compiler, without a TPU.

  python -m trainer.tpu_check --backbone=mobilenet_v2 --image_size=96 --batch_size=128 \\
      --topology=v5e:2x2 --mixed_precision=bfloat16

It shows that the steps of `trainer.main` compile for that slice, how much memory they need, and
that TPUs support all their operations. It executes nothing: docs/tpu.md says what remains untested.
Needs `pip install 'cxr-balance[tpu-check]'`; `make tpu-check` sets it up. Exit code 1 if a step
does not compile.
"""

from __future__ import annotations

import importlib.metadata
import os
from typing import Any

from absl import flags

from cxr_tfrecords import files
from cxr_tfrecords.errors import UserError, run_main
from trainer.settings import table
from trainer.settings.config import TrainConfig

FLAGS = flags.FLAGS
flags.DEFINE_list(
    "backbone",
    ["mobilenet_v2"],
    f"One or more of {', '.join(table.BACKBONES)}; all: all of them.",
)
flags.DEFINE_list(
    "topology",
    ["v5e:2x2"],
    "One or more slices of v4, v5e, v5p or v6e chips: v4:2x2x1, v5e:2x2, v5p:2x2x1, v6e:2x2, ….",
)
flags.DEFINE_integer("image_size", 224, "Side of the images in pixels.", lower_bound=1)
flags.DEFINE_integer("channels", 1, "1: gray. 3: colour.", lower_bound=1, upper_bound=3)
flags.DEFINE_integer("num_classes", 4, "Number of classes.", lower_bound=2)
flags.DEFINE_integer("batch_size", 32, "Images in a step, over all chips.", lower_bound=1)
flags.DEFINE_enum(
    "mixed_precision", "float32", table.PRECISIONS, "As in trainer.main; bfloat16 suits TPUs."
)
flags.DEFINE_enum("loss", "cross_entropy", table.LOSSES, "As in trainer.main.")
flags.DEFINE_float("mixup_alpha", 0.0, "As in trainer.main; 0: no mixup.")
flags.DEFINE_enum("batch_norm", "adapt", table.BATCH_NORMS, "As in trainer.main.")
flags.DEFINE_enum("optimizer", "adamax", table.OPTIMIZERS, "As in trainer.main.")
flags.DEFINE_string("trainable", "all", "As in trainer.main.")
flags.DEFINE_bool(
    "max_batch",
    False,
    "Also find the largest batch whose training step fits, to within one eighth.",
)
flags.DEFINE_string("json", "", "File for all results, as JSON. Empty: none.")
flags.DEFINE_string(
    "cache_dir",
    "",
    "Folder that keeps results, so that the same step is not compiled twice. Empty: "
    "~/.cache/cxr-balance/tpu_check.",
)


def configs_from_flags() -> list[TrainConfig]:
    """One config for each backbone; only this function reads the flags of the model."""
    names = table.BACKBONES if FLAGS.backbone == ["all"] else FLAGS.backbone
    shared = ("batch_size", "mixed_precision", "loss", "mixup_alpha", "batch_norm", "optimizer")
    values: dict[str, Any] = {name: FLAGS[name].value for name in (*shared, "trainable")}
    return [TrainConfig(data_dir="", backbone=name, weights="none", **values) for name in names]


def main(argv: list[str]) -> int:
    del argv
    from trainer.tpu import compile_step
    from trainer.tpu.chips import parse_topology

    configs = configs_from_flags()
    topologies = [parse_topology(name) for name in FLAGS.topology]
    try:
        versions = compile_step.versions()
    except importlib.metadata.PackageNotFoundError as error:
        raise UserError(
            f"{error.name} is not installed: pip install -c constraints.txt -e '.[cpu,tpu-check]', "
            "or `make tpu-check`"
        ) from error
    from cxr_tfrecords.console.quiet import quiet_tensorflow

    quiet_tensorflow()
    from trainer.tpu import export_step
    from trainer.tpu.report import NOTE, describe, summarize, to_json
    from trainer.tpu.slices import Checker

    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    cache = FLAGS.cache_dir or os.path.join(home, "cxr-balance", "tpu_check")
    data = export_step.describe_data(FLAGS.image_size, FLAGS.channels, FLAGS.num_classes)
    print(f"{versions}; {NOTE}", flush=True)
    checks = []
    for config in configs:
        checker = Checker(config, data, cache)
        for topology in topologies:
            checks.append(checker.check(topology, max_batch=FLAGS.max_batch))
            print(f"\n{describe(checks[-1])}", flush=True)
    if len(checks) > 1:
        print(f"\n{summarize(checks)}")
    if FLAGS.json:
        files.write_json(FLAGS.json, to_json(checks, versions))
    return 0 if all(check.passed for check in checks) else 1


if __name__ == "__main__":
    run_main(main)
