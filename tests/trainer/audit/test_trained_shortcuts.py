"""Trained models: a planted corner mark and a source's frame are caught, a clean set passes."""

import functools

import cv2
import pytest

from cxr_tfrecords import synthetic
from tests import helpers
from trainer.audit.audit_run import audit_run
from trainer.audit.masks import open_masks
from trainer.audit.open_run import open_run
from trainer.settings.config import TrainConfig
from trainer.training.run import run

SIZE = 64
COUNTS = {"train": (100,) * 4, "validation": (15,) * 4, "test": (50,) * 4}


@functools.cache
def _radiographs(label):
    """Synthetic radiographs of a class with their masks, drawn larger: opacities are fine there."""
    pairs = [
        synthetic.render(helpers.CLASS_NAMES[label], 2 * index, 0, 2 * SIZE)
        for index in range(sum(counts[label] for counts in COUNTS.values()))
    ]
    return [
        [cv2.resize(one, (SIZE, SIZE), interpolation=cv2.INTER_AREA) for one in pair]
        for pair in pairs
    ]


def _write(path, plant):
    left = [iter(_radiographs(label)) for label in range(4)]

    def draw(label, rng, size, channels):
        image, mask = next(left[label])
        image = image.copy()
        plant(image, label)
        return image[:, :, None], mask

    return helpers.write_dataset(path, COUNTS, image_size=SIZE, draw=draw)


def _no_mark(image, label):
    pass


def _corner_mark(image, label):
    image[2:8, -8:-2] = 60 + 60 * label


def _source_frame(image, label):
    """Two of the classes are of a source that frames its images."""
    if label < 2:
        for side in (image[:2], image[-2:], image[:, :2], image[:, -2:]):
            side[:] = 255


@pytest.mark.slow
@pytest.mark.parametrize(
    ("plant", "levels"),
    # Half of the classes have the frame, so that it gives about half of what the model knows.
    [(_no_mark, ["none"]), (_corner_mark, ["likely"]), (_source_frame, ["likely", "possible"])],
)
def test_planted_shortcuts_are_caught_and_a_clean_set_passes(plant, levels, strategy, tmp_path):
    data = _write(tmp_path / "data", plant)
    config = TrainConfig(
        data_dir=data.path,
        run_dir=str(tmp_path / "run"),
        backbone="tiny",
        epochs=11,
        batch_size=16,
        learning_rate=0.01,
        early_stopping_patience=0,
    )
    run(config, data, strategy)
    finished, shown = open_run(config.run_dir, "")
    masks = open_masks(shown, "test", "data_set")
    content = audit_run(finished, shown, "test", masks, str(tmp_path / "out"), resamples=100)
    assert content["verdict"]["level"] in levels
