"""Predicts images with a trained model on Apache Beam, on one machine or many.

  python -m beam_pipelines.predict --model=RUN --input=DIR --output=predictions.csv \\
      --runner=DirectRunner

--output is the file that trainer.predict writes, with the same columns and the same rows, whatever
the runner: `python -m trainer.predict --help` explains them, and what --model and --input may be.
All three may also lie in an object store, gs:// or s3://. Workers on other machines must see
--input and --output; they get a copy of the model. Files that cannot be used are left out;
--output with _rejected in its name lists them with their reasons.

Rows are written below OUTPUT.parts first. To go on after a stop, run the same command again; with
other files, models or settings it starts anew. Flags that are not listed here go to Apache Beam:
--runner=DataflowRunner --project=…, --direct_num_workers=…, and all the others
(launch/predict_dataflow.sh and docs/predict.md show how). trainer.predict alone writes DICOM
structured reports (--dicom_sr).

It needs pip install 'cxr-balance[cpu]', also on workers. This is a research tool and not a medical
device.
"""

from __future__ import annotations

from absl import flags, logging

from cxr_tfrecords import files
from cxr_tfrecords.errors import UserError, run_main
from trainer.deployment import prediction_flags

FLAGS = flags.FLAGS

prediction_flags.define()
flags.DEFINE_integer(
    "worker_threads",
    0,
    "Threads that read files in each worker; 16 hide the delay of an object store. 0: one for each "
    "core with the direct runner, else one.",
    lower_bound=0,
)


def main(argv: list[str]) -> None:
    logging.set_verbosity(logging.ERROR)  # Beam's import notes which optional parts are absent
    prediction_flags.check()
    if files.is_local(FLAGS.output):
        reason = files.why_unwritable(f"{FLAGS.output}.parts")
        if reason:
            raise UserError(f"cannot write --output={FLAGS.output}: {reason}: name another")
    # Imported here, so that --help and a wrong flag answer at once.
    from beam_pipelines.settings import beam_flags

    options = beam_flags.parse(argv[1:], list(FLAGS))
    if files.exists(FLAGS.output):  # in an object store; `check` has looked on the local disk
        raise UserError(f"--output={FLAGS.output} exists: name another file, or delete it")
    from cxr_tfrecords.console.quiet import quiet_tensorflow

    quiet_tensorflow()
    from beam_pipelines.predict import job

    if not beam_flags.runs_locally(options):
        logging.set_verbosity(logging.INFO)  # a remote runner tells its job's address and state
    settings = prediction_flags.model_settings()
    job.predict(FLAGS.model, FLAGS.input, FLAGS.output, settings, options, FLAGS.worker_threads)


if __name__ == "__main__":
    kept = "finished work is kept, run the same command again to go on"
    run_main(main, known_only=True, interrupted=kept)
