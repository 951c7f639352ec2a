"""Trains a grid of methods and seeds, and compares them: does balancing the classes help?

  python -m trainer.compare --data_dir=DATA --study_dir=STUDY --weights=FILE.h5 \\
      --backbones=mobilenet_v2 --methods=none,undersample,oversample --seeds=0,1,2

Trains the runs that are not finished, all with the same splits and, by seed, the same initial
weights; then compares all methods with the --reference on the test split and writes
comparison.json, comparison.md, comparison.html and comparison_classes.csv, which has the figures of
all classes: of hundreds, page and text show 40. Flags that are not listed here go to
trainer.main (--weights, --batch_norm, --learning_rate, …), the same for all runs. To continue a
study that was stopped, run the same command again; methods or seeds may be added. Several processes
may work on one study, on one machine or on a shared disk: no run is trained twice.

  python -m trainer.compare --data_dir=DATA --study_dir=STUDY --recipes=wuisan_a,wuisan_b,wuisan_c

compares recipes (docs/recipes.md), each with its own backbone and tuning, instead of methods that
differ in nothing else. Flags that are given go to all of them and override theirs.

  python -m trainer.compare --runs='runs/*' --study_dir=STUDY

compares finished runs instead, also ones made on several machines. Runs of several test folds are
compared on the images of all folds, as with --folds. Exit codes: 0 done, 1 some runs
failed and are left out, 2 a mistake to correct, 75 stopped by SIGTERM or not all runs finished,
130 stopped by Ctrl-C.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from absl import flags

from cxr_tfrecords import dataset_dir
from cxr_tfrecords.concurrency import locks
from cxr_tfrecords.errors import UserError, run_main
from trainer.comparison import method_grid, study_cells, study_checks, study_runs, tuning
from trainer.comparison.recipes.description import describe_recipes
from trainer.comparison.recipes.read_recipes import parse_recipes
from trainer.comparison.study_progress import announced
from trainer.comparison.subgroups import membership
from trainer.runs.finished_run import FinishedRun, read_run
from trainer.settings import table
from trainer.settings.chosen_classes import choose_classes

if TYPE_CHECKING:
    from trainer.comparison.confusion_matrices import Matrices

FLAGS = flags.FLAGS

flags.DEFINE_string("data_dir", "", "Dataset directory that beam_pipelines.build has written.")
flags.DEFINE_integer(
    "fold",
    None,
    "For a data set that was built with --folds: the fold that is the test split of all runs.",
    lower_bound=0,
)
flags.DEFINE_bool(
    "folds",
    False,
    "For a data set that was built with --folds: every method and seed is trained once with each "
    "fold as the test split, and the test images of all folds are compared together, each once a "
    "seed.",
)
flags.DEFINE_string(
    "study_dir", "runs/study", "Folder for the results; runs go to its subfolder runs."
)
flags.DEFINE_list(
    "methods",
    ["none", "undersample", "oversample"],
    "Samplers and losses of trainer.main, or several joined by +, as undersample+focal; mixup and "
    "balanced_mixup; crt, tau_norm and posthoc_logit_adjusted (the run `none`, its last layer "
    "balanced afterwards).",
)
flags.DEFINE_list(
    "recipes",
    [],
    "Instead of --methods: names of recipes in launch/recipes, or paths of files with flags of "
    "trainer.main, one a line. Each is trained once with each of --seeds, with its own settings.",
)
flags.DEFINE_list("seeds", ["0", "1", "2"], "Seeds: each method is trained once with each of them.")
flags.DEFINE_list("backbones", ["tiny"], "Backbones of trainer.main.")
flags.DEFINE_enum(
    "budget",
    "steps",
    ["steps", "epochs"],
    "steps: every method makes the same number of updates, --epochs times those of an epoch "
    "without balancing, without early stopping; only crt adds those of its second "
    "stage. epochs: every method trains --epochs of its own "
    "epochs at most, as papers do; oversampling then makes several times the updates of "
    "undersampling. With both the learning rate stays the same, unless --reduce_lr_patience is "
    "given: lowered at a plateau, it would follow another schedule with each method.",
)
flags.DEFINE_integer(
    "epochs", table.Settings.epochs, "Largest number of epochs, see --budget.", lower_bound=1
)
flags.DEFINE_enum(
    "monitor",
    "validation_balanced_accuracy",
    table.MONITORS,
    "Metric by which every run chooses its best epoch and stops early. The default is not that of "
    f"trainer.main: {table.Settings.monitor}, at natural prevalence, would favour the epochs in "
    "which balancing has had the least effect.",
)
flags.DEFINE_integer("batch_size", table.Settings.batch_size, "Images in a step.", lower_bound=1)
flags.DEFINE_integer("jobs", 1, "Runs at the same time on this machine.", lower_bound=1)
flags.DEFINE_string(
    "cells",
    "",
    "K/N: train only the K-th (from 1) of N parts of the runs, one on each of N machines, and "
    "compare nothing. Afterwards the same command without this flag compares all runs if the "
    "machines share a disk, or --runs does so.",
)
flags.DEFINE_integer(
    "tune",
    0,
    "Tries of each method: random draws of the learning rate (a tenth to ten times its value) and "
    "of the method's own parameters; the first try is the defaults. The one with the best "
    "--primary_metric on validation gives its values to the runs of all seeds. 0: no tuning.",
    lower_bound=0,
)
flags.DEFINE_list("runs", [], "Patterns of finished runs to compare, instead of training.")
flags.DEFINE_string(
    "reference",
    "",
    "Method that the others are compared with. Empty: `none` if given, else the first.",
)
flags.DEFINE_enum(
    "primary_metric",
    "balanced_accuracy",
    ["accuracy", "balanced_accuracy", "macro_f1", "mcc", "auroc_macro", "auprc_macro"],
    "Metric of the verdict. Choose it before you see any result.",
)
flags.DEFINE_float(
    "margin",
    2.0,
    "Smallest difference of the primary metric that matters, in points (2 is 2% of its range). "
    "Methods that are shown to differ by less are called equivalent. Choose it before you see any "
    "result.",
    lower_bound=0,
)
flags.DEFINE_list(
    "deploy_prior",
    [],
    "Class shares where the model will be used, as COVID=0.1,Normal=0.9; probabilities are "
    "corrected to them. Empty: those of the training split.",
)
flags.DEFINE_float(
    "sensitivity",
    0.95,
    "Sensitivity of the operating points, 0 to 1: the threshold of each class is the highest that "
    "reaches it on validation.",
    lower_bound=0,
    upper_bound=1,
)
flags.DEFINE_string(
    "benefit_class",
    "",
    "Class whose net benefit is shown (decision curves of its calibrated probability). Empty: the "
    "rarest class of the training split.",
)
flags.DEFINE_string(
    "subgroup_csv",
    "",
    "CSV or XLSX file that says what each test image is of, such as the patient's sex or the "
    "hospital. Images are found by path, by file name or by file name without extension.",
)
flags.DEFINE_list(
    "subgroup_column",
    [],
    "Columns of --subgroup_csv: results are shown for each of their values too, and subgroups are "
    "compared. At most 20 values; make ranges of numbers such as ages first.",
)
flags.DEFINE_string(
    "subgroup_key",
    "",
    "Column of --subgroup_csv with the files' names. Empty: path, filename, file or image, "
    "whichever it has.",
)
flags.DEFINE_string(
    "paper_tables",
    "",
    "A paper's tables as JSON (see trainer/comparison/published_tables.py), shown beside these "
    "methods in the page.",
)
flags.DEFINE_integer("resamples", 2000, "Number of bootstrap resamples.", lower_bound=100)


def main(argv: list[str]) -> int:
    dataset_dir.refuse_data_set(FLAGS.study_dir, "study_dir")
    subgroup_table = membership.read_subgroups(
        FLAGS.subgroup_csv, FLAGS.subgroup_column, FLAGS.subgroup_key
    )
    paper = None
    if FLAGS.paper_tables:  # imported here: it needs NumPy and scipy, which --help must not
        from trainer.comparison.page.paper import read_paper

        paper = read_paper(FLAGS.paper_tables)
    trained = _Trained(_find_runs(argv[1:])) if FLAGS.runs else _train(argv[1:], subgroup_table)
    if not FLAGS.cells:
        with locks.held(FLAGS.study_dir, f"--study_dir={FLAGS.study_dir}"):
            _compare(trained, subgroup_table, paper)
    for line in trained.left_out:
        print(f"left out, {line}")
    return 1 if trained.failed else 0


@dataclasses.dataclass(frozen=True)
class _Trained:
    """What there is to compare.

    Attributes:
      named: name in the comparison and run.
      failed: whether a run failed.
      left_out: reasons and names of runs that are not compared.
      tuned: what --tune chose.
    """

    named: Sequence[tuple[str, FinishedRun]]
    failed: bool = False
    left_out: Sequence[str] = ()
    tuned: Sequence[tuning.Tuned] = ()


def _find_runs(extra: Sequence[str]) -> list[tuple[str, FinishedRun]]:
    """The finished runs of --runs. extra: flags that are not of this command.

    Raises:
      UserError: a flag is given that says how to train.
    """
    for flag in ("cells", "tune", "recipes"):
        if FLAGS[flag].value:
            raise UserError(
                f"--{flag} trains runs and --runs compares finished ones: give only one"
            )
    if extra:
        raise UserError(
            f"unknown flag {extra[0]!r}: with --runs nothing is trained, so leave it out"
        )
    return method_grid.find_runs(FLAGS.runs, FLAGS.folds)


def _train(extra: Sequence[str], subgroup_table: membership.SubgroupTable | None) -> _Trained:
    """Trains the runs of the study that are not finished. extra: see `_make_study`."""
    study = _make_study(extra)
    tuned: list[tuning.Tuned] = []
    if subgroup_table:
        with announced("reading the names of the test images"):
            membership.check_images(subgroup_table, study.data.values())
    grid = study.cells
    cells = study.part(*study_cells.parse_part(FLAGS.cells), whole_methods=FLAGS.tune > 0)
    if FLAGS.tune:
        study, tuned = tuning.tune(study, cells, FLAGS.tune, FLAGS.primary_metric, FLAGS.jobs)
    study_checks.check_same_study(study)
    study_checks.check_trainable(study, cells)
    outcome = study_runs.run_study(study, cells, FLAGS.jobs)
    failed = bool(outcome.failed)
    if FLAGS.cells:
        finished = sum(map(study.is_finished, grid))
        print(f"{finished} of the {len(grid)} runs of the study are finished")
        print("once all are, the same command without --cells compares them")
        return _Trained([], failed)
    study_runs.check_elsewhere(study, outcome)
    study_checks.check_same_study(study)  # another process may have added runs meanwhile
    compared = study.comparable()
    named = [(_entry_name(cell), read_run(study.run_dir(cell))) for cell in compared]
    left_out = [f"its run failed: {name}" for name in outcome.failed] + [
        f"another fold of this method and seed is not finished: {cell.name}"
        for cell in study.cells
        if cell not in compared and study.is_finished(cell)
    ]
    return _Trained(named, failed, left_out, tuned)


def _make_study(extra: Sequence[str]) -> study_cells.Study:
    """extra: flags of `trainer.main` that the user gives for all runs; they override the study's
    own defaults."""
    if not FLAGS.data_dir:
        raise UserError("name the data set with --data_dir, or finished runs with --runs")
    data = study_cells.load_data(FLAGS.data_dir, FLAGS.fold, FLAGS.folds)
    if FLAGS.recipes:
        extra = _recipe_flags(extra)
        pairs, chosen = parse_recipes(FLAGS.recipes, extra)
        seeds = method_grid.parse_seeds(FLAGS.seeds)
        cells = [method_grid.Cell(b, m, s, k) for s in seeds for k in data for b, m in pairs]
    else:
        chosen = study_cells.check_shared_flags(extra)
        cells = method_grid.parse_grid(FLAGS.methods, FLAGS.seeds, FLAGS.backbones, data)
    data = {fold: choose_classes(one, *chosen) for fold, one in data.items()}
    if not FLAGS.cells:
        study_checks.check_names([_entry_name(cell) for cell in cells], FLAGS.reference)
    first = next(iter(data.values()))
    study_checks.check_classes(first, FLAGS.benefit_class, FLAGS.deploy_prior)
    if FLAGS.recipes:
        return study_cells.Study(FLAGS.study_dir, data, [f"--data_dir={FLAGS.data_dir}"], cells)
    common = [
        f"--data_dir={FLAGS.data_dir}",
        f"--epochs={FLAGS.epochs}",
        f"--batch_size={FLAGS.batch_size}",
        f"--monitor={FLAGS.monitor}",
        "--reduce_lr_patience=0",
    ]
    steps: dict[int | None, int] = {}
    if FLAGS.budget == "steps":
        steps = {k: one.num_examples("train") // FLAGS.batch_size for k, one in data.items()}
        common.append("--early_stopping_patience=0")
    return study_cells.Study(FLAGS.study_dir, data, [*common, *extra], cells, steps)


def _recipe_flags(extra: Sequence[str]) -> list[str]:
    """The flags of `trainer.main` that the user gives for all recipes.

    Raises:
      UserError: a flag is given that would replace what each recipe sets by itself.
    """
    for flag in ("methods", "backbones", "budget", "tune"):
        if FLAGS[flag].present:
            raise UserError(
                f"--recipes and --{flag} cannot be given together, because each recipe has its own "
                "backbone, balancing and tuning: leave one out (--backbone, --epochs and other "
                "flags of trainer.main go to all recipes)"
            )
    shared = ("epochs", "batch_size", "monitor")
    return [*(f"--{name}={FLAGS[name].value}" for name in shared if FLAGS[name].present), *extra]


def _entry_name(cell: method_grid.Cell) -> str:
    one_backbone = len(FLAGS.backbones) == 1
    return cell.method.name if one_backbone else f"{cell.method.name} ({cell.backbone})"


def _compare(
    trained: _Trained,
    subgroup_table: membership.SubgroupTable | None,
    paper: Matrices | None,
) -> None:
    from trainer.comparison import compare_methods
    from trainer.comparison.methods import group_runs
    from trainer.comparison.page.write_comparison import write_comparison
    from trainer.comparison.subgroups.figures import compare_subgroups
    from trainer.deployment import corrected_probabilities

    with announced(f"reading the predictions of {len(trained.named)} runs"):
        entries = group_runs(trained.named)
    names = [entry.name for entry in entries]
    study_checks.check_names(names, FLAGS.reference)
    reference = FLAGS.reference or method_grid.default_reference(names)
    deploy_prior = corrected_probabilities.parse_deploy_prior(
        FLAGS.deploy_prior, entries[0].runs[0].class_names
    )
    with announced(f"comparing {len(names)} methods with {FLAGS.resamples:,} resamples"):
        content: dict[str, Any] = compare_methods.compare(
            entries,
            reference=reference,
            primary=FLAGS.primary_metric,
            margin=FLAGS.margin / 100,
            resamples=FLAGS.resamples,
            deploy_prior=deploy_prior,
            sensitivity=FLAGS.sensitivity,
            benefit_class=FLAGS.benefit_class,
        )
    if trained.tuned:
        content["tuning"] = tuning.describe(trained.tuned, FLAGS.primary_metric, _entry_name)
    if FLAGS.recipes:
        content["recipes"] = describe_recipes(FLAGS.recipes, content)
    if subgroup_table:
        with announced("comparing subgroups"):
            content["subgroups"] = compare_subgroups(entries, content, subgroup_table)
    write_comparison(FLAGS.study_dir, content, entries, paper)


if __name__ == "__main__":
    run_main(main, known_only=True)  # all other flags go to trainer.main
