"""How many images unlike the training images trained models flag, by kind of image and detector.

  python -m benchmarks.out_of_distribution --model=RUN,RUN --folder='lungs alone=FOLDER'

Kinds: drawn images, pictures that scikit-image and pydicom bring (left out where these are not
installed), test images of the run that are changed, and the image files of each --folder. The
table is that of docs/out_of_distribution.md. Each run keeps the detector of the default method,
which is fitted last.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from absl import flags

from benchmarks import unlike_images
from cxr_tfrecords.errors import UserError, require_flags, run_main
from cxr_tfrecords.images import BadImageError
from cxr_tfrecords.pages.markdown import markdown_table
from trainer.evaluation.out_of_distribution import DEFAULT, DETECTORS, FALSE_ALARMS

if TYPE_CHECKING:
    from trainer.deployment.predictor import Classifier

FLAGS = flags.FLAGS

flags.DEFINE_list("model", [], "Finished runs; each is a column of the table.")
flags.DEFINE_multi_string("folder", [], "KIND=FOLDER: image files of another kind, at any depth.")
flags.DEFINE_integer("images", 200, "Images of each kind.", lower_bound=2)
flags.DEFINE_float("false_alarms", FALSE_ALARMS, "Share of images like those of validation.")

TEST = "test split: false alarms"
METHODS = tuple(sorted(DETECTORS, key=lambda name: name != DEFAULT))


def main(argv: list[str]) -> None:
    del argv
    require_flags("model")
    folders = dict(_image_paths(one) for one in FLAGS.folder)
    columns = [measure(path, folders) for path in FLAGS.model]
    kinds = dict.fromkeys(kind for column in columns for kind in column)
    rows = [[kind, *(column.get(kind, "–") for column in columns)] for kind in kinds]
    print(f"flagged, %, by {' · '.join(METHODS)}; AUROC of {DEFAULT} x 100")
    print(markdown_table(["", *FLAGS.model], rows))


def _image_paths(given: str) -> tuple[str, list[str]]:
    """The kind that a --folder names, and at most --images of its files, evenly spaced."""
    kind, _, folder = given.partition("=")
    paths = sorted(glob.glob(os.path.join(folder, "**", "*.*"), recursive=True))
    if not paths:
        raise UserError(f"--folder={given}: it must be KIND=FOLDER, a folder with image files")
    return kind, paths[:: max(1, len(paths) // FLAGS.images)][: FLAGS.images]


def measure(path: str, folders: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Kind of image -> a cell of the table, for the run in `path`.

    Args:
      folders: kind -> paths of image files.
    """
    from sklearn.metrics import roc_auc_score

    from trainer.deployment.predictor import Classifier

    loaded = {
        method: Classifier.load(path, ood_method=method, false_alarms=FLAGS.false_alarms)
        for method in reversed(METHODS)
    }
    cells = {}
    like: np.ndarray | None = None  # scores of the test split, the first kind
    for kind, pixels in _kinds(path, loaded[DEFAULT], folders):
        print(f"{path}: {len(pixels)} images, {kind}", flush=True)
        answers = [loaded[method].predict_pixels(pixels) for method in METHODS]
        shares = [np.mean(np.asarray(one.out_of_distribution)) for one in answers]
        scores = np.asarray(answers[0].out_of_distribution_score)
        like = scores if like is None else like
        cells[kind] = " · ".join(f"{100 * share:.0f}" for share in shares)
        if kind != TEST:
            is_unlike = np.arange(len(like) + len(scores)) >= len(like)
            area = roc_auc_score(is_unlike, np.concatenate([like, scores]))
            cells[kind] += f" ({100 * area:.0f})"
    return cells


def _kinds(
    path: str, classifier: Classifier, folders: Mapping[str, Sequence[str]]
) -> Iterator[tuple[str, np.ndarray]]:
    """(kind, uint8 [n, size, size, channels]): the test split, then images unlike it."""
    from trainer.exporting.sample_images import evenly_spaced
    from trainer.runs.finished_run import read_run
    from trainer.runs.run_data import find_data

    count, rng = FLAGS.images, np.random.default_rng(0)
    test = evenly_spaced(find_data(read_run(path)), "test", count).images
    yield TEST, test
    size, channels = test.shape[2:]
    for make in (unlike_images.pictures, unlike_images.drawn):
        for kind, gray in make(count, size, rng):
            yield kind, np.repeat(gray[..., np.newaxis], channels, axis=-1)
    for kind, paths in folders.items():
        yield kind, np.stack([_read(classifier, path) for path in paths])
    yield from unlike_images.changed(test, rng)


def _read(classifier: Classifier, path: str) -> np.ndarray:
    try:
        return classifier.read(path)
    except BadImageError as error:
        raise UserError(f"--folder: {path}: {error}") from error


if __name__ == "__main__":
    run_main(main)
