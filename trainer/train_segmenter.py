"""Trains a small network that finds the lungs, for trainer.shortcuts.

  python -m trainer.train_segmenter --data_dir=DATA --output=lungs.keras
  python -m trainer.shortcuts --model=RUN --output_dir=DIR --segmenter=lungs.keras

DATA is a data set that beam_pipelines.build has made with --with_masks. The network (129,000
weights, images of 96 px) is trained on its training split; the Dice coefficient of found and true
lungs, 1 if they agree, is measured on its test split.

The lungs of other sources look different: name one of them with --test_data_dir to see whether the
network finds them there. Below about 0.85 its masks leave parts of the lungs.
"""

from __future__ import annotations

import os

from absl import flags

from cxr_tfrecords import files
from cxr_tfrecords.dataset_dir import DatasetDir, load, read_manifest
from cxr_tfrecords.errors import UserError, require_flags, run_main

FLAGS = flags.FLAGS

flags.DEFINE_string("data_dir", "", "Data set with lung masks.")
flags.DEFINE_string("output", "lungs.keras", "Model file to write, *.keras; it must not exist yet.")
flags.DEFINE_string(
    "test_data_dir",
    "",
    "Data set with lung masks whose test split is used in the place of that of --data_dir.",
)
flags.DEFINE_integer("epochs", 20, "Passes through the training split.", lower_bound=1)
flags.DEFINE_integer("seed", 0, "Of initial weights, order and changes of the images.")


def main(argv: list[str]) -> None:
    del argv
    require_flags("data_dir")
    if not FLAGS.output.endswith(".keras"):
        raise UserError(f"--output={FLAGS.output}: name a file that ends in .keras")
    if os.path.exists(FLAGS.output):
        raise UserError(f"--output={FLAGS.output} exists: name another file, or delete it")
    if reason := files.why_unwritable(os.path.dirname(FLAGS.output) or "."):
        raise UserError(f"--output={FLAGS.output}: {reason}: name another folder")
    data = _open(FLAGS.data_dir, "data_dir")
    tested = _open(FLAGS.test_data_dir, "test_data_dir") if FLAGS.test_data_dir else data
    from cxr_tfrecords.console.quiet import quiet_tensorflow

    quiet_tensorflow()
    # Imported here, so that --help and a wrong flag answer at once.
    import numpy as np

    from trainer.audit import segmenter

    pixels, masks = segmenter.read_pairs(data, "train")
    print(f"training on {len(pixels):,} images of {data.path}", flush=True)
    model = segmenter.train(pixels, masks, epochs=FLAGS.epochs, seed=FLAGS.seed)
    pixels, masks = segmenter.read_pairs(tested, "test")
    trained = segmenter.Segmenter(model)
    found = [trained.masks(pixels[i : i + 64]) for i in range(0, len(pixels), 64)]
    scores = segmenter.dice(np.concatenate(found), masks)
    with files.replacing(FLAGS.output, suffix=".keras") as temporary:
        model.save(temporary)
    low, middle = np.percentile(scores, [5, 50])
    print(
        f"Dice on {len(scores):,} test images of {tested.path}: mean {scores.mean():.3f}, median "
        f"{middle:.3f}, 5% of the images are below {low:.3f}"
    )
    print(f"{FLAGS.output} has the model")


def _open(path: str, flag: str) -> DatasetDir:
    folds = read_manifest(path)["config"].get("folds", 0)
    data = load(path, 0 if folds else None)
    if not data.has_masks:
        raise UserError(
            f"--{flag}={path} holds no lung masks: build it with --with_masks from a folder that "
            "has them"
        )
    return data


if __name__ == "__main__":
    run_main(main)
