"""What the models of a cascade's stages answer to all images of the leaves."""

from __future__ import annotations

import numpy as np

from cxr_tfrecords.dataset_dir import DatasetDir
from trainer.evaluation.predictions import Predictions, labels_in_order
from trainer.external.other_data import OtherData
from trainer.external.predict_other import predict_other
from trainer.runs import run_files
from trainer.runs.finished_run import FinishedRun


def answer_all(run: FinishedRun, data: DatasetDir) -> dict[str, Predictions]:
    """Split -> what a stage answers to all images of the leaves, also to those that do not belong
    to it. Logits are of the stage's answers, labels are those of the leaves.

    Args:
      data: with the leaves as its classes.

    Raises:
      UserError: the model was not kept, or a shard is damaged.
    """
    labels = tuple(range(data.num_classes))
    shown = data.showing(run.config.mask)
    other = OtherData(shown, "all", run_files.SPLITS, labels, {}, frozenset())
    whole, _ = predict_other(run, other)
    position = np.arange(len(whole.labels))
    result, start = {}, 0
    for split in run_files.SPLITS:
        stop = start + data.num_examples(split)
        result[split] = whole.subset((start <= position) & (position < stop))
        if not np.array_equal(result[split].labels, labels_in_order(data.counts[split])):
            raise RuntimeError(f"labels of {split} differ from the metadata's order")
        start = stop
    return result
