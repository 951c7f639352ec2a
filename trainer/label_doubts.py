"""Lists images whose label the predictions of cross-validation contradict.

  python -m beam_pipelines.build --runner=DirectRunner --input_dir=DIR --output_dir=DATA --folds=5
  python -m trainer.compare --data_dir=DATA --study_dir=STUDY --folds --methods=none,weighted \\
      --seeds=0,1,2
  python -m trainer.label_doubts --runs='STUDY/runs/*none-fold*' --output_dir=DOUBTS

Every image is judged by the runs that tested on its fold, so by models that were not trained on
it; several seeds are averaged. Which labels are doubtful is estimated by confident learning
(Northcutt et al. 2021, package cleanlab). Runs of one fold, or of a data set without folds, judge
the images of their test split alone.

DOUBTS gets label_doubts.html, with pictures, and label_doubts.csv, a row for each doubtful label:

  rank                 copies under several labels first, then the least probable label first
  filename             the image, as in sources.csv of the data set
  given, suggested     its class, and the class that it may be of instead
  self_confidence      probability of the given class; probability_CLASS: of each class
  copy_has_other_label 1 if the build found a copy of the image in another class
  prediction_rank      rank among the labels that predictions contradict; empty if they do not
  group                images of one group are copies, or of one patient

The list says where to look: a model that is often wrong lists many correct labels. It needs
pip install 'cxr-balance[labels]'.
"""

from __future__ import annotations

import importlib.util
import logging
import os

from absl import flags

from cxr_tfrecords import files
from cxr_tfrecords.concurrency import temporary
from cxr_tfrecords.errors import UserError, require_flags, run_main

FLAGS = flags.FLAGS

flags.DEFINE_list(
    "runs", [], "Patterns of finished runs of one method: a run for each test fold and seed."
)
flags.DEFINE_string("output_dir", "", "Folder for the results: new or empty.")
flags.DEFINE_string(
    "data_dir", "", "Where the data set of the runs is now. Empty: where it was for training."
)
flags.DEFINE_integer(
    "pictures", 300, "Most pictures on the page; label_doubts.csv has all.", lower_bound=0
)


def main(argv: list[str]) -> None:
    del argv
    require_flags("runs", "output_dir")
    output = FLAGS.output_dir
    files.check_output_dir(output)
    if importlib.util.find_spec("cleanlab") is None:
        raise UserError("trainer.label_doubts needs a package: pip install 'cxr-balance[labels]'")
    # Which cleanlab imports where it is installed; it tells the versions of TensorFlow and JAX.
    logging.getLogger("datasets").setLevel(logging.WARNING)
    # Imported here, so that --help and a wrong flag answer at once.
    from cxr_tfrecords import dataset_dir
    from cxr_tfrecords.statistics.sources import read_sources
    from trainer.comparison.study_progress import announced
    from trainer.labels.copies import conflicting_copies, read_pictures
    from trainer.labels.doubts import find_doubts, write_doubts
    from trainer.labels.out_of_fold import read_out_of_fold
    from trainer.labels.page import render, summary
    from trainer.runs.run_data import find_data

    with announced("reading the predictions"):
        given = read_out_of_fold(FLAGS.runs)
    path = find_data(given.entry.runs[0], FLAGS.data_dir).path
    manifest = dataset_dir.read_manifest(path)
    sources = read_sources(path, manifest)
    doubts = find_doubts(given, conflicting_copies(manifest, sources))
    with announced("reading the pictures"):
        names = [given.ids[one.row] for one in doubts[: FLAGS.pictures]]
        pictures = read_pictures(path, manifest, sources, names)
    groups = {given.groups[one.row] for one in doubts if one.is_copy}
    unlisted = manifest["duplicates"]["num_label_conflicts"] - len(groups)
    with temporary.replacing_folder(output) as folder:
        write_doubts(os.path.join(folder, "label_doubts.csv"), given, doubts)
        page = render(given, doubts, pictures, unlisted)
        files.write_text(os.path.join(folder, "label_doubts.html"), page)
    for line in summary(given, doubts):
        print(line)
    print(f"{os.path.join(output, 'label_doubts.html')} shows them")


if __name__ == "__main__":
    run_main(main)
