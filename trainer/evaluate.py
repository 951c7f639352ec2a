"""Evaluates finished runs on another data set: does the model hold elsewhere?

  python -m trainer.evaluate --model=RUN --data_dir=OTHER --output_dir=DIR \\
      --map_classes='Pneumonia:Viral Pneumonia,Healthy:Normal,Device:'

RUN is a finished run directory of trainer.main or trainer.decouple, or the folder of a cascade of
trainer.cascade, OTHER a data set that beam_pipelines.build has made of other images with the same
--image_size, --channels and --enhance: of another hospital, or another split of a published set.
Images that are the same pictures as training or validation images of the run, or near copies, are
left out.

DIR gets evaluation.html (and evaluation.md, evaluation.json): metrics there beside those of the
run's own test split, with intervals and differences; recall and AUROC by class; the confusion
matrix; how well the probabilities are calibrated there; and the class shares there as estimated
without labels (Saerens et al. 2002) beside the true ones. predictions.csv has the answers in the
layout of the run's predictions_test.csv.

A blind test asks what the model makes of images of a class that it was never trained on: map that
class to the one that it should be taken for, and leave the others out, as
--map_classes='COVID:Viral Pneumonia,Normal:,Viral Pneumonia:'. The page then has the share of each
answer among these images, with intervals.

With several runs, --model=RUN1,RUN2, each is evaluated, and the mean of runs that differ in their
seeds alone, with intervals for other seeds and other images.

This is a research tool and not a medical device.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from absl import flags

from cxr_tfrecords import files
from cxr_tfrecords.errors import UserError, require_flags, run_main
from trainer.cascades.description import is_cascade
from trainer.comparison.subgroups import membership
from trainer.evaluation.class_map import parse_class_map

if TYPE_CHECKING:
    from trainer.cascades.whole_run import WholeRun

FLAGS = flags.FLAGS

flags.DEFINE_list("model", [], "Finished run directory, or several with commas.")
flags.DEFINE_string("data_dir", "", "Other data set that beam_pipelines.build has written.")
flags.DEFINE_string("output_dir", "", "Folder for the results: new or empty.")
flags.DEFINE_enum(
    "split",
    "test",
    ["test", "train", "validation", "all"],
    "Split of the other data set to evaluate on.",
)
flags.DEFINE_list(
    "map_classes",
    [],
    "Classes of the other data set and what they are for the model, as THEIRS:OURS. Several may be "
    "mapped to one; THEIRS: (nothing after the colon) leaves a class out. Classes of the same name "
    "need not be listed.",
)
flags.DEFINE_string(
    "subgroup_csv",
    "",
    "CSV or XLSX file that says what each image is of, such as the patient's sex. Images are found "
    "by path, by file name or by file name without extension.",
)
flags.DEFINE_list(
    "subgroup_column",
    [],
    "Columns of --subgroup_csv: metrics are shown for each of their values too. At most 20 values.",
)
flags.DEFINE_string(
    "subgroup_key",
    "",
    "Column of --subgroup_csv with the files' names. Empty: path, filename, file or image, "
    "whichever it has.",
)
flags.DEFINE_integer("resamples", 500, "Number of bootstrap resamples.", lower_bound=100)


def main(argv: list[str]) -> None:
    del argv
    require_flags("model", "data_dir", "output_dir")
    files.check_output_dir(FLAGS.output_dir)
    class_map = parse_class_map(FLAGS.map_classes, "map_classes")
    table = membership.read_subgroups(FLAGS.subgroup_csv, FLAGS.subgroup_column, FLAGS.subgroup_key)
    # Imported here, so that --help answers at once.
    from trainer.external.other_data import open_other, read_runs

    whole = _read_cascade(FLAGS.model)
    runs = [whole.run] if whole else read_runs(FLAGS.model)
    parts = [*whole.stages.values()] if whole else []
    other = open_other(runs, FLAGS.data_dir, FLAGS.split, class_map, parts)
    if table is not None:
        membership.check_images(table, [other.data], other.splits, other.copies)
    from cxr_tfrecords.console.quiet import quiet_tensorflow

    quiet_tensorflow()
    from trainer.external import other_names, text
    from trainer.external.evaluate_runs import evaluate_runs

    content = evaluate_runs(
        runs,
        other,
        FLAGS.output_dir,
        table=table,
        resamples=FLAGS.resamples,
        answer=whole.answer if whole else None,
    )
    for title, figures in text.views(content):
        print(text.verdict(content, title, figures))
        for line in other_names.sentences(figures):
            print(line)
    for note in text.notes(content):
        print(f"note: {note}")
    print(f"{os.path.join(FLAGS.output_dir, 'evaluation.html')} has all results")


def _read_cascade(paths: Sequence[str]) -> WholeRun | None:
    """The cascade that --model names; None: it names runs.

    Raises:
      UserError: a cascade is damaged, or named beside others.
    """
    cascades = [path for path in paths if is_cascade(path)]
    if not cascades:
        return None
    if len(paths) > 1:
        raise UserError(f"--model: {cascades[0]} is a cascade: name it alone")
    from trainer.cascades.whole_run import read_whole

    return read_whole(cascades[0].rstrip("/"))


if __name__ == "__main__":
    run_main(main)
