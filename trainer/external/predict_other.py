"""A finished run's predictions on another data set, from its shards."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from cxr_tfrecords.console.progress import progress
from trainer.evaluation.predictions import Predictions, collect, labels_in_order
from trainer.external.other_data import OtherData
from trainer.input.split_batches import SplitSource, explained_reads
from trainer.runs import run_directory
from trainer.runs.finished_run import FinishedRun


def predict_other(run: FinishedRun, other: OtherData) -> tuple[Predictions, np.ndarray]:
    """Predictions on every image that is evaluated, each once, with the run's labels; and the
    labels that the images have in the other data set, int32 [n].

    Batches are whole ones of the run's size: on one CPU, logits of the run's own images are those
    of its predictions_test.csv to the bit.

    Raises:
      UserError: the model was not kept, or a shard is damaged.
    """
    model = run_directory.load_model(run.path, len(run.class_names))
    network = tf.function(lambda x: tf.cast(model(x, training=False), tf.float32))
    ids: list[str] = []
    groups: list[str] = []
    labels, logits = [], []
    total = sum(map(other.data.num_examples, other.splits))
    with explained_reads(other.data), progress(total, "predict", " images") as bar:
        for split in other.splits:
            counts = other.data.counts[split]
            if not sum(counts):
                continue
            source = SplitSource(other.data, split, cache="none")

            def answers(
                source: SplitSource = source,
            ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
                for images, truth, index in source.evaluation(batch_size=run.config.batch_size):
                    yield network(images).numpy(), truth.numpy(), index.numpy()
                    bar.update(int((index.numpy() >= 0).sum()))

            logits.append(collect(answers(), counts))
            labels.append(labels_in_order(counts))
            ids += source.ids()
            groups += source.groups()
    # Classes that are left out have no images here, so that the number in their place is not used.
    of_run = np.array([-1 if label is None else label for label in other.labels], np.int32)
    theirs = np.concatenate(labels)
    whole = Predictions(ids, of_run[theirs], np.concatenate(logits), groups)
    kept = np.array([identity not in other.copies for identity in ids])
    return whole.subset(kept), theirs[kept]
