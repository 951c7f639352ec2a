"""The lung segmenter: its masks, its figures, and a training."""

import cv2
import numpy as np
import pytest

from cxr_tfrecords import synthetic
from cxr_tfrecords.errors import UserError
from tests import helpers
from trainer.audit import segmenter


def _synthetic(label, rng, size, channels):
    index = 2 * int(rng.integers(1, 1_000_000))
    image, mask = synthetic.render(helpers.CLASS_NAMES[label], index, 0, size)
    return image[:, :, None], mask


def test_dice_by_hand():
    a, b = np.zeros((3, 4, 4), bool), np.zeros((3, 4, 4), bool)
    a[0, :2], b[0, 1:3] = True, True
    a[1, :2] = True
    np.testing.assert_allclose(segmenter.dice(a, b), [0.5, 0, 1])


def test_small_parts_are_dropped_and_holes_are_filled():
    mask = np.zeros((40, 40), bool)
    mask[5:35, 4:16] = mask[5:35, 24:36] = True
    clean = mask.copy()
    mask[18:20, 8:10] = False
    mask[1:3, 18:21] = True
    np.testing.assert_array_equal(segmenter._whole_parts(mask), clean)
    assert not segmenter._whole_parts(np.zeros((8, 8), bool)).any()


def test_image_and_mask_are_moved_together():
    rng = np.random.default_rng(0)
    mask = np.zeros((96, 96), bool)
    mask[20:70, 20:60] = True
    image = np.where(mask, 200, 20).astype(np.uint8)[:, :, None]
    for _ in range(8):
        changed, moved = segmenter.change(image, mask, rng)
        assert changed.dtype == np.uint8
        inner = cv2.erode(moved.astype(np.uint8), np.ones((9, 9))) > 0
        outer = cv2.dilate(moved.astype(np.uint8), np.ones((9, 9))) == 0
        assert np.median(changed[inner]) > np.median(changed[outer]) + 50


def test_a_model_of_something_else_is_refused(tmp_path):
    (tmp_path / "x.keras").write_text("nothing")
    with pytest.raises(UserError, match="cannot be read"):
        segmenter.Segmenter.load(str(tmp_path / "x.keras"))


@pytest.mark.slow
def test_lungs_of_synthetic_radiographs_are_found(tmp_path):
    data = helpers.write_dataset(
        tmp_path / "data",
        {"train": (16,) * 4, "validation": (1,) * 4, "test": (5,) * 4},
        image_size=96,
        draw=_synthetic,
    )
    model = segmenter.train(*segmenter.read_pairs(data, "train"), epochs=6, seed=0)
    assert model.count_params() < 200_000
    model.save(tmp_path / "lungs.keras")
    pixels, masks = segmenter.read_pairs(data, "test")
    found = segmenter.Segmenter.load(str(tmp_path / "lungs.keras")).masks(pixels)
    assert segmenter.dice(found, masks).mean() > 0.7
