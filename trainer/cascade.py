"""Trains a cascade: a first classifier decides among classes, the images of one of its answers go
to a second one, and so on; then evaluates it by stage, from end to end and beside one flat model.

  python -m trainer.cascade --data_dir=DATA --cascade_dir=DIR --epochs=20 \\
      --stage='first: Normal, Pneumonia --backbone=vgg16' \\
      --stage='Pneumonia: COVID, Other=Viral Pneumonia+Lung_Opacity --backbone=resnet18'

A stage is NAME: and its answers. An answer is a class of the data set; or ANSWER=CLASS+CLASS,
several classes as one; or the name of another stage, to which its images go. Flags after the
answers are those of trainer.main for this stage; flags outside of --stage that are not listed here
go to the trainer.main of all stages. Classes that are not named are left out.

Each stage is an ordinary run in DIR/STAGE with a report of its own, on the data set's one split. To
continue after a stop, run the same command again. DIR gets cascade.md and cascade.json: each stage
on the images that belong to it and on those that arrive there; the whole cascade, whose
probabilities are products of those of its stages, with intervals; and with --flat_run the
difference to one model that decides among all classes at once. predictions_test.csv has the
probabilities of each test image. Exit codes are those of trainer.main.

This is a research tool and not a medical device.
"""

from __future__ import annotations

import contextlib
import os

from absl import flags, logging

from cxr_tfrecords import dataset_dir
from cxr_tfrecords.concurrency import locks
from cxr_tfrecords.errors import UserError, require_flags, run_main
from trainer.cascades import description, stage_runs
from trainer.comparison.recipes.read_recipes import read_reported, recipe_beside
from trainer.runs import run_files, same_run
from trainer.runs.finished_run import read_run
from trainer.training import start

FLAGS = flags.FLAGS

flags.DEFINE_string("data_dir", "", "Dataset directory that beam_pipelines.build has written.")
flags.DEFINE_integer(
    "fold",
    None,
    "For a data set that was built with --folds: the fold that is the test split of all stages.",
    lower_bound=0,
)
flags.DEFINE_string("cascade_dir", "", "Folder for the runs of the stages and all results.")
flags.DEFINE_multi_string(
    "stage",
    [],
    "NAME: ANSWER, ANSWER=CLASS+CLASS, … and then flags of trainer.main for this stage. Once for "
    "each stage, in any order.",
)
flags.DEFINE_string(
    "flat_run",
    "",
    "Finished run of trainer.main that decides among all classes of the cascade at once, on the "
    "same data set. Empty: the cascade is not compared.",
)
flags.DEFINE_string(
    "recipe",
    "",
    "Recipe of launch/recipes (shelke), or path of yours: what reported.json beside it says "
    "of its authors' stages stands beside the stages of the same names.",
)
flags.DEFINE_integer("resamples", 500, "Number of bootstrap resamples.", lower_bound=100)


def main(argv: list[str]) -> None:
    require_flags("data_dir", "cascade_dir")
    dataset_dir.refuse_data_set(FLAGS.cascade_dir, "cascade_dir")
    built = dataset_dir.load(FLAGS.data_dir, FLAGS.fold)
    cascade = description.parse(FLAGS.stage, built.class_names)
    common = [f"--data_dir={FLAGS.data_dir}", *argv[1:]]
    if FLAGS.fold is not None:
        common.append(f"--fold={FLAGS.fold}")
    configs = stage_runs.stage_configs(cascade, FLAGS.cascade_dir, common)
    data = stage_runs.leaf_data(cascade, built)
    flat = read_run(FLAGS.flat_run) if FLAGS.flat_run else None
    if flat:
        stage_runs.check_flat(flat, cascade, data)
    reported = read_reported(recipe_beside(FLAGS.recipe)) if FLAGS.recipe else None
    if reported == {}:
        raise UserError(f"--recipe={FLAGS.recipe}: reported.json beside it has no such part")
    for config in configs.values():  # a mistake in the last stage is told before the first trains
        start.check_paths(config)
    if not FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)  # TensorFlow logs every checkpoint's sharding
    with locks.held(FLAGS.cascade_dir, f"--cascade_dir={FLAGS.cascade_dir}"):
        if not all(map(same_run.has_nothing_to_train, configs.values())):
            # What an earlier evaluation says would not hold for the new models.
            with contextlib.suppress(FileNotFoundError):
                os.remove(os.path.join(FLAGS.cascade_dir, run_files.CASCADE))
        runs = {}
        for number, (name, config) in enumerate(configs.items(), start=1):
            print(f"stage {number} of {len(configs)}: {name}", flush=True)
            start.train(config)
            runs[name] = read_run(config.run_dir)
        # Imported here, because it loads TensorFlow.
        from trainer.cascades.evaluate import evaluate
        from trainer.cascades.page import verdict

        content = evaluate(
            cascade,
            runs,
            data,
            FLAGS.cascade_dir,
            flat=flat,
            reported=reported,
            resamples=FLAGS.resamples,
        )
    for sentence in verdict(content):
        print(sentence)
    print(f"{os.path.join(FLAGS.cascade_dir, 'cascade.md')} has all results")


if __name__ == "__main__":
    run_main(main, known_only=True)  # all other flags go to trainer.main
