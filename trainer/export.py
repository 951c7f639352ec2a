"""Exports a finished run's model with probabilities for the place where it will be used.

  python -m trainer.export --run_dir=RUN --output_dir=MODEL
  python -m trainer.export --run_dir=RUN --output_dir=MODEL \\
      --deploy_prior=COVID=0.02,Lung_Opacity=0.2,Normal=0.7,'Viral Pneumonia=0.08'

RUN/model.keras gives logits, for the class shares of training. The exported model takes the same
images (uint8, not scaled) and gives these outputs:

  logits                     of the trained model
  probabilities_raw          their softmax, which assumes the class shares of training
  probabilities              corrected to the class shares of the deployment (Saerens et al. 2002),
                             at a temperature fitted on validation (Guo et al. 2017)
  probabilities_uncalibrated the same without the temperature

--format, one or several with commas, chooses the files below MODEL:

  keras        model.keras        for Keras
  saved_model  saved_model/       for TensorFlow Serving; also takes PNG files, where TensorFlow
                                  decodes them to the same pixels
  onnx         model.onnx         for ONNX Runtime and others
  litert       model.tflite       for LiteRT (TensorFlow Lite), on phones and small computers
  litert_int8  model_int8.tflite  the same in 8 bits: a quarter of the size, and less accurate by
                                  the figures that are shown; gives logits only

Each file is opened again and compared with the trained model on test images. A file that answers
otherwise, beyond the rounding of the trained model itself, is refused and nothing is written.

MODEL/deployment.json says how images must be read, what the outputs mean, the thresholds, the
temperature, and the Brier score, ECE and log loss of each output on the test split, whose images
are weighted to the class shares of the deployment: docs/export.md explains each key, and how to
use the files without this package.

MODEL/README.md is the model's card, which trainer.model_card writes again with more results.

This is a research tool and not a medical device.
"""

from __future__ import annotations

import os

from absl import flags

from cxr_tfrecords import files
from cxr_tfrecords.errors import require_flags, run_main
from trainer.exporting.format_table import check_formats
from trainer.runs.finished_run import check_named

FLAGS = flags.FLAGS

flags.DEFINE_string("run_dir", "", "A finished run directory.")
flags.DEFINE_alias("model", "run_dir")  # its name in the commands that use a model
flags.DEFINE_string("output_dir", "", "Directory for the model; new or empty.")
flags.DEFINE_list(
    "deploy_prior",
    [],
    "Class shares where the model will be used, as COVID=0.1,Normal=0.9. Empty: those of the "
    "training split, before any balancing.",
)
flags.DEFINE_list(
    "format", ["keras"], "What to write: keras, saved_model, onnx, litert, litert_int8; see above."
)


def main(argv: list[str]) -> None:
    del argv
    require_flags("run_dir", "output_dir")
    check_formats(FLAGS.format)
    files.check_output_dir(FLAGS.output_dir)
    check_named(FLAGS.run_dir, "run_dir")
    from cxr_tfrecords.console.quiet import quiet_tensorflow

    quiet_tensorflow()
    # Imported here, so that --help and a wrong flag answer at once.
    from trainer.card.facts import gather
    from trainer.card.write_card import write_card
    from trainer.exporting import exported_model

    for line in exported_model.export(
        FLAGS.run_dir, FLAGS.output_dir, FLAGS.deploy_prior, FLAGS.format
    ):
        print(line, flush=True)
    card = os.path.join(FLAGS.output_dir, "README.md")
    write_card(card, gather(FLAGS.run_dir, FLAGS.output_dir))
    print(f'{card} is the model\'s card; search it for "To be answered by the author"')


if __name__ == "__main__":
    run_main(main)
