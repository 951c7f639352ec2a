"""Random changes of images: what is drawn, and what each number does to pixels."""

import numpy as np
import pytest
import tensorflow as tf

from cxr_tfrecords.errors import UserError
from trainer.balancing.augmentation import COLUMNS, Augmentation, resolve_strength
from trainer.balancing.class_shares import Sampling
from trainer.balancing.drawing import Streams
from trainer.balancing.samplers import draw_epoch, join_plans
from trainer.input import batch_ops
from trainer.settings.config import TrainConfig

ALL = Augmentation(10, 0.05, 0.1, 0.1, 0.2, 0.3)
LABELS = np.arange(4000) % 4


def column(changes, name):
    return changes[:, COLUMNS.index(name)]


def plan(epoch=0, batch_size=8, **arguments):
    sampling = Sampling("oversample")
    counts = {"counts": (8, 12, 20, 4), "batch_size": batch_size, "seed": 3, "epoch": epoch}
    return draw_epoch(sampling, **counts, **arguments)


def test_changes_spread_over_their_range_and_follow_the_strength_of_their_class():
    drawn = ALL.draw(Streams(0, 0), LABELS)
    assert (drawn.dtype, drawn.shape) == (np.float32, (4000, len(COLUMNS)))
    angle = np.degrees(np.arctan2(column(drawn, "sine"), column(drawn, "cosine")))
    magnified = 1 / np.hypot(column(drawn, "sine"), column(drawn, "cosine"))
    for values, largest in [
        (angle, 10),
        (magnified - 1, 0.1),
        (column(drawn, "shift_x"), 0.05),
        (column(drawn, "shift_y"), 0.05),
        (column(drawn, "brightness"), 0.1),
        (column(drawn, "contrast"), 0.2),
    ]:
        assert 0.98 * largest < values.max() < 1.001 * largest
        assert -1.001 * largest < values.min() < -0.98 * largest
        assert abs(values.mean()) < 0.05 * largest
    assert (column(drawn, "cut") == np.float32(0.3)).all()
    pairs = [("b", 0.0), ("c", 2.0)]
    strength = resolve_strength(pairs, ("a", "b", "c", "d"))
    strong = Augmentation(10, 0.05, 0.1, 0.1, 0.2, 0.3, strength).draw(Streams(0, 0), LABELS)
    shifts = column(strong, "shift_x") / column(drawn, "shift_x")
    np.testing.assert_allclose(shifts, np.tile([1, 0, 2, 1], 1000), rtol=1e-5)
    strong = Augmentation(contrast=0.6, strength=(2.0,)).draw(Streams(0, 0), LABELS * 0)
    assert column(strong, "contrast").min() == -1.0  # a factor of 0: no image is inverted
    assert column(strong, "contrast").max() > 1.1
    with pytest.raises(UserError, match="no class e; its classes are a, b"):
        resolve_strength([("e", 1.0)], ("a", "b"))


def test_changes_depend_on_seed_epoch_and_slot_alone_and_change_no_record_or_flip():
    plain, changed = plan(), plan(augmentation=ALL)
    assert plain.changes is None
    for name in ("labels", "ordinals", "flips"):
        np.testing.assert_array_equal(getattr(plain, name), getattr(changed, name))
    larger = plan(batch_size=16, augmentation=ALL).changes
    np.testing.assert_array_equal(changed.changes[: len(larger)], larger[: len(changed.changes)])
    assert not np.isin(plan(epoch=1, augmentation=ALL).changes[:, 2], changed.changes[:, 2]).any()
    joined = join_plans([changed.part(1, 2), changed.part(4, 1)])
    np.testing.assert_array_equal(joined.changes[16:], changed.changes[32:40])


def applied(image, **values):
    """An image, uint8 [S, S], changed as some columns say."""
    neutral = {"cosine": 1.0} | values
    changes = np.array([[neutral.get(name, 0.0) for name in COLUMNS]], np.float32)
    batch = tf.constant(image[np.newaxis, ..., np.newaxis]), tf.constant([2])
    images, labels = batch_ops.augment(batch, tf.constant(changes))
    assert labels.numpy().tolist() == [2]
    return images.numpy()[0, ..., 0]


def test_each_change_does_to_pixels_what_its_name_says():
    image = np.random.default_rng(0).integers(1, 256, (20, 20)).astype(np.uint8)
    np.testing.assert_array_equal(applied(image), image)
    turned = applied(image, cosine=0.0, sine=1.0)
    assert np.array_equal(turned, np.rot90(image)) or np.array_equal(turned, np.rot90(image, -1))
    right = applied(image, shift_x=0.1)
    np.testing.assert_array_equal(right[:, 2:], image[:, :-2])
    assert not right[:, :2].any()
    down = applied(image, shift_y=0.1)
    np.testing.assert_array_equal(down[2:], image[:-2])
    block = np.zeros((20, 20), np.uint8)
    block[5:15, 5:15] = 200
    twice = applied(block, cosine=0.5)  # magnified by 2
    assert (twice[2:18, 2:18] == 200).all()
    brighter = applied(image, brightness=0.2).astype(int)
    np.testing.assert_array_equal(brighter, np.minimum(image.astype(int) + 51, 255))
    halved = applied(image, contrast=-0.5)
    mean = image.mean()
    np.testing.assert_allclose(halved, mean + (image - mean) / 2, atol=0.51)
    cut = applied(image, cut=0.5, cut_x=0.25, cut_y=0.75)
    assert not cut[10:, :10].any()
    np.testing.assert_array_equal(cut[:10], image[:10])
    np.testing.assert_array_equal(cut[:, 10:], image[:, 10:])


def test_what_a_mask_hides_stays_black():
    image = np.random.default_rng(0).integers(1, 256, (20, 20)).astype(np.uint8)
    image[:, :10] = 0
    changed = applied(image, brightness=0.3, contrast=-0.5, shift_x=0.1)
    assert not changed[:, :12].any()
    assert changed[:, 12:].min() > 0


def test_settings_that_contradict_augmentation_are_refused():
    augmented = {"augment_rotation": 5.0, "trainable": "head"}
    assert not TrainConfig("d", **augmented).has_fixed_features
    assert TrainConfig("d", trainable="head").has_fixed_features
    with pytest.raises(UserError, match=r"--cache=features .* which --augment_\* would change"):
        TrainConfig("d", cache="features", **augmented)
    with pytest.raises(UserError, match="--augment_strength multiplies"):
        TrainConfig("d", augment_strength=(("a", 2.0),))
