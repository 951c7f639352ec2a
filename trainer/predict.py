"""Predicts images with a trained model.

  python -m trainer.predict --model=RUN --input=DIR --output=predictions.csv

RUN is a finished run directory of trainer.main or trainer.decouple, the folder of a cascade of
trainer.cascade, or that of an exported model of trainer.export, which needs nothing of its run but
flags no image as unlike the training images. --input is a folder with all its subfolders (but for
lung masks, `masks` beside `images`), one image (PNG, JPEG, DICOM), or a .csv list with a column
path. Files are read as the build of the training data read them. Files that cannot be used are left
out; --output with _rejected in its name lists them with their reasons. To go on after a stop, run
the same command again.

One row for each image:

  id                    path below --input
  class                 class of the largest raw probability, as in the run's report
  logit_CLASS           as the model gives it
  raw_CLASS             probability for the class shares of training, after any balancing
  prior_corrected_CLASS corrected to the class shares of --deploy_prior (Saerens et al. 2002)
  calibrated_CLASS      the same at a temperature fitted on validation (Guo et al. 2017): use this
                        one as a probability
  above_threshold_CLASS 1 if raw_CLASS reaches the threshold that has --sensitivity on validation
  in_set_CLASS          1 if the class cannot be excluded: of the images of each class, --coverage
                        have it in their set, if they are like those of validation
                        (class-conditional conformal prediction, Vovk 2012)
  out_of_distribution   1 if the image is unlike the training images, so that no other column can be
                        trusted; of images like those of validation, --false_alarms are flagged too
  out_of_distribution_score  the higher, the less alike; flagged above a threshold of the model

What is found and what is missed: docs/out_of_distribution.md. It is fitted on the data set of the
run at first use, which takes a minute or more, and written to RUN/out_of_distribution.npz.

--html=page.html shows images with heat maps, by class if wanted; what needs a look comes first.

With several models, --model=RUN1,RUN2, probabilities are their means, above_threshold, in_set and
out_of_distribution are what most models say, and a column disagreement gives the largest standard
deviation between the models of a class's calibrated probability.

This is a research tool and not a medical device.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from absl import flags

from cxr_tfrecords import files
from cxr_tfrecords.concurrency.cores import usable_cores
from cxr_tfrecords.errors import UserError, run_main
from trainer.deployment import prediction_flags

if TYPE_CHECKING:
    from trainer.deployment.predictor import Classifier

FLAGS = flags.FLAGS

prediction_flags.define()
flags.DEFINE_string(
    "dicom_sr",
    "",
    "Folder for a DICOM structured report on each DICOM image, with the calibrated probabilities "
    "(for research; needs pip install 'cxr-balance[dicom-sr]'). Empty: none.",
)
flags.DEFINE_string(
    "html",
    "",
    "HTML page to write, with pictures and heat maps (Grad-CAM); it must not exist yet. Empty: "
    "none.",
)
flags.DEFINE_integer(
    "html_images",
    200,
    "Most images on that page: those unlike the training images first, then those with not exactly "
    "one class in their set, then the least sure. An image takes about 25 kB and 0.03 s.",
    lower_bound=1,
    upper_bound=5000,
)
flags.DEFINE_integer("threads", usable_cores(), "Threads that read files.", lower_bound=1)


def main(argv: list[str]) -> None:
    del argv
    prediction_flags.check()
    for name, path in (("input", FLAGS.input), ("output", FLAGS.output)):
        if not files.is_local(path):
            raise UserError(
                f"--{name}={path}: this command reads and writes the local disk only: "
                "python -m beam_pipelines.predict takes gs:// and s3://"
            )
    _check_folder("output", FLAGS.output)
    if FLAGS.html:
        _check_page(FLAGS.html)
    if FLAGS.dicom_sr:
        _check_reports(FLAGS.dicom_sr)
    from cxr_tfrecords.console.quiet import quiet_tensorflow

    quiet_tensorflow()
    # Imported here, so that --help and a wrong flag answer at once; the first two for folders
    # that are no run.
    import trainer.cascades.cascade_classifier
    import trainer.exporting.exported_classifier  # noqa: F401
    from trainer.deployment.predicted_files import count_flagged, predict_files
    from trainer.deployment.prediction_rows import show_result
    from trainer.deployment.several_models import load_models, why_no_heat_maps

    classifiers = load_models(FLAGS.model, **prediction_flags.model_settings())
    if FLAGS.html and (reason := why_no_heat_maps(classifiers)):
        raise UserError(f"--html={FLAGS.html}: {reason}, or leave --html out")
    counts, rejected = predict_files(
        classifiers,
        FLAGS.input,
        FLAGS.output,
        threads=FLAGS.threads,
        finish=_finishing(classifiers) if FLAGS.dicom_sr or FLAGS.html else None,
    )
    show_result(FLAGS.output, counts, count_flagged(FLAGS.output), rejected)


def _check_page(path: str) -> None:
    if os.path.exists(path):
        raise UserError(f"--html={path} exists: name another file, or delete it")
    _check_folder("html", path)


def _check_folder(flag: str, path: str) -> None:
    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder):
        raise UserError(f"--{flag}={path}: there is no folder {folder}: make it first")
    if reason := files.why_unwritable(folder):
        raise UserError(f"--{flag}={path}: {reason}: name another file")


def _check_reports(folder: str) -> None:
    if importlib.util.find_spec("highdicom") is None:
        raise UserError("--dicom_sr needs a package: pip install 'cxr-balance[dicom-sr]'")
    reason = files.why_unwritable(folder)
    if reason:
        raise UserError(f"--dicom_sr={folder}: {reason}: name another folder")


def _finishing(classifiers: Sequence[Classifier]) -> Callable[[str, str], None]:
    """What makes reports and page from the file of rows and the images' folder."""

    def finish(rows: str, folder: str) -> None:
        if FLAGS.dicom_sr:
            from trainer.deployment.structured_report import write_reports

            print(write_reports(rows, folder, FLAGS.dicom_sr, classifiers))
        if FLAGS.html:
            from trainer.deployment.gallery import write_gallery

            print(write_gallery(rows, folder, FLAGS.html, classifiers, FLAGS.html_images))

    return finish


if __name__ == "__main__":
    run_main(main)
