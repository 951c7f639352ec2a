"""Does a trained model look at the lungs, or at a shortcut?

  python -m trainer.shortcuts --model=RUN --output_dir=DIR

RUN is a finished run directory of trainer.main or trainer.decouple. Its model answers for the
images of its own test split, as they are and with parts taken away:

  lungs covered                       a rectangle over the lungs
  only the outer 10%, without lungs   only the lungs
  only the outline of the lungs       blurred to 8 x 8 pixels
  8 x 8 patches in random order

and a decision tree, which sees no image, answers from format and size of the files. DIR gets
shortcuts.html (and shortcuts.md, shortcuts.json): a verdict in words, an example of each condition,
and balanced accuracy, accuracy and AUROC with intervals over groups of images.

The verdict's rules. Above chance: the 95% interval is, and the figure is by 0.05 or more.

  likely     in an image without lungs (rectangle, or only the outer 10%), balanced accuracy, AUROC
             or the AUROC of a class is above chance and keeps half or more of what is above chance
             on whole images
  possible   there, with the lungs covered, or from their outline alone, balanced accuracy or
             AUROC is above chance; or format and size in pixels of the files tell the class
  none       none of these

What is outside the lungs may also be true information, such as age or the size of the heart; and a
model may fail on images with covered parts though it uses what is left: "none" is no proof.

Lung masks are taken from the data set (built with --with_masks). Images that are black around the
lungs need none. Else --segmenter=FILE finds the lungs, or only the outer 10% is looked at.

This is a research tool and not a medical device.
"""

from __future__ import annotations

import os

from absl import flags

from cxr_tfrecords import files
from cxr_tfrecords.errors import UserError, require_flags, run_main

FLAGS = flags.FLAGS

flags.DEFINE_string("model", "", "Finished run directory.")
flags.DEFINE_string("output_dir", "", "Folder for the results: new or empty.")
flags.DEFINE_enum("split", "test", ["test", "validation"], "Split of the run's data set.")
flags.DEFINE_string(
    "data_dir",
    "",
    "The run's data set, if it is not where it was, or the same files built again with "
    "--with_masks. Empty: where the run found it.",
)
flags.DEFINE_enum(
    "mask_source",
    "auto",
    ["auto", "data_set", "black", "segmenter", "box"],
    "Where the lungs are known from. data_set: its lung masks. black: all that is not black. "
    "segmenter: the model of --segmenter. box: not known; a fixed box, the outer 10%, is looked "
    "at. auto: the first of these that can be used.",
)
flags.DEFINE_string("segmenter", "", "Model file of trainer.train_segmenter.")
flags.DEFINE_enum(
    "fill",
    "gray",
    ["gray", "black"],
    "What is taken away becomes. gray: the mean of the training split, which disturbs a network "
    "less, or black where the images are black around the lungs. black: always black.",
)
flags.DEFINE_integer("resamples", 500, "Number of bootstrap resamples.", lower_bound=100)


def main(argv: list[str]) -> None:
    del argv
    require_flags("model", "output_dir")
    files.check_output_dir(FLAGS.output_dir)
    if FLAGS.segmenter and not os.path.exists(FLAGS.segmenter):
        raise UserError(f"--segmenter={FLAGS.segmenter} does not exist: name a model file")
    # Imported here, so that --help answers at once.
    from trainer.audit.masks import choose_source, open_masks
    from trainer.audit.open_run import open_run

    run, data = open_run(FLAGS.model, FLAGS.data_dir)
    source = choose_source(data, FLAGS.split, FLAGS.mask_source, FLAGS.segmenter)
    from cxr_tfrecords.console.quiet import quiet_tensorflow

    quiet_tensorflow()
    from trainer.audit import verdict
    from trainer.audit.audit_run import audit_run

    masks = open_masks(data, FLAGS.split, source, FLAGS.segmenter)
    content = audit_run(
        run, data, FLAGS.split, masks, FLAGS.output_dir, fill=FLAGS.fill, resamples=FLAGS.resamples
    )
    for text in content["verdict"]["text"]:
        print(text)
    for note in verdict.notes(content):
        print(f"note: {note}")
    print(f"{os.path.join(FLAGS.output_dir, 'shortcuts.html')} has all results")


if __name__ == "__main__":
    run_main(main)
