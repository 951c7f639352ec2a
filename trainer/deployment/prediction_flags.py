"""The flags that trainer.predict, beam_pipelines.predict and trainer.serve have in common.

They import no TensorFlow, so that --help and a wrong flag answer at once.
"""

from __future__ import annotations

import os
from typing import Any

from absl import flags

from cxr_tfrecords import files
from cxr_tfrecords.errors import UserError, require_flags
from trainer.evaluation import out_of_distribution
from trainer.runs.finished_run import check_named

FLAGS = flags.FLAGS
flags.disclaim_key_flags()  # flags belong to the module that calls `define`


def define() -> None:
    """Defines the flags of a command that predicts files, as those of the module that calls it."""
    define_models()
    flags.DEFINE_string("input", "", "Image, folder of images, or .csv list with a column path.")
    flags.DEFINE_string("output", "predictions.csv", "CSV file to write; it must not exist yet.")


def define_models() -> None:
    """Defines the flags of a command that loads models, as those of the module that calls it."""
    flags.DEFINE_list(
        "model", [], "Finished run directory, exported model or cascade, or several with commas."
    )
    flags.DEFINE_list(
        "deploy_prior",
        [],
        "Class shares where the images come from, as COVID=0.1,Normal=0.9. Empty: those of the "
        "training split, before any balancing.",
    )
    flags.DEFINE_float(
        "sensitivity",
        0.95,
        "Sensitivity on validation of the thresholds, see above_threshold.",
        lower_bound=0.0,
        upper_bound=1.0,
    )
    flags.DEFINE_float(
        "coverage",
        0.9,
        "Share of the images of each class whose set holds it, see in_set.",
        lower_bound=0.0,
        upper_bound=1.0,
    )
    flags.DEFINE_enum(
        "ood_method",
        out_of_distribution.DEFAULT,
        [*out_of_distribution.DETECTORS, "none"],
        "How images unlike the training images are found: mahalanobis, distance to the class means "
        "(Lee et al. 2018); knn, distance to the 10th nearest training image (Sun et al. 2022); "
        "vim, virtual-logit matching (Wang et al. 2022); none, not at all. At first use it is "
        "fitted on the data set of the run, which takes a minute or more.",
    )
    flags.DEFINE_float(
        "false_alarms",
        out_of_distribution.FALSE_ALARMS,
        "Share of images like those of validation that may be called unlike the training images.",
        lower_bound=0.0,
        upper_bound=1.0,
    )


def check() -> None:
    """Refuses what the flags and the local disk alone tell.

    Raises:
      UserError: a flag is missing, --input is missing on the local disk, or --output is there.
    """
    require_flags("model", "input")
    for path in FLAGS.model:
        check_named(path)
    if files.is_local(FLAGS.input) and not os.path.exists(FLAGS.input):
        raise UserError(
            f"--input={FLAGS.input} does not exist: name an image, a folder or a .csv list"
        )
    if files.is_local(FLAGS.output) and os.path.exists(FLAGS.output):
        raise UserError(f"--output={FLAGS.output} exists: name another file, or delete it")


def model_settings() -> dict[str, Any]:
    """Keyword arguments of `several_models.load_models`."""
    names = ("deploy_prior", "sensitivity", "coverage", "ood_method", "false_alarms")
    return {name: FLAGS[name].value for name in names}
