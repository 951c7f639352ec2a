"""Writes the model card of a finished run: what a stranger must know before using the model.

  python -m trainer.model_card --run_dir=RUN --output=README.md
  python -m trainer.model_card --run_dir=RUN --export=MODEL --evaluation=OTHER \\
      --shortcuts=AUDIT --output=README.md

The card is one Markdown page with the metadata that the Hugging Face Hub reads: intended use, data
and split, balancing, settings, results on the test split with intervals, calibration, thresholds,
prediction sets, limits, how to use the model, and where the card answers the items of the
reporting guidelines TRIPOD+AI, CLAIM and STARD-AI. What is given besides the run is added: the
exported files, results on other data sets, and the test for shortcuts.

What only an author can answer, such as the license and where the images come from, is marked "To be
answered by the author". trainer.export writes the card beside the model.

This is a research tool and not a medical device.
"""

from __future__ import annotations

import os

from absl import flags

from cxr_tfrecords import files
from cxr_tfrecords.errors import UserError, require_flags, run_main
from trainer.runs.finished_run import read_kept_run

FLAGS = flags.FLAGS

flags.DEFINE_string("run_dir", "", "A finished run directory.")
flags.DEFINE_alias("model", "run_dir")  # its name in the commands that use a model
flags.DEFINE_string("output", "", "File for the card, such as README.md; it must not exist yet.")
flags.DEFINE_string("export", "", "Folder that trainer.export has written from this run.")
flags.DEFINE_list(
    "evaluation", [], "Folders that trainer.evaluate has written for this run, with commas."
)
flags.DEFINE_string("shortcuts", "", "Folder that trainer.shortcuts has written for this run.")


def main(argv: list[str]) -> None:
    del argv
    require_flags("run_dir", "output")
    if os.path.exists(FLAGS.output):
        raise UserError(
            f"--output={FLAGS.output} exists, perhaps with an author's answers: name a new file"
        )
    if reason := files.why_unwritable(os.path.dirname(os.path.abspath(FLAGS.output))):
        raise UserError(f"--output={FLAGS.output}: {reason}: name another file")
    read_kept_run(FLAGS.run_dir, "run_dir")
    # Imported here, so that --help and a wrong flag answer at once.
    from cxr_tfrecords.console.quiet import quiet_tensorflow

    quiet_tensorflow()
    from trainer.card.facts import gather
    from trainer.card.write_card import write_card

    facts = gather(FLAGS.run_dir, FLAGS.export, FLAGS.evaluation, FLAGS.shortcuts)
    write_card(FLAGS.output, facts)
    print(f'{FLAGS.output} is written; search it for "To be answered by the author"')


if __name__ == "__main__":
    run_main(main)
