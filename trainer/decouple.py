"""Gives a finished run another output layer, in a new run directory.

  python -m trainer.decouple --from_run=RUN --run_dir=NEW --method=crt
  python -m trainer.decouple --from_run=RUN --run_dir=NEW --method=tau_norm
  python -m trainer.decouple --from_run=RUN --run_dir=NEW --method=posthoc_logit_adjusted

The features stay as they are, so this takes little more time than one evaluation. NEW gets the
same files as a run of trainer.main and can be compared with RUN and others; its config.json names
RUN and the method. RUN is only read.
"""

from __future__ import annotations

from absl import flags

from cxr_tfrecords import dataset_dir
from cxr_tfrecords.errors import UserError, require_flags, run_main
from trainer.runs.finished_run import check_named

FLAGS = flags.FLAGS

flags.DEFINE_string("from_run", "", "A finished run directory of trainer.main.")
flags.DEFINE_string("run_dir", "", "Directory of the new run; it must not hold a run yet.")
flags.DEFINE_enum(
    "method",
    "crt",
    ("crt", "tau_norm", "posthoc_logit_adjusted"),
    "crt: a new output layer is trained on class-balanced samples. tau_norm: the weights of each "
    "class are divided by their length to the power --tau, the bias is dropped (both Kang et al. "
    "2020). posthoc_logit_adjusted: --tau times the log of each class's share in training is "
    "subtracted from the logits (Menon et al. 2021).",
)
flags.DEFINE_float(
    "tau",
    None,
    "tau_norm: 0 leaves the lengths as they are, 1 makes them equal; default: the value of 0, "
    "0.05, …, 1 with the best balanced accuracy on validation. posthoc_logit_adjusted: default 1.",
)
flags.DEFINE_integer("epochs", 10, "crt: number of epochs; the best one is kept.", lower_bound=1)
flags.DEFINE_float("learning_rate", 0.01, "crt: learning rate, for the run's optimizer.")
flags.DEFINE_string("data_dir", "", "The run's data set, if it was moved. Empty: where it was.")


def main(argv: list[str]) -> None:
    del argv
    require_flags("from_run", "run_dir")
    dataset_dir.refuse_data_set(FLAGS.run_dir, "run_dir")
    check_named(FLAGS.from_run, "from_run")
    if FLAGS.tau is not None and FLAGS.method == "crt":
        raise UserError(f"--tau has no meaning with --method={FLAGS.method}: leave it out")
    from cxr_tfrecords.console.quiet import quiet_tensorflow

    quiet_tensorflow()
    # Imported here, so that --help and a wrong flag answer at once.
    import tensorflow as tf

    from trainer.training import second_stage
    from trainer.training.run import describe_results

    tf.config.experimental.enable_op_determinism()
    metrics = second_stage.decouple(
        FLAGS.from_run,
        FLAGS.run_dir,
        FLAGS.method,
        tau=FLAGS.tau,
        epochs=FLAGS.epochs,
        learning_rate=FLAGS.learning_rate,
        data_dir=FLAGS.data_dir,
    )
    print(describe_results(FLAGS.run_dir, metrics), flush=True)


if __name__ == "__main__":
    run_main(main)
