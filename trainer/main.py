"""Trains a classifier of radiographs on a dataset directory and evaluates it exactly.

  python -m trainer.main --data_dir=DATA --run_dir=RUN --strategy=cpu --backbone=mobilenet_v2 \\
      --weights=FILE.h5 --sampler=oversample

Without flags it trains the small `tiny` network on the embedded synthetic radiographs. The run
directory gets the model (model.keras), every prediction on validation and test, the metrics
computed from them, the history, pictures and report.md. The same command on the same --run_dir
goes on after the last checkpoint, with results as if it had never stopped. Exit codes: 0 done, 2 a
mistake to mend, 3 the loss became NaN or infinite, 75 interrupted (SIGTERM, a lost worker): run the
same command again.
"""

from __future__ import annotations

import os

from absl import flags, logging

from cxr_tfrecords.errors import UserError, run_main
from cxr_tfrecords.settings import define_flags, flag_values
from trainer.settings.config import TrainConfig
from trainer.settings.table import DEFAULT_DATA
from trainer.training import start

FLAGS = flags.FLAGS
define_flags(TrainConfig)


def main(argv: list[str]) -> None:
    del argv
    config = TrainConfig(**flag_values(TrainConfig))
    if config.data_dir == DEFAULT_DATA and not os.path.exists(DEFAULT_DATA):
        raise UserError(
            f"no --data_dir, and {DEFAULT_DATA} does not exist: make it with "
            "`python -m beam_pipelines.build`"
        )
    if not FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)  # TensorFlow logs every checkpoint's sharding
    start.train(config)


if __name__ == "__main__":
    run_main(main)
