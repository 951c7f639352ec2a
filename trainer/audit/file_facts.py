"""Can a classifier tell the class from the files alone, on the images that the model is tested on?

The build's statistics page asks the same of all images, see `statistics.shortcut`: the same facts
and the same tree are used here, fitted on the run's training images.
"""

from __future__ import annotations

import os

import numpy as np

from cxr_tfrecords import dataset_dir
from cxr_tfrecords.dataset_dir import DatasetDir
from cxr_tfrecords.errors import UserError
from cxr_tfrecords.statistics import shortcut
from cxr_tfrecords.statistics.sources import file_features, read_sources
from trainer.evaluation.predictions import Predictions

# The size of a file also depends on what the image shows, so it is looked at by itself.
ALL_FACTS, WITHOUT_SIZE = "file_facts", "file_facts_without_size"
TITLES = {
    ALL_FACTS: "no image: facts of the file",
    WITHOUT_SIZE: "no image: the same without file size",
}
_LEAST = 1e-6


def predict_from_files(data: DatasetDir, tested: Predictions) -> tuple[dict[str, Predictions], str]:
    """Predictions from format, mode, size in pixels and size in bytes of the files.

    Args:
      data: the run's data set, with its classes.
      tested: whose ids, labels and groups are taken.

    Returns:
      Name of `TITLES` -> predictions; and why there are none, else empty.
    """
    try:
        sources = read_sources(data.path, dataset_dir.read_manifest(data.path))
    except UserError as error:
        return {}, str(error)
    labels_of = {os.path.basename(s.path): s.label for s in data.split_shards("train")}
    shards = sources.table["shard"].to_pylist()
    labels = np.array([labels_of.get(shard, -1) for shard in shards], np.int64)
    rows = shortcut.choose_rows(labels, data.num_classes)
    at = {name: row for row, name in enumerate(sources.table["filename"].to_pylist())}
    missing = [name for name in tested.ids if name not in at]
    if missing or not len(rows):
        return {}, f"sources.csv of {data.path} does not list the run's images"
    asked = np.array([at[name] for name in tested.ids])
    features = file_features(sources)
    if all(len(np.unique(values[rows])) < 2 for values in features.values()):
        return {}, "all files are alike in format, mode, image size and file size"
    answers = {}
    for name in TITLES:
        used = [v for n, v in features.items() if name == ALL_FACTS or n != "file_size"]
        table = np.column_stack(used)
        tree = shortcut.fit_tree(table[rows], labels[rows])
        chances = np.zeros((len(asked), data.num_classes))
        chances[:, tree.classes_] = tree.predict_proba(table[asked])
        logits = np.log(np.maximum(chances, _LEAST)).astype(np.float32)
        answers[name] = Predictions(tested.ids, tested.labels, logits, tested.groups)
    return answers, ""
