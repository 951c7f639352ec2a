"""Flags on where a training runs, and on what many devices ask for."""

from __future__ import annotations

from absl import flags

from trainer.settings import config as settings

flags.DEFINE_enum(
    "strategy",
    "cpu",
    settings.STRATEGIES,
    "cpu: this machine's processor, reproducible bit for bit. mirrored: all its GPUs, or "
    "--virtual_devices. multi_worker: the processes named by TF_CONFIG, by SLURM (srun) or by an "
    "indexed Kubernetes Job; the same command on each. tpu: a TPU, see --tpu. auto: what of these "
    "is there, best first.",
)
flags.DEFINE_string("tpu", "local", "local: the TPU of this TPU VM. Else a TPU's name or address.")
flags.DEFINE_integer(
    "virtual_devices",
    0,
    "With mirrored: rehearse on the CPU split in so many devices. 0: use GPUs.",
    lower_bound=0,
)
flags.DEFINE_bool(
    "sync_batch_norm",
    True,
    "With several devices: normalise by the moments of the whole batch, so that results do not "
    "depend on their number. False: by those of each device's part, which saves one exchange a "
    "layer and step; the statistics are averaged over devices before evaluation and checkpoints.",
)
flags.DEFINE_enum(
    "learning_rate_scaling",
    "none",
    settings.LEARNING_RATE_SCALINGS,
    "none: --learning_rate as it is. linear: times --batch_size / --learning_rate_base_batch. "
    "sqrt: times its square root.",
)
flags.DEFINE_integer(
    "learning_rate_base_batch",
    32,
    "The batch size that --learning_rate was chosen for.",
    lower_bound=1,
)
flags.DEFINE_integer(
    "warmup_steps",
    0,
    "Steps in which the learning rate rises evenly from almost 0 to its value. 0: none.",
    lower_bound=0,
)
flags.DEFINE_string(
    "data_service",
    "",
    "With --cache=none: machines that decode the training images, for hosts that cannot feed their "
    "accelerator; HOST:PORT of each, with commas, where `python -m trainer.decode_server` runs. "
    "local: rehearse it inside this process. Empty: this process decodes. Results are the same.",
)
