"""A finished run's predictions on a split in each condition."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from cxr_tfrecords.console.progress import progress
from cxr_tfrecords.dataset_dir import DatasetDir
from cxr_tfrecords.errors import UserError
from trainer.audit.conditions import WHOLE, conditions_for
from trainer.audit.masks import BOX, Masks
from trainer.evaluation.predictions import Predictions, labels_in_order
from trainer.input.split_batches import SplitSource, explained_reads
from trainer.runs import run_directory
from trainer.runs.finished_run import FinishedRun

# A smaller mask is a mistake of whoever made it: the lungs would not be taken away.
_LEAST_LUNG = 0.01
# Other devices and versions round in another way; more than this is another set of images.
_OTHER_CLASS = 0.02


@dataclasses.dataclass(frozen=True)
class Conditioned:
    """Predictions in each condition, of the same images.

    Attributes:
      predictions: by the condition's name, the whole image first.
      empty: condition -> share of images of which nothing was left.
      no_lungs: images that were left out because no lung was found in them.
      lung_share: median share of an image that is lung; None if the lungs are not known.
      example: by the condition's name, one image as it was shown, uint8 [S, S, C]; example_id: of
        which file.
    """

    predictions: Mapping[str, Predictions]
    empty: Mapping[str, float]
    no_lungs: int
    lung_share: float | None
    example: Mapping[str, np.ndarray]
    example_id: str


def predict_conditions(
    run: FinishedRun, data: DatasetDir, split: str, masks: Masks, fill: int
) -> Conditioned:
    """Shows the model every image of a split once in each condition, in whole batches of its size.

    Args:
      data: as the run sees it (`TrainConfig.shown`).
      fill: gray value of what is taken away.

    Raises:
      UserError: the model was not kept, a shard is damaged, the images are not those that the run
        was tested on, or no lung was found in any of them.
    """
    model = run_directory.load_model(run.path, len(run.class_names))
    network = tf.function(lambda x: tf.cast(model(x, training=False), tf.float32))
    source = SplitSource(data, split, cache="none")
    ids, groups = source.ids(), source.groups()
    known = run.predictions(split)
    if ids != known.ids:
        raise UserError(
            f"{data.path}: its {split} split does not hold the images of {run.path}: name the data "
            "set of the run, or one that was built from the same files with the same flags"
        )
    shown = conditions_for(masks.source != BOX)
    logits = {one.name: np.zeros_like(known.logits) for one in shown}
    uniform = {one.name: np.zeros(len(ids), bool) for one in shown}
    area = np.zeros(len(ids))
    example: dict[str, np.ndarray] = {}
    size = run.config.batch_size
    with explained_reads(data), progress(len(ids), "images changed", " images") as bar:
        for images, _, index in source.evaluation(batch_size=size):
            rows = index.numpy()[index.numpy() >= 0]
            pixels = images.numpy()[: len(rows)]
            names = [ids[row] for row in rows]
            found = masks.find(pixels, names)
            area[rows] = found.mean(axis=(1, 2))
            for one in shown:
                each = zip(pixels, found, names, strict=True)
                left = np.stack([one.apply(*parts, fill) for parts in each])
                logits[one.name][rows] = _answer(network, left, size)
                uniform[one.name][rows] = (left == left[:, :1, :1]).all(axis=(1, 2, 3))
                if len(ids) // 2 in rows:
                    example[one.name] = left[list(rows).index(len(ids) // 2)]
            bar.update(len(rows))
    _check_answers(run, data, logits[WHOLE], known)
    used = np.ones(len(ids), bool) if masks.source == BOX else area >= _LEAST_LUNG
    if not used.any():
        raise UserError(
            f"no lung was found in any image by --mask_source={masks.source}: choose another one"
        )
    labels = labels_in_order(data.counts[split])
    return Conditioned(
        predictions={
            name: Predictions(ids, labels, values, groups).subset(used)
            for name, values in logits.items()
        },
        empty={name: float(values[used].mean()) for name, values in uniform.items()},
        no_lungs=int((~used).sum()),
        lung_share=None if masks.source == BOX else float(np.median(area[used])),
        example=example,
        example_id=ids[len(ids) // 2],
    )


def _answer(
    network: tf.types.experimental.GenericFunction, images: np.ndarray, size: int
) -> np.ndarray:
    """Logits of at most `size` images; black ones fill the batch, as in the run's own test."""
    padded = np.pad(images, ((0, size - len(images)), (0, 0), (0, 0), (0, 0)))
    return network(tf.constant(padded)).numpy()[: len(images)]


def _check_answers(
    run: FinishedRun, data: DatasetDir, logits: np.ndarray, known: Predictions
) -> None:
    """Refuses files of the same names with other pixels."""
    differing = float((logits.argmax(axis=1) != known.logits.argmax(axis=1)).mean())
    if differing > _OTHER_CLASS:
        raise UserError(
            f"{data.path} holds other pixels than {run.path} was tested on: the model gives "
            f"{differing:.0%} of the images another class than in its predictions: name the data "
            "set of the run, or one that was built from the same files with the same flags"
        )
