"""Exports a finished run's model with probabilities for the place where it will be used.

  python -m trainer.export --run_dir=RUN --output_dir=MODEL
  python -m trainer.export --run_dir=RUN --output_dir=MODEL \\
      --deploy_prior=COVID=0.02,Lung_Opacity=0.2,Normal=0.7,'Viral Pneumonia=0.08'

RUN/model.keras gives logits, for the class shares of training. MODEL/model.keras takes the same
images (uint8, not scaled) and gives these outputs:

  logits                     of the trained model
  probabilities_raw          their softmax, which assumes the class shares of training
  probabilities              corrected to the class shares of the deployment (Saerens et al. 2002),
                             at a temperature fitted on validation (Guo et al. 2017)
  probabilities_uncalibrated the same without the temperature

MODEL/deployment.json holds class shares, temperature, and the Brier score, ECE and log loss of each
output on the test split, whose images are weighted to the class shares of the deployment.
--format=saved_model writes a SavedModel for TensorFlow Serving instead, with the same outputs. No
code of this package is needed to load either.
"""

from __future__ import annotations

from absl import flags

from cxr_tfrecords.errors import UserError, run_main

FLAGS = flags.FLAGS

flags.DEFINE_string("run_dir", "", "A finished run directory.")
flags.DEFINE_string("output_dir", "", "Directory for the model; new or empty.")
flags.DEFINE_list(
    "deploy_prior",
    [],
    "Class shares where the model will be used, as COVID=0.1,Normal=0.9. Empty: those of the "
    "training split, before any balancing.",
)
flags.DEFINE_enum(
    "format", "keras", ["keras", "saved_model"], "One file model.keras, or a SavedModel."
)


def main(argv: list[str]) -> None:
    del argv
    for name in ("run_dir", "output_dir"):
        if not FLAGS[name].value:
            raise UserError(f"--{name} is missing: --help explains it")
    from cxr_tfrecords.quiet import quiet_tensorflow

    quiet_tensorflow()
    # Imported here, so that --help and a wrong flag answer at once.
    from trainer.deployment import exported_model

    for line in exported_model.export(
        FLAGS.run_dir, FLAGS.output_dir, FLAGS.deploy_prior, FLAGS.format
    ):
        print(line, flush=True)


if __name__ == "__main__":
    run_main(main)
